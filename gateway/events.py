"""Server-sent events of vLLM, handed on as they come, each looked at. Knows SSE and OpenAI's end.

An answer that is cut off must not look like a whole one: each event is read as far as it takes to
see that it is one, that it reports no failure, and that every choice that began comes to its end.
"""

import logging
import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from gateway.body import UNREADABLE
from gateway.errors import UpstreamBroken, UpstreamFailure, UpstreamRejected
from gateway.verdicts import error_body

NO_SENSE = (*UNREADABLE, KeyError, TypeError, AttributeError)
"""What reading an answer raises when it is not what it should be."""
DATA = b"data:"
DONE = b"data: [DONE]"
MOST_OF_AN_EVENT = 16 * 1024 * 1024
"""Bytes of one event: the last one of a response has all of it in it."""
_DONE = b"[DONE]"
_FIELDS = (b":", b"event:", b"id:", b"retry:")
_CUT_OFF = ("abort", "error")
"""Reasons to finish that vLLM gives to what it did not finish."""
_NEWLINE = ord("\n")  # that a number is in bytes is found four times as fast as that bytes are
_END = b"\n\n"
_END_OF_EVENT = re.compile(rb"\r?\n\r?\n")
_LONGEST_END = 4

_log = logging.getLogger(__name__)


class Choice(msgspec.Struct, gc=False):
    """One of the answers that a chat or a completion has."""

    index: int = 0
    finish_reason: str | None = None


class Said(msgspec.Struct, gc=False):
    """A chat or a completion, whole or a chunk of it, as far as everybody wants to know it."""

    choices: Sequence[Choice] = []
    error: Any = None


SaidT = TypeVar("SaidT", bound=Said)
_SAID = msgspec.json.Decoder(Said)


class Editor(Protocol):
    """Looks at each event of a stream."""

    is_complete: bool
    """Whether the answer has come to its end."""

    def edit(self, event: bytes) -> bytes:
        """The event as clients get it, without the empty line behind it.

        Raises UpstreamFailure for one that reports a failure or makes no sense.
        """


async def relayed(
    chunks: AsyncIterator[bytes], editor: Editor, failed: Callable[[Exception], bytes]
) -> AsyncIterator[bytes]:
    """The events of a stream as bytes; one that breaks off ends with what `failed` makes of it.

    The SDK raises nothing when a stream just stops, so a client could take half an answer for a
    whole one.
    """
    blocks = Blocks()
    try:
        async for chunk in chunks:
            block = blocks.whole(chunk)
            if not block:
                continue
            edited, failure = _edited(_events(block), editor)
            if edited:
                yield _END.join(edited) + _END
            if failure is not None:
                raise failure
        if not editor.is_complete:
            raise cut_off()
    except UpstreamFailure as exc:
        if not editor.is_complete:
            _log.warning("a stream ended with an error: %s", exc)
            yield failed(exc)


class Blocks:
    """Puts the pieces of a stream together to whole events."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        """The beginning of an event."""

    def whole(self, piece: bytes) -> bytes:
        """The events that are whole with `piece`; empty where none is.

        Raises UpstreamBroken where an event does not end.
        """
        if not self._waiting and piece.endswith(_END):
            return piece
        start = max(0, len(self._waiting) - _LONGEST_END)
        self._waiting += piece
        end = max(
            (found.end() for found in _END_OF_EVENT.finditer(self._waiting, start)), default=0
        )
        whole = bytes(self._waiting[:end])
        del self._waiting[:end]
        if len(self._waiting) > MOST_OF_AN_EVENT:
            raise UpstreamBroken(
                f"the model server sent an event that is longer than {MOST_OF_AN_EVENT} bytes"
            )
        return whole


class Reader(Generic[SaidT]):
    """Reads a stream of OpenAI's chats or completions, and notices how it ends."""

    def __init__(self, decoder: msgspec.json.Decoder[SaidT]) -> None:
        self.is_complete = False
        self._decoder = decoder
        self._finished: dict[int, bool] = {}
        """Whether a choice has come to its end, by its number."""

    def read(self, event: bytes) -> SaidT | None:
        """What an event says; None for comments, and for what OpenAI ends its streams with.

        Raises UpstreamFailure for one that reports a failure, makes no sense or comes too early.
        """
        if not (data := data_of(event)):
            return None
        try:
            said = self._decoder.decode(data)
        except NO_SENSE as exc:
            if data.strip() == _DONE:
                self._conclude()
                return None
            raise no_sense(exc) from exc
        if said.error is not None:
            raise told_failure(said.error)
        for choice in said.choices:
            if choice.finish_reason is not None:
                _check_reason(choice)
                self._finished[choice.index] = True
            elif choice.index not in self._finished:
                self._finished[choice.index] = False
        return said

    def _conclude(self) -> None:
        if not self._finished or not all(self._finished.values()):
            raise cut_off()
        self.is_complete = True


