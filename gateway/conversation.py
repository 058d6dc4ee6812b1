"""The body of a chat request. Reads what retrieval needs; everything else stays as it came."""

from typing import Annotated, Any

import msgspec

from gateway.errors import InvalidRequest

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for a wrong value; the last one for a very deep one."""


class RetrievalOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The request's own `retrieval` field; what it leaves out is as configured."""

    enabled: bool | None = None
    max_num_results: Annotated[int, msgspec.Meta(ge=1, le=50)] | None = None


class _Turn(msgspec.Struct):
    role: str
    content: Any = None


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

    @property
    def question(self) -> str:
        """The text of the last user turn; empty where there is none."""
        match self._turn.content if self._turn else None:
            case str(text):
                return text.strip()
            case list(parts):
                return "\n".join(filter(None, map(_text_of, parts))).strip()
        return ""

    def augment(self, prompt: str) -> None:
        """Put `prompt` where the question stands; images and other parts beside it stay."""
        content: Any = prompt
        if self._turn is not None and isinstance(self._turn.content, list):
            others = [part for part in self._turn.content if _text_of(part) is None]
            content = [{"type": "text", "text": prompt}, *others]
        message = msgspec.json.decode(self._messages[self._question_at])
        self._messages[self._question_at] = msgspec.Raw(
            msgspec.json.encode({**message, "content": content})
        )

    def encode(self, model: str, defaults: dict[str, float]) -> bytes:
        """The body for vLLM, with the name that it knows the model by.

        `defaults` fill in what the client did not say.
        """
        fields: dict[str, Any] = {
            **defaults,
            **self._fields,
            "model": model,
            "messages": self._messages,
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
            raise InvalidRequest(f"Invalid value for {name!r}: {exc}", name) from exc

    def _retrieval_options(self) -> RetrievalOptions:
        options = self._field("retrieval", bool | RetrievalOptions | None)
        if isinstance(options, RetrievalOptions):
            return options
        return RetrievalOptions(enabled=options)

    def _last_user_turn(self) -> tuple[int, _Turn | None]:
        for place in range(len(self._messages) - 1, -1, -1):
            try:
                turn = msgspec.json.decode(self._messages[place], type=_Turn)
            except _UNREADABLE as exc:
                param = f"messages[{place}]"
                raise InvalidRequest(f"Invalid value for {param!r}: {exc}", param) from exc
            if turn.role == "user":
                return place, turn
        return -1, None


def _text_of(part: Any) -> str | None:
    """The text of a content part; None for an image and whatever else is no text."""
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    return None
