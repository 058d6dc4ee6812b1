"""A request in Anthropic's messages API. Reads what retrieval needs; everything else stays."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import msgspec

from gateway.body import UNREADABLE
from gateway.citations import Grounding
from gateway.conversation import Asked, Conversation
from gateway.errors import InvalidRequest
from gateway.messages.answer import MessagesShape, TokenCountShape
from gateway.messages.counting import tokenization
from gateway.messages.turns import MessageTurn, exchanges, is_result_alone
from gateway.turns import Said, text_of, text_of_part, with_text


class MessagesRequest(Conversation):
    """A request for a message, with every field that is not touched kept byte for byte."""

    path = "/messages"
    grounded_by_default = False

    def __init__(self, content: bytes, asked: Asked = Asked()) -> None:  # noqa: B008  # immutable
        """Raises InvalidRequest when `content` is no JSON object with what this API demands."""
        super().__init__(content, asked)
        self._check_length()
        self._messages: list[msgspec.Raw] = self.body.required("messages", list[msgspec.Raw])
        if not self._messages:
            raise InvalidRequest("'messages' is empty: there must be at least one.", "messages")
        self._turns = [_turn(message, place) for place, message in enumerate(self._messages)]
        asking = [place for place, turn in enumerate(self._turns) if _asks(turn)]
        self._question_at = asking[-1] if asking else -1
        self._prompt: str | None = None
        self._forgotten = 0

    def _check_length(self) -> None:
        """Raises InvalidRequest where `max_tokens` is missing, or no number above 0."""
        if self.body.required("max_tokens", int) < 1:
            raise InvalidRequest("Invalid value for 'max_tokens': it is below 1.", "max_tokens")

    @property
    def question(self) -> str:
        """The text of the last turn of the user that is more than results of tools."""
        return text_of(self._turns[self._question_at]) if self._question_at >= 0 else ""

    def said_before(self, turns: int) -> list[Said]:
        """Up to `turns` turns of user and assistant before the question, oldest first."""
        said = [
            Said(turn.role, text)
            for turn in self._turns[: max(self._question_at, 0)]
            if turn.role != "system" and (text := text_of(turn))
        ]
        return said[-turns:]

    @property
    def wants_json(self) -> bool:
        """Whether the answer is to be JSON after a schema."""
        config = self.body.lenient("output_config", dict[str, Any], {})
        wanted = config.get("format")
        return isinstance(wanted, dict) and wanted.get("type") == "json_schema"

    @property
    def opening(self) -> bytes:
        """Instructions, tools, and the messages up to the first turn of the user."""
        first = next((at for at, turn in enumerate(self._turns) if turn.role == "user"), 0)
        said = map(bytes, self._messages[: first + 1])
        return b"".join([self.body.raw("system"), self.body.raw("tools"), *said])

    @cached_property
    def exchanges(self) -> list[list[int]]:
        """What may be forgotten, oldest first: places of messages that belong together."""
        return exchanges(self._turns, self._question_at)

    @cached_property
    def bounded(self) -> bool:
        """Whether the prompt is made of the text of messages and system alone."""
        if not all(map(self.body.is_absent, ("tools", "chat_template_kwargs"))):
            return False
        contents = [turn.content for turn in self._turns]
        parts = [part for content in contents if isinstance(content, list) for part in content]
        return all(text_of_part(part) is not None for part in parts)

    def answer_tokens(self, default: int) -> int:
        """How long the answer may get, in tokens: what the client said."""
        most: int = self.body.lenient("max_tokens", int, default)
        return max(1, most)

    def messages(self, prompt: str | None = None, forgotten: int = 0) -> list[msgspec.Raw]:
        """The system prompt, if any, and the messages with `prompt` where the question stands."""
        return [*self._system, *self._kept(prompt, forgotten)]

    def augment(self, prompt: str | None, forgotten: int = 0) -> None:
        """Send `prompt` instead of the question, and not the oldest exchanges."""
        self._prompt, self._forgotten = prompt, forgotten

    def tokenization(self, model: str, messages: Sequence[msgspec.Raw]) -> bytes:
        """The body that asks vLLM's /tokenize how long the prompt of `messages` is."""
        said = messages[len(self._system) :]
        return tokenization(self.body, model, self._system, said)

    def encode(self, model: str, defaults: dict[str, float]) -> bytes:
        """The body for vLLM, with the name that it knows the model by.

        `defaults` fill in what the client did not say where the prompt has documents in it; a
        request without them goes to vLLM as it came.
        """
        fields: dict[str, Any] = {**self.body.fields, **self.added, "model": model}
        if self._prompt is not None:
            fields = {**defaults, **fields}
        fields["messages"] = self._kept(self._prompt, self._forgotten)
        fields.pop("retrieval", None)
        return msgspec.json.encode(fields)

    def shape(self, grounding: Grounding | None) -> MessagesShape:
        """How its answer is written."""
        return MessagesShape(grounding)

    @property
    def _system(self) -> list[msgspec.Raw]:
        return [] if self.body.is_absent("system") else [self.body.fields["system"]]

    def _kept(self, prompt: str | None, forgotten: int) -> list[msgspec.Raw]:
        """The messages without the `forgotten` oldest exchanges; every other as it came."""
        kept = self.remembered(self._messages, forgotten)
        if prompt is not None:
            place = self._question_at - len(self._messages) + len(kept)
            kept[place] = with_text(kept[place], self._turns[self._question_at].content, prompt)
        return kept


class TokenCountRequest(MessagesRequest):
    """A request that asks how long its prompt would be; with retrieval, documents included."""

    path = "/messages/count_tokens"
    answer_fields = ()

    def __init__(self, content: bytes, asked: Asked = Asked()) -> None:  # noqa: B008  # immutable
        """Raises InvalidRequest when `content` is no JSON object with model and messages."""
        super().__init__(content, asked)
        self.stream = False

    def _check_length(self) -> None:
        """A prompt has one whatever the answer's."""

    def shape(self, grounding: Grounding | None) -> MessagesShape:
        """How its answer is written."""
        return TokenCountShape(grounding)


def _turn(message: msgspec.Raw, place: int) -> MessageTurn:
    try:
        return msgspec.json.decode(message, type=MessageTurn)
    except UNREADABLE as exc:
        param = f"messages[{place}]"
        raise InvalidRequest(f"Invalid value for {param!r}: {exc}", param) from exc


def _asks(turn: MessageTurn) -> bool:
    return turn.role == "user" and not is_result_alone(turn)
