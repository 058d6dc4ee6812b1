"""Asks how long a prompt of Anthropic's API is, in the words of the chats that vLLM counts.

vLLM makes a chat of each such request before it generates: this is the same chat, as far as its
length goes.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from gateway.body import Body
from gateway.turns import text_of_part


def tokenization(
    body: Body, model: str, system: Sequence[msgspec.Raw], messages: Sequence[msgspec.Raw]
) -> bytes:
    """The body for /tokenize: `system` is none or one, a text or a list of blocks."""
    chat: list[dict[str, Any]] = []
    for said in map(msgspec.json.decode, system):
        blocks = said if isinstance(said, list) else [{"type": "text", "text": said}]
        texts = [text_of_part(block) or "" for block in blocks]
        chat.append({"role": "system", "content": "".join(texts)})
    for message in map(msgspec.json.decode, messages):
        chat += _turns(message)
    fields: dict[str, Any] = {"model": model, "messages": chat}
    tools = body.lenient("tools", list[dict[str, Any]], [])
    if tools:
        fields["tools"] = [{"type": "function", "function": _function(tool)} for tool in tools]
    if not body.is_absent("chat_template_kwargs"):
        fields["chat_template_kwargs"] = body.fields["chat_template_kwargs"]
    return msgspec.json.encode(fields)


def _function(tool: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": tool.get("name"),
        "description": tool.get("description"),
        "parameters": tool.get("input_schema"),
    }


def _turns(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A message as one turn of a chat, with a turn before it for each result of a tool."""
    role, content = message["role"], message["content"]
    if isinstance(content, str):
        yield {"role": role, "content": content}
        return
    parts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for block in content:
        match block:
            case {"type": "tool_result"}:
                yield {
                    "role": "tool",
                    "tool_call_id": str(block.get("tool_use_id")),
                    "content": _result(block.get("content")),
                }
            case {"type": "tool_use"}:
                calls.append(_call(block))
            case {"type": "image", "source": dict(source)}:
                parts.append({"type": "image_url", "image_url": {"url": _address(source)}})
            case {"type": "text", "text": str(text)}:
                parts.append({"type": "text", "text": text})
    turn: dict[str, Any] = {"role": role, "content": parts}
    if len(parts) == 1 and parts[0]["type"] == "text":
        turn["content"] = parts[0]["text"]
    if calls:
        turn |= {"tool_calls": calls, "content": turn["content"] or None}
    if parts or calls:
        yield turn


def _result(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(filter(None, map(text_of_part, content)))
    return content if isinstance(content, str) else ""


def _call(block: dict[str, Any]) -> dict[str, Any]:
    arguments = msgspec.json.encode(block.get("input") or {}).decode()
    return {
        "id": str(block.get("id")),
        "type": "function",
        "function": {"name": str(block.get("name")), "arguments": arguments},
    }


def _address(source: dict[str, Any]) -> str:
    if source.get("type") == "url":
        return str(source.get("url"))
    return f"data:{source.get('media_type', 'image/jpeg')};base64,{source.get('data', '')}"
