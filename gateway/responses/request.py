"""A request for a response. Reads what retrieval needs; everything else stays as it came."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import msgspec

from gateway.citations import Grounding
from gateway.conversation import Asked, Conversation
from gateway.errors import InvalidRequest, PreviousResponseNotFound
from gateway.responses.answer import ResponsesShape
from gateway.responses.edits import KEPT, Edits
from gateway.responses.file_search import read_tools, search_options, without_search
from gateway.responses.ids import is_own, new_id
from gateway.responses.items import (
    SEARCH_CALL,
    Item,
    as_chat,
    is_text,
    read_item,
    spoken,
    text_of_item,
    text_of_part,
)
from gateway.turns import Said, exchanges

RESULTS = "file_search_call.results"
_OURS = ("retrieval", "data_sources")
"""Fields that are meant for the gateway."""
_FROM_THE_TOOL = ("vector_store_ids", "filters")
"""Options that the tool calls by the same name, and that can be wrong in the index's eyes alone."""


class _Reasoning(msgspec.Struct):
    effort: str | None = None


class _Format(msgspec.Struct, frozen=True):
    type: str = ""


class _Text(msgspec.Struct, frozen=True):
    format: _Format = _Format()


class ResponsesRequest(Conversation):
    """A request for a response, with every field that is not touched kept byte for byte."""

    path = "/responses"
    answer_fields = ("max_output_tokens",)
    prompt_field = "input"

    def __init__(self, content: bytes, asked: Asked = Asked()) -> None:  # noqa: B008  # immutable
        """Raises InvalidRequest, FilterInvalid and PreviousResponseNotFound."""
        super().__init__(content, asked)
        if not self.body.is_absent("conversation"):
            # vLLM ignores it without a word.
            raise InvalidRequest(
                "Conversations are not kept here: send 'previous_response_id', or all turns.",
                "conversation",
            )
        said: str | list[msgspec.Raw] = self.body.required("input", str | list[msgspec.Raw])
        self._is_text = isinstance(said, str)
        if isinstance(said, str):
            said = [msgspec.Raw(msgspec.json.encode({"role": "user", "content": said}))]
        read = [(raw, read_item(raw, place)) for place, raw in enumerate(said)]
        previous: str | None = self.body.get("previous_response_id", str | None)
        if previous is not None and not is_own(previous):
            raise PreviousResponseNotFound(previous)
        if not read and previous is None:
            raise InvalidRequest("'input' is empty: there must be at least one entry.", "input")
        # vLLM knows no calls of a tool that it does not have.
        kept = [(raw, item) for raw, item in read if item.type != SEARCH_CALL]
        self._raw = [raw for raw, _ in kept]
        self._items = [item for _, item in kept]
        self._question_at = len(self._items) - 1
        while self._question_at >= 0 and not _is_user(self._items[self._question_at]):
            self._question_at -= 1
        self._sent: Any = self.body.fields["input"] if self._is_text else self._raw
        self._tools = read_tools(self.body)
        self._searches, self._tool_choice = without_search(self.body, self._tools)
        if self._searches and self._tools.search is not None:
            self.retrieval = search_options(self._tools.search, self._tools.name, self.retrieval)
        elif self._tools.search is not None:
            self.retrieval = msgspec.structs.replace(self.retrieval, enabled=False)
        if KEPT in self.body.lenient("metadata", dict[str, msgspec.Raw], {}):
            raise InvalidRequest(f"The key {KEPT!r} is the gateway's own.", f"metadata.{KEPT}")
        self._included: list[str] = self.body.lenient("include", list[str], [])
        self._edits = self._edited(None)

    @property
    def question(self) -> str:
        """The text of the last message of the user; empty where there is none."""
        return text_of_item(self._items[self._question_at]) if self._question_at >= 0 else ""

    def param(self, option: str) -> str:
        """What the request calls an option of retrieval, for errors that name it."""
        if self._searches and option in _FROM_THE_TOOL:
            return f"{self._tools.name}.{option}"
        return super().param(option)

    def said_before(self, turns: int) -> list[Said]:
        """Up to `turns` turns of user and assistant before the question, oldest first.

        Those of an earlier response, which vLLM keeps, are not among them.
        """
        before = self._items[: max(self._question_at, 0)]
        said = [
            Said(str(item.role), text_of_item(item))
            for item in before
            if item.is_message and item.role in ("user", "assistant")
        ]
        return [turn for turn in said if turn.text][-turns:] if turns else []

    @property
    def may_repeat(self) -> bool:
        """Whether no server would keep a response, or make it when nobody waits for it."""
        is_background = self.body.lenient("background", bool, False)
        return not (self._edits.is_stored or is_background)

    @property
    def wants_json(self) -> bool:
        """Whether the answer is to be JSON, as text or after a schema."""
        wanted: _Text = self.body.lenient("text", _Text, _Text())
        return wanted.format.type in ("json_object", "json_schema")

    @property
    def tools(self) -> bytes:
        """The tools that vLLM gets; empty where there are none."""
        return msgspec.json.encode(self._tools.others) if self._tools.others else b""

    @property
    def truncated_to(self) -> int | None:
        """-1, which is vLLM's word for all that the model reads, where the client wants that."""
        return -1 if self.body.lenient("truncation", str) == "auto" else None

    @property
    def opening(self) -> bytes:
        """Instructions, and the entries up to the first message of the user."""
        first = next((at for at, item in enumerate(self._items) if _is_user(item)), 0)
        return self.body.raw("instructions") + b"".join(map(bytes, self._raw[: first + 1]))

    @cached_property
    def exchanges(self) -> list[list[int]]:
        """What may be forgotten, oldest first."""
        return exchanges([*map(spoken, self._items)], self._question_at)

    @cached_property
    def bounded(self) -> bool:
        """Whether the prompt is made of the text of messages and tools, and a template's own.

        What an earlier response adds to it is known to vLLM alone.
        """
        others = ("previous_response_id", "previous_input_messages", "chat_template_kwargs")
        return all(map(self.body.is_absent, others)) and all(map(is_text, self._items))

    def answer_tokens(self, default: int) -> int:
        """How long the answer may get, in tokens: what the client said, or `default`."""
        return max(int(self.body.lenient("max_output_tokens", int, default)), 1)

    def messages(self, prompt: str | None = None, forgotten: int = 0) -> list[msgspec.Raw]:
        """The chat that vLLM makes of instructions and entries, after an earlier response's.

        `prompt`, if any, stands where the question does, and the `forgotten` oldest exchanges are
        left out.
        """
        instructions: str = self.body.lenient("instructions", str, "")
        chat = [{"role": "system", "content": instructions}] if instructions else []
        items = self.remembered(self._items, forgotten)
        if prompt is not None:
            place = self._question_at - len(self._items) + len(items)
            items[place] = Item(role="user", content=_with_prompt(items[place].content, prompt))
        return [msgspec.Raw(msgspec.json.encode(each)) for each in [*chat, *as_chat(items)]]

    def augment(self, prompt: str | None, forgotten: int = 0) -> None:
        """Send vLLM the entries that `messages(prompt, forgotten)` is made of. May be repeated."""
        if self._is_text:
            self._sent = self.body.fields["input"] if prompt is None else prompt
            return
        kept = self.remembered(self._raw, forgotten)
        if prompt is not None:
            place = self._question_at - len(self._raw) + len(kept)
            fields = msgspec.json.decode(kept[place], type=dict[str, msgspec.Raw])
            content = _with_prompt(self._items[self._question_at].content, prompt)
            kept[place] = msgspec.Raw(msgspec.json.encode({**fields, "content": content}))
        self._sent = kept

    def tokenization(self, model: str, messages: Sequence[msgspec.Raw]) -> bytes:
        """The body that asks vLLM how long the prompt of `messages` is.

        With an earlier response it is longer: only vLLM knows the turns before.
        """
        options: dict[str, Any] = self.body.lenient("chat_template_kwargs", dict[str, Any], {})
        reasoning: _Reasoning = self.body.lenient("reasoning", _Reasoning, _Reasoning())
        if reasoning.effort is not None:
            thinking = {"enable_thinking": reasoning.effort != "none"}
            options = {**thinking, **options, "reasoning_effort": reasoning.effort}
        fields: dict[str, Any] = {
            "model": model,
            "messages": messages,
            "add_generation_prompt": not self._is_continued,
            "continue_final_message": self._is_continued,
        }
        if functions := [*filter(None, map(_as_chat_tool, self._tools.others))]:
            fields["tools"] = functions
        if options:
            fields["chat_template_kwargs"] = options
        return msgspec.json.encode(fields)

    def encode(self, model: str, defaults: dict[str, float]) -> bytes:
        """The body for vLLM, with the name that it knows the model by.

        `defaults` fill in what the client did not say. To OpenAI null says nothing; vLLM refuses
        it in some fields.
        """
        said = {
            name: raw
            for name, raw in self.body.fields.items()
            if name not in _OURS and not self.body.is_absent(name)
        }
        fields: dict[str, Any] = {
            **defaults,
            **said,
            **self.added,
            "model": model,
            "input": self._sent,
        }
        fields["request_id"] = new_id()  # which vLLM makes the response's
        if self._tools.search is not None:
            replaced = {"tools": self._tools.others or None, "tool_choice": self._tool_choice}
            fields |= {name: value for name, value in replaced.items() if value is not None}
            for name in (name for name, value in replaced.items() if value is None):
                fields.pop(name, None)
        if RESULTS in self._included:
            fields["include"] = [each for each in self._included if each != RESULTS]
        if self._edits.is_stored and self._edits.changes:
            metadata = self.body.lenient("metadata", dict[str, msgspec.Raw], {})
            kept = msgspec.json.encode(self._edits).decode()
            fields["metadata"] = {**metadata, KEPT: kept}
        return msgspec.json.encode(fields)

    def shape(self, grounding: Grounding | None) -> ResponsesShape:
        """How its answer is written; vLLM keeps that too, beside the answer, if it keeps any."""
        self._edits = self._edited(grounding)
        return ResponsesShape(self._edits, self.body)

    @property
    def _is_continued(self) -> bool:
        """Whether the last message is a part of what the model is to write, as vLLM decides it."""
        last = self._items[-1] if self._items else Item()
        is_part = last.is_message or last.type == "reasoning"
        return is_part and last.status in ("in_progress", "incomplete")

    def _edited(self, grounding: Grounding | None) -> Edits:
        tool = self._tools.search
        asked = {
            name: self.body.fields[name]
            for name in ("tool_choice", "safety_identifier", "prompt_cache_key")
            if not self.body.is_absent(name)
        }
        return Edits(
            # Candidates that were not chosen would make what vLLM keeps many times as long.
            grounding=grounding and msgspec.structs.replace(grounding, candidates=()),
            tool=None if tool is None else msgspec.json.decode(tool),
            tool_place=self._tools.place,
            searched=grounding is not None and tool is not None,
            shows_results=RESULTS in self._included,
            is_stored=self.body.lenient("store", bool, True),
            asked={"tool_choice": msgspec.Raw(b'"auto"')} | asked,
        )


def _is_user(item: Item) -> bool:
    return item.is_message and item.role == "user"


def _with_prompt(content: Any, prompt: str) -> Any:
    """The content of a message with `prompt` for its text; images and files stay, before it."""
    if not isinstance(content, list):
        return prompt
    others = [part for part in content if text_of_part(part) is None]
    return [*others, {"type": "input_text", "text": prompt}]


def _as_chat_tool(raw: msgspec.Raw) -> dict[str, Any] | None:
    """A function as chat requests have it; None for another tool, which adds nothing to a chat."""
    tool = msgspec.json.decode(raw, type=dict[str, Any])
    if tool.pop("type", None) != "function":
        return None
    return {"type": "function", "function": tool}
