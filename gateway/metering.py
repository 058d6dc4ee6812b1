"""What an answer of vLLM's really used, read where it passes by. Used only where tokens count.

Of a stream vLLM tells it in a chunk of its own, where it is asked for it. A client that did not
ask gets the stream as if nobody had.
"""

import math
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec

from gateway.access.limits import BYTES_A_TOKEN, Admission, admission
from gateway.budget import likely_tokens as careful_tokens
from gateway.conversation import MIN_TOKENS, Conversation
from gateway.events import DATA, NO_SENSE, Blocks

_END = b"\n\n"
_USAGE = b'"usage"'
_FINISHED = b'"finish_reason":"'


class _Tokens(msgspec.Struct, gc=False):
    """By the names of all dialects; Anthropic's tells no total."""

    total_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None

    @property
    def used(self) -> int:
        read = (self.cache_read_input_tokens or 0) + (self.cache_creation_input_tokens or 0)
        return self.total_tokens or self.input_tokens + self.output_tokens + read


class _Told(msgspec.Struct, gc=False):
    usage: _Tokens | None = None


class _Said(msgspec.Struct, gc=False):
    """An answer, or an event of a stream."""

    usage: _Tokens | None = None
    response: _Told | None = None
    choices: list[msgspec.Raw] | None = None
    system_fingerprint: Annotated[str, msgspec.Meta(max_length=256)] | None = None

    @property
    def used(self) -> int:
        """Tokens that it tells of; 0 where it tells nothing.

        What a message tells at its beginning is of its prompt alone, and is not looked at.
        """
        tokens = self.usage or (self.response and self.response.usage)
        return tokens.used if tokens else 0


_SAID = msgspec.json.Decoder(_Said)


class Meter:
    """Tells a request's admission what the answer used."""

    def __init__(self, admission: Admission, *, hides_usage: bool) -> None:
        """`hides_usage`: the client did not ask for what the stream ends with."""
        self._admission = admission
        self._hides_usage = hides_usage
        self._held = b""
        """The last event, where it ends a choice: what is hidden may belong to it."""

    def nothing(self) -> None:
        """No model was asked."""
        self._admission.used(0)

    def whole(self, body: bytes) -> None:
        """Read it in a whole answer, if it is told there."""
        if said := _read(body):
            self._note(said)

    async def stream(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The stream as the client asked for it, in whole events. Raises what `chunks` does."""
        blocks, pieces = Blocks(), 0
        try:
            async for chunk in chunks:
                block = blocks.whole(chunk)
                pieces += block.count(DATA)
                if block and (_USAGE in block or self._holds(block)):
                    events = block.removesuffix(_END).split(_END)
                    block = b"".join(map(self._edited, events))
                if block:
                    yield block
            if held := self._released():
                yield held
        finally:
            self._admission.came(pieces)

    def _holds(self, block: bytes) -> bool:
        return self._hides_usage and (bool(self._held) or _FINISHED in block)

    def _edited(self, event: bytes) -> bytes:
        """What is to be said now that `event` has come."""
        said = _read(event[event.find(DATA) + len(DATA) :]) if _USAGE in event else None
        if said is not None:
            self._note(said)
            if self._hides_usage and said.usage is not None and said.choices == []:
                return self._released(said.system_fingerprint)
        told = self._released()
        if self._hides_usage and _FINISHED in event:
            self._held = event
            return told
        return told + event + _END

    def _released(self, fingerprint: str | None = None) -> bytes:
        """The event that was held back; the last one bears the server's fingerprint, if any."""
        event, self._held = self._held, b""
        if event and fingerprint is not None and event.endswith(b"}"):
            event = event[:-1] + b',"system_fingerprint":' + msgspec.json.encode(fingerprint) + b"}"
        return event + _END if event else b""

    def _note(self, said: _Said) -> None:
        if used := said.used:
            self._admission.used(used)


async def charged(conversation: Conversation, usual_answer: int) -> Meter | None:
    """Charge the caller about what `conversation` will use; what is to be told the real number.

    `usual_answer` is how long an answer is taken to be that nobody bounds. None where tokens do
    not count. Raises InvalidRequest for a longer answer than the caller may have, and RateLimited.
    """
    limited = admission()
    if limited is None or not conversation.answer_fields:
        return None
    if not limited.is_metered and limited.answer_tokens is None:
        return None
    asked = list(conversation.asked_tokens())
    if limited.answer_tokens is not None:
        for name, tokens in asked:
            limited.check_answer(name, tokens)
        usual_answer = min(usual_answer, limited.answer_tokens)
    if not limited.is_metered:
        return None
    longest = max(conversation.answer_tokens(usual_answer), dict(asked).get(MIN_TOKENS, 0))
    prompt = sum(map(likely_tokens, conversation.body.fields.values()))
    await limited.spend(prompt, conversation.answers * longest)
    return Meter(limited, hides_usage=conversation.ask_for_usage())


def bound_answer(conversation: Conversation, max_model_len: int | None) -> None:
    """Have vLLM keep to what the caller may have, where the client names no length."""
    limited = admission()
    if limited is not None and limited.answer_tokens is not None:
        # More than the model can hold is refused there.
        conversation.bound_answer(min(limited.answer_tokens, max_model_len or math.inf))


def likely_tokens(part: msgspec.Raw) -> int:
    """About how many tokens a part of a request has."""
    said = bytes(part)
    if b";base64," in said:
        return careful_tokens([part], b"")
    return len(said) // BYTES_A_TOKEN


def _read(content: bytes) -> _Said | None:
    try:
        return _SAID.decode(content)
    except NO_SENSE:
        return None
