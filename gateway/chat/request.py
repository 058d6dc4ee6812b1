"""The body of a chat request. Reads what retrieval needs; everything else stays as it came."""

import re
from functools import cached_property
from typing import Any

import msgspec

from gateway.errors import InvalidRequest
from gateway.retrieval.options import RetrievalOptions
from gateway.turns import Said, Spoken, Turn, exchanges, text_of, text_of_part

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for a wrong value; the last one for a very deep one."""


_PLACE = re.compile(r" - at `\$(.*)`$")
"""How msgspec tells where in a value it met what it did not expect."""
_RENDERED = (
    "tools",
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
    "chat_template",
    "media_io_kwargs",
    "mm_processor_kwargs",
)
"""What else than messages becomes part of a prompt, by the names that vLLM has for it."""
_TO_THE_TEMPLATE = ("chat_template", "chat_template_kwargs", "documents")
"""What may make a prompt longer than the text of its messages and tools."""


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Format(msgspec.Struct):
    type: str = ""


class Conversation:
    """A chat request, with every field that is not touched kept byte for byte."""

    def __init__(self, body: bytes) -> None:
        """Raises InvalidRequest when `body` is not a JSON object with a list of messages."""
        try:
            self._fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        except _UNREADABLE as exc:
            raise InvalidRequest(f"The request body is not a JSON object: {exc}") from exc
        if "messages" not in self._fields:
            raise InvalidRequest("Missing required parameter: 'messages'.", "messages")
        self._messages = self._field("messages", list[msgspec.Raw])
        if not self._messages:
            raise InvalidRequest("'messages' is empty: there must be at least one.", "messages")
        self.model: str | None = self._field("model", str | None)
        self.stream: bool = bool(self._field("stream", bool | None))
        self.retrieval = self._retrieval_options()
        self._question_at, self._turn = self._last_user_turn()
        self._sent = self._messages

    @property
    def question(self) -> str:
        """The text of the last user turn; empty where there is none."""
        return text_of(self._turn) if self._turn else ""

    def said_before(self, turns: int) -> list[Said]:
        """Up to `turns` turns of user and assistant before the question, oldest first."""
        said: list[Said] = []
        for message in reversed(self._messages[: max(0, self._question_at)]):
            try:
                turn = msgspec.json.decode(message, type=Turn)
            except _UNREADABLE:
                break
            if turn.role in ("user", "assistant") and (text := text_of(turn)):
                said.append(Said(turn.role, text))
            if len(said) == turns:
                break
        return said[::-1]

    @property
    def wants_json(self) -> bool:
        """Whether the answer is to be JSON, as text or after a schema."""
        try:
            wanted = self._field("response_format", _Format | None)
        except InvalidRequest:  # vLLM refuses it
            return False
        return wanted is not None and wanted.type in ("json_object", "json_schema")

    @property
    def wants_usage(self) -> bool:
        """Whether a stream is to end with what it used."""
        try:
            options = self._field("stream_options", _StreamOptions | None)
        except InvalidRequest:  # vLLM refuses it
            return False
        return options is not None and bool(options.include_usage)

    @property
    def tools(self) -> bytes:
        """The client's tools as they came; empty where there are none."""
        return bytes(self._fields.get("tools", b""))

    @property
    def truncated_to(self) -> int | None:
        """Tokens that vLLM cuts a longer prompt to, because the client asked for that."""
        return self._number("truncate_prompt_tokens")

    @cached_property
    def exchanges(self) -> list[list[int]]:
        """What may be forgotten, oldest first: places of messages that belong together.

        A turn of the user and all that answers it, tool calls and their results included. System
        messages are in none, nor is anything from the last turn of the user on. Empty where a
        message makes no sense: vLLM says so.
        """
        try:
            spoken = [msgspec.json.decode(message, type=Spoken) for message in self._messages]
        except _UNREADABLE:
            return []
        return exchanges(spoken, self._question_at)

    @cached_property
    def bounded(self) -> bool:
        """Whether the prompt is made of the text of messages and tools, and a template's own.

        It is not where there are images, or where the client says something to the template.
        """
        if any(not self._absent(name) for name in _TO_THE_TEMPLATE):
            return False
        try:
            turns = [msgspec.json.decode(message, type=Turn) for message in self._messages]
        except _UNREADABLE:
            return False
        parts = [part for turn in turns if isinstance(turn.content, list) for part in turn.content]
        return all(text_of_part(part) is not None for part in parts)

    def answer_tokens(self, default: int) -> int:
        """How long the answer may get, in tokens: what the client said, or `default`."""
        for name in ("max_completion_tokens", "max_tokens"):
            if (asked := self._number(name)) is not None:
                return max(asked, 1)
        return max(default, self._number("min_tokens") or 0)

    def messages(self, prompt: str | None = None, forgotten: int = 0) -> list[msgspec.Raw]:
        """The messages with `prompt`, if any, where the question stands.

        Images and other parts beside the question stay, before it. The `forgotten` oldest
        exchanges are left out; every other message is as it came.
        """
        without = {place for exchange in self.exchanges[:forgotten] for place in exchange}
        kept = [message for place, message in enumerate(self._messages) if place not in without]
        if prompt is not None:
            place = self._question_at - len(without)
            kept[place] = self._augmented(kept[place], prompt)
        return kept

    def augment(self, prompt: str | None, forgotten: int = 0) -> None:
        """Send `messages(prompt, forgotten)` instead of what came. May be repeated."""
        self._sent = self.messages(prompt, forgotten)

    def tokenization(self, model: str, messages: list[msgspec.Raw]) -> bytes:
        """The body that asks vLLM how long the prompt of `messages` is.

        vLLM counts as it generates, with the same template: everything that has a part in it is
        told. What a chat request has fields of its own for goes through the template's options.
        """
        fields: dict[str, Any] = {
            name: self._fields[name] for name in _RENDERED if name in self._fields
        }
        if options := self._template_options():
            fields["chat_template_kwargs"] = options
        return msgspec.json.encode({**fields, "model": model, "messages": messages})

    def encode(self, model: str, defaults: dict[str, float]) -> bytes:
        """The body for vLLM, with the name that it knows the model by.

        `defaults` fill in what the client did not say.
        """
        fields: dict[str, Any] = {
            **defaults,
            **self._fields,
            "model": model,
            "messages": self._sent,
        }
        fields.pop("retrieval", None)
        return msgspec.json.encode(fields)

    def _field(self, name: str, expected: Any) -> Any:
        raw = self._fields.get(name)
        if raw is None:
            return None
        try:
            return msgspec.json.decode(raw, type=expected)
        except _UNREADABLE as exc:
            place = _PLACE.search(str(exc))
            param = name + (place[1] if place else "")
            raise InvalidRequest(f"Invalid value for {param!r}: {exc}", param) from exc

    def _absent(self, name: str) -> bool:
        return bytes(self._fields.get(name, b"null")) == b"null"

    def _number(self, name: str) -> int | None:
        """An integer field; None where it is something else, which vLLM refuses."""
        try:
            return msgspec.json.decode(self._fields.get(name, b"null"), type=int | None)
        except _UNREADABLE:
            return None

    def _augmented(self, message: msgspec.Raw, prompt: str) -> msgspec.Raw:
        content: Any = prompt
        if self._turn is not None and isinstance(self._turn.content, list):
            others = [part for part in self._turn.content if text_of_part(part) is None]
            content = [*others, {"type": "text", "text": prompt}]
        fields = msgspec.json.decode(message, type=dict[str, msgspec.Raw])
        return msgspec.Raw(msgspec.json.encode({**fields, "content": content}))

    def _template_options(self) -> dict[str, Any]:
        """`chat_template_kwargs` as vLLM's chat completions put them together."""
        try:
            options = self._field("chat_template_kwargs", dict[str, Any] | None) or {}
        except InvalidRequest:  # vLLM refuses it
            return {}
        given = {
            name: self._fields[name]
            for name in ("documents", "reasoning_effort")
            if not self._absent(name)
        }
        if "reasoning_effort" in given and "enable_thinking" not in options:
            options["enable_thinking"] = bytes(given["reasoning_effort"]) != b'"none"'
        return {**options, **given}

    def _retrieval_options(self) -> RetrievalOptions:
        options = self._field("retrieval", bool | RetrievalOptions | None)
        if isinstance(options, RetrievalOptions):
            return options
        return RetrievalOptions(enabled=options)

    def _last_user_turn(self) -> tuple[int, Turn | None]:
        for place in range(len(self._messages) - 1, -1, -1):
            try:
                turn = msgspec.json.decode(self._messages[place], type=Turn)
            except _UNREADABLE as exc:
                param = f"messages[{place}]"
                raise InvalidRequest(f"Invalid value for {param!r}: {exc}", param) from exc
            if turn.role == "user":
                return place, turn
        return -1, None
