"""Entries of `input`: what they say, who speaks, and the chat that vLLM makes of them."""

from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.body import decoded
from gateway.errors import InvalidRequest
from gateway.turns import Spoken

ROLES = ("user", "assistant", "system", "developer")
SEARCH_CALL = "file_search_call"
_CALLS = ("function_call", "custom_tool_call")
_RESULTS = ("function_call_output", "custom_tool_call_output")
_TEXTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")


class Item(msgspec.Struct):
    """An entry of `input`, as far as the gateway reads it."""

    type: str | None = None
    role: str | None = None
    content: Any = None
    status: Any = None
    call_id: Any = None
    name: Any = None
    arguments: Any = None
    input: Any = None
    output: Any = None
    summary: Any = None

    @property
    def is_message(self) -> bool:
        """Whether somebody says something in it; such an entry may go without a type."""
        return self.type == "message" or (self.type is None and self.role is not None)


def read_item(raw: msgspec.Raw, place: int) -> Item:
    """The entry at `place`. Raises InvalidRequest; what else is wrong in it, vLLM says."""
    param = f"input[{place}]"
    item: Item = decoded(raw, Item, param)
    if item.type is None and item.role is None:
        raise InvalidRequest(f"{param!r} has neither a type nor a role.", param)
    if not item.is_message:
        return item
    if item.role not in ROLES:
        raise InvalidRequest(
            f"Invalid value for '{param}.role': {item.role!r} is none of {', '.join(ROLES)}.",
            f"{param}.role",
        )
    if not isinstance(item.content, str | list):
        raise InvalidRequest(
            f"Invalid value for '{param}.content': it is neither a text nor a list of parts.",
            f"{param}.content",
        )
    return item


def text_of_item(item: Item) -> str:
    """What a message says; empty for one of images alone."""
    if isinstance(item.content, str):
        return item.content.strip()
    return "\n".join(filter(None, map(text_of_part, item.content or ()))).strip()


def text_of_part(part: Any) -> str | None:
    """The text of a content part; None for an image and whatever else is no text."""
    if isinstance(part, dict) and part.get("type") in _TEXTS:
        text = part.get("text")
        return text if isinstance(text, str) else None
    return None


def is_text(item: Item) -> bool:
    """Whether there is nothing but text in it."""
    for value in (item.content, item.output):
        if isinstance(value, list) and any(text_of_part(part) is None for part in value):
            return False
    return True


def spoken(item: Item) -> Spoken:
    """Who speaks in it, and which call ties it to other entries."""
    calls = [{"id": item.call_id}] if item.type in _CALLS and isinstance(item.call_id, str) else []
    if item.type in _RESULTS:
        answered = item.call_id if isinstance(item.call_id, str) else None
        return Spoken("tool", tool_call_id=answered)
    return msgspec.convert({"role": item.role or "assistant", "tool_calls": calls}, Spoken)


def as_chat(items: Sequence[Item]) -> list[dict[str, Any]]:
    """The messages that vLLM makes of these.

    Thoughts, text and calls of the assistant that follow each other become one message.
    """
    messages: list[dict[str, Any]] = []
    for item in items:
        message = _as_message(item)
        if message is None:
            continue
        last: dict[str, Any] = messages[-1] if messages else {"role": None}
        if message["role"] != "assistant" or last["role"] != "assistant":
            messages.append(message)
        elif calls := message.get("tool_calls"):
            last.setdefault("tool_calls", []).extend(calls)
        elif message.keys() & last.keys() == {"role"}:
            last.update(message)
        else:
            messages.append(message)
    return messages


def _as_message(item: Item) -> dict[str, Any] | None:
    """A chat message; None for an entry that vLLM refuses."""
    if item.is_message:
        if item.role == "assistant":
            return {"role": "assistant", "content": text_of_item(item)}
        return {"role": item.role, "content": _as_content(item.content)}
    if item.type in _CALLS:
        arguments = item.arguments
        if item.type == "custom_tool_call":
            arguments = msgspec.json.encode({"input": item.input}).decode()
        call = {
            "id": item.call_id,
            "type": "function",
            "function": {"name": item.name, "arguments": arguments},
        }
        return {"role": "assistant", "tool_calls": [call]}
    if item.type in _RESULTS:
        return {
            "role": "tool",
            "tool_call_id": item.call_id,
            "content": _as_content(item.output),
        }
    if item.type == "reasoning":
        said = item.content or item.summary
        thoughts = [text_of_part(part) for part in (said if isinstance(said, list) else ())]
        return {"role": "assistant", "reasoning": next(filter(None, thoughts), "")}
    return None


def _as_content(content: Any) -> Any:
    return [*map(_as_part, content)] if isinstance(content, list) else content


def _as_part(part: Any) -> Any:
    if (text := text_of_part(part)) is not None:
        return {"type": "text", "text": text}
    if isinstance(part, dict) and part.get("type") == "input_image":
        return {"type": "image_url", "image_url": {"url": part.get("image_url")}}
    return part
