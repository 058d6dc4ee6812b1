"""A chat request. Reads what retrieval needs; everything else stays as it came."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import msgspec

from gateway.body import COUNT, UNREADABLE
from gateway.chat import azure
from gateway.chat.answer import ChatShape
from gateway.citations import Grounding
from gateway.conversation import Asked, Conversation
from gateway.errors import InvalidRequest
from gateway.events import DONE
from gateway.turns import (
    ROLES,
    Said,
    Spoken,
    Turn,
    exchanges,
    text_of,
    text_of_part,
    with_text,
)

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
_OURS = ("retrieval", azure.FIELD)
"""Fields that are meant for the gateway."""


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Role(msgspec.Struct):
    role: str


class _Format(msgspec.Struct):
    type: str = ""


class ChatRequest(Conversation):
    """A chat request, with every field that is not touched kept byte for byte."""

    path = "/chat/completions"
    answer_fields = ("max_completion_tokens", "max_tokens")
    tells_usage_if_asked = True
    stream_ending = DONE

    def __init__(self, content: bytes, asked: Asked = Asked()) -> None:  # noqa: B008  # immutable
        """Raises InvalidRequest when `content` is no JSON object with a model and messages."""
        super().__init__(content, asked)
        self.body.get("n", COUNT)
        self._messages: list[msgspec.Raw] = self.body.required("messages", list[msgspec.Raw])
        if not self._messages:
            raise InvalidRequest("'messages' is empty: there must be at least one.", "messages")
        self._roles = [_role(message, place) for place, message in enumerate(self._messages)]
        self._source = azure.DataSource.read(self.body)
        if self._source is not None:
            self.retrieval = self._source.options
            self._messages = self._source.instructed(self._messages, self._roles[0])
            self._roles = ["system"] * (len(self._messages) - len(self._roles)) + self._roles
        self._question_at = len(self._roles) - 1
        while self._question_at >= 0 and self._roles[self._question_at] != "user":
            self._question_at -= 1
        self._turn = self._turn_at(self._question_at) if self._question_at >= 0 else None
        self._sent = self._messages

    @property
    def question(self) -> str:
        """The text of the last user turn; empty where there is none."""
        return text_of(self._turn) if self._turn else ""

    def said_before(self, turns: int) -> list[Said]:
        """Up to `turns` turns of user and assistant before the question, oldest first."""
        said: list[Said] = []
        for place in range(self._question_at - 1, -1, -1):
            role = self._roles[place]
            try:
                text = text_of(self._turn_at(place)) if role in ("user", "assistant") else ""
            except InvalidRequest:  # vLLM refuses it
                break
            if text:
                said.append(Said(role, text))
            if len(said) == turns:
                break
        return said[::-1]

    @property
    def wants_json(self) -> bool:
        """Whether the answer is to be JSON, as text or after a schema."""
        wanted: _Format = self.body.lenient("response_format", _Format, _Format())
        return wanted.type in ("json_object", "json_schema")

    @property
    def wants_usage(self) -> bool:
        """Whether a stream is to end with what it used."""
        options: _StreamOptions = self.body.lenient(
            "stream_options", _StreamOptions, _StreamOptions()
        )
        return bool(options.include_usage)

    @property
    def opening(self) -> bytes:
        """The messages up to the first turn of the user, which later requests repeat."""
        first = self._roles.index("user") if "user" in self._roles else 0
        return b"".join(map(bytes, self._messages[: first + 1]))

    @cached_property
    def exchanges(self) -> list[list[int]]:
        """What may be forgotten, oldest first; empty where a message makes no sense.

        vLLM says so then.
        """
        try:
            spoken = [msgspec.json.decode(message, type=Spoken) for message in self._messages]
        except UNREADABLE:
            return []
        return exchanges(spoken, self._question_at)

    @cached_property
    def bounded(self) -> bool:
        """Whether the prompt is made of the text of messages and tools, and a template's own."""
        if any(not self.body.is_absent(name) for name in _TO_THE_TEMPLATE):
            return False
        try:
            contents = [self._turn_at(place).content for place in range(len(self._messages))]
        except InvalidRequest:  # vLLM refuses it
            return False
        parts = [part for content in contents if isinstance(content, list) for part in content]
        return all(text_of_part(part) is not None for part in parts)

    def answer_tokens(self, default: int) -> int:
        """How long the answer may get, in tokens: what the client said, or `default`."""
        for name in ("max_completion_tokens", "max_tokens"):
            if (asked := self.body.lenient(name, int)) is not None:
                return max(int(asked), 1)
        return max(default, int(self.body.lenient("min_tokens", int, 0)))

    def messages(self, prompt: str | None = None, forgotten: int = 0) -> list[msgspec.Raw]:
        """The messages with `prompt`, if any, where the question stands.

        Images and other parts beside the question stay, before it. The `forgotten` oldest
        exchanges are left out; every other message is as it came.
        """
        kept = self.remembered(self._messages, forgotten)
        if prompt is not None and self._turn is not None:
            place = self._question_at - len(self._messages) + len(kept)
            kept[place] = with_text(kept[place], self._turn.content, prompt)
        return kept

    def augment(self, prompt: str | None, forgotten: int = 0) -> None:
        """Send `messages(prompt, forgotten)` instead of what came. May be repeated."""
        self._sent = self.messages(prompt, forgotten)

    def tokenization(self, model: str, messages: Sequence[msgspec.Raw]) -> bytes:
        """The body that asks vLLM how long the prompt of `messages` is.

        vLLM counts as it generates, with the same template: everything that has a part in it is
        told. What a chat request has fields of its own for goes through the template's options.
        """
        fields: dict[str, Any] = {
            name: self.body.fields[name] for name in _RENDERED if name in self.body.fields
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
            **self.body.fields,
            **self.added,
            "model": model,
            "messages": self._sent,
        }
        for name in _OURS:
            fields.pop(name, None)
        return msgspec.json.encode(fields)

    def shape(self, grounding: Grounding | None) -> ChatShape:
        """How its answer is written."""
        if grounding is not None and self._source is not None:
            grounding = self._source.included(grounding)
        return ChatShape(grounding, self.wants_usage)

    def param(self, option: str) -> str:
        """What the request calls an option of retrieval, for errors that name it."""
        return super().param(option) if self._source is None else self._source.param(option)

    def _turn_at(self, place: int) -> Turn:
        try:
            return msgspec.json.decode(self._messages[place], type=Turn)
        except UNREADABLE as exc:
            param = f"messages[{place}]"
            raise InvalidRequest(f"Invalid value for {param!r}: {exc}", param) from exc

    def _template_options(self) -> dict[str, Any]:
        """`chat_template_kwargs` as vLLM's chat completions put them together."""
        options: dict[str, Any] = self.body.lenient("chat_template_kwargs", dict[str, Any], {})
        given = {
            name: self.body.fields[name]
            for name in ("documents", "reasoning_effort")
            if not self.body.is_absent(name)
        }
        if "reasoning_effort" in given and "enable_thinking" not in options:
            options["enable_thinking"] = bytes(given["reasoning_effort"]) != b'"none"'
        return {**options, **given}


def _role(message: msgspec.Raw, place: int) -> str:
    param = f"messages[{place}]"
    try:
        role = msgspec.json.decode(message, type=_Role).role
    except UNREADABLE as exc:
        raise InvalidRequest(f"Invalid value for {param!r}: {exc}", param) from exc
    if role not in ROLES:
        raise InvalidRequest(
            f"Invalid value for '{param}.role': {role!r} is none of {', '.join(ROLES)}.",
            f"{param}.role",
        )
    return role
