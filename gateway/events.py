"""Server-sent events of vLLM, handed on as they come. Knows SSE, not what the events say."""

import logging
import re
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import msgspec

from gateway.errors import UpstreamBroken, UpstreamFailure, UpstreamRejected
from gateway.verdicts import error_body

NO_SENSE = (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError)
"""What reading an answer raises when it is not what it should be."""
DATA = b"data:"
DONE = b"data: [DONE]"
_ERROR = b'data: {"error"'
_END = b"\n\n"
_END_OF_EVENT = re.compile(rb"\r?\n\r?\n")

_log = logging.getLogger(__name__)


class Editor(Protocol):
    """Looks at each event of a stream."""

    def leaves(self, block: bytes) -> bool:
        """Whether these events, whole ones, are handed on as they are, all of them."""

    def edit(self, event: bytes) -> bytes:
        """The event as clients get it, without the empty line behind it.

        Raises UpstreamFailure for one that reports a failure or makes no sense.
        """

    def is_last(self, event: bytes) -> bool:
        """Whether the answer is complete with this event of vLLM's."""


async def relayed(
    chunks: AsyncIterator[bytes], editor: Editor, failed: Callable[[Exception], bytes]
) -> AsyncIterator[bytes]:
    """The events of a stream as bytes; one that breaks off ends with what `failed` makes of it.

    The SDK raises nothing when a stream just stops, so a client could take half an answer for a
    whole one.
    """
    waiting = b""
    complete = False
    try:
        async for chunk in chunks:
            block, waiting = _whole_events(waiting + chunk)
            if not block:
                continue
            if editor.leaves(block):
                complete = complete or any(map(editor.is_last, reversed(block.split(_END))))
                yield block
                continue
            events = _END_OF_EVENT.split(block)[:-1]
            complete = complete or any(map(editor.is_last, events))
            edited, failure = _edited(events, editor)
            if edited:
                yield _END.join(edited) + _END
            if failure is not None:
                raise failure
        if not complete:
            raise UpstreamBroken("the model server's answer ended before it was complete")
    except UpstreamFailure as exc:
        _log.warning("a stream ended with an error: %s", exc)
        yield failed(exc)


class Watcher:
    """Changes nothing in a stream of OpenAI's, and notices how it ends."""

    def leaves(self, block: bytes) -> bool:
        """Whether no failure is reported in `block`."""
        return block.endswith(_END) and _ERROR not in block

    def edit(self, event: bytes) -> bytes:
        """The event as it came. Raises UpstreamFailure for one that reports a failure."""
        if event.startswith(_ERROR):
            raise reported(event)
        return event

    def is_last(self, event: bytes) -> bool:
        """Whether it is what OpenAI ends its streams with."""
        return event == DONE


def error_event(failure: Exception) -> bytes:
    """`failure` as an event of a stream whose status is out already; the SDK raises it."""
    return b"data: " + msgspec.json.encode({"error": error_body(failure)}) + b"\n\n"


def reported(event: bytes) -> UpstreamFailure:
    """The failure that vLLM reports in the middle of a stream, after a status of 200.

    `event` is its `data:` line.
    """
    try:
        error = msgspec.json.decode(event[len(DATA) :])["error"]
        code = error.get("code")
        return UpstreamRejected(str(error["message"]), code if isinstance(code, int) else 500)
    except NO_SENSE as exc:
        return no_sense(exc)


def no_sense(exc: Exception) -> UpstreamBroken:
    """The failure of an event that cannot be read."""
    return UpstreamBroken(f"the model server sent an event that makes no sense: {exc}")


def _whole_events(said: bytes) -> tuple[bytes, bytes]:
    """What of `said` is whole events, and what is the beginning of one."""
    if said.endswith(_END):
        return said, b""
    end = max((found.end() for found in _END_OF_EVENT.finditer(said)), default=0)
    return said[:end], said[end:]


def _edited(events: list[bytes], editor: Editor) -> tuple[list[bytes], UpstreamFailure | None]:
    """The events as clients get them, up to the one that fails, and that one's failure."""
    edited: list[bytes] = []
    for event in events:
        try:
            edited.append(editor.edit(event))
        except UpstreamFailure as exc:
            return edited, exc
    return edited, None