class Watcher(Reader[Said]):
    """Changes nothing in a stream of OpenAI's."""

    def __init__(self) -> None:
        super().__init__(_SAID)

    def edit(self, event: bytes) -> bytes:
        """The event as it came. Raises what `read` does."""
        self.read(event)
        return event


def check_whole(body: bytes) -> None:
    """Whether `body` is a chat or a completion that has come to its end.

    Raises UpstreamFailure where it is not: it is nothing of the kind, or reports a failure.
    """
    try:
        _check_text(body)
        said = _SAID.decode(body)
    except NO_SENSE as exc:
        raise UpstreamBroken(f"the model server's answer makes no sense: {exc}") from exc
    if said.error is not None:
        raise told_failure(said.error)
    if not said.choices or any(choice.finish_reason is None for choice in said.choices):
        raise cut_off()
    for choice in said.choices:
        _check_reason(choice)


def error_event(failure: Exception) -> bytes:
    """`failure` as an event of a stream whose status is out already; the SDK raises it."""
    return b"data: " + msgspec.json.encode({"error": error_body(failure)}) + b"\n\n"


def data_of(event: bytes) -> bytes:
    """What an event says; empty for a comment. Raises UpstreamBroken for what is no event."""
    if event.startswith(DATA) and _NEWLINE not in event:
        data = event[len(DATA) :]
    else:
        lines = []
        for line in event.splitlines():
            if line.startswith(DATA):
                lines.append(line[len(DATA) :])
            elif line and not line.startswith(_FIELDS):
                raise UpstreamBroken("the model server sent something that is no event")
        data = b"\n".join(lines)
    try:
        _check_text(data)
    except UnicodeDecodeError as exc:
        raise no_sense(exc) from exc
    return data


def told_failure(error: Any) -> UpstreamFailure:
    """The failure that a server reports with a status of 200; `error` is what it calls so."""
    if isinstance(error, str):
        return UpstreamRejected(error, 500)
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return UpstreamBroken("the model server reports a failure that makes no sense")
    code = error.get("code")
    return UpstreamRejected(error["message"], code if isinstance(code, int) else 500)


def no_sense(exc: Exception) -> UpstreamBroken:
    """The failure of an event that cannot be read."""
    return UpstreamBroken(f"the model server sent an event that makes no sense: {exc}")


def cut_off() -> UpstreamBroken:
    """The failure of an answer that just ends."""
    return UpstreamBroken("the model server's answer ended before it was complete")


def _check_reason(choice: Choice) -> None:
    if choice.finish_reason in _CUT_OFF:
        raise UpstreamBroken(f"the model server gave the answer up ({choice.finish_reason})")


def _check_text(data: bytes) -> None:
    """Raises UnicodeDecodeError; what is skipped in decoding is not looked at otherwise."""
    if not data.isascii():
        data.decode()


def _events(block: bytes) -> list[bytes]:
    """The events of a block of whole ones."""
    return (_END_OF_EVENT.split(block) if b"\r" in block else block.split(_END))[:-1]


def _edited(events: Sequence[bytes], editor: Editor) -> tuple[list[bytes], UpstreamFailure | None]:
    """The events as clients get them, up to the one that fails, and that one's failure."""
    edited: list[bytes] = []
    for event in events:
        try:
            if said := editor.edit(event):
                edited.append(said)
        except UpstreamFailure as exc:
            return edited, exc
    return edited, None
