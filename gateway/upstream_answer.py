"""An answer of an upstream server that has begun: read whole, or handed on as it comes."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec

from gateway.errors import UpstreamBroken, UpstreamFailure
from gateway.events import NO_SENSE, told_failure
from gateway.transport import Answer

MOST_READ = 256 * 1024 * 1024
"""Bytes of a whole answer that are read: 2,048 embeddings of 4,096 numbers in JSON fit."""
_EVENTS = b"text/event-stream"


class Witness(Protocol):
    """Is told how an answer goes on."""

    def succeeded(self) -> None:
        """It came to its end."""

    def failed(self, failure: UpstreamFailure) -> None:
        """It broke off."""


class UpstreamAnswer:
    """A successful answer whose headers have arrived."""

    witness: Witness | None = None
    """Told how the answer ends."""

    def __init__(
        self,
        pieces: AsyncIterable[bytes],
        close: Callable[[], Awaitable[None]],
        content_type: bytes = _EVENTS,
    ) -> None:
        self._is_events = content_type.startswith(_EVENTS)
        self._has_begun = isinstance(pieces, Answer) and pieces.has_begun
        self._pieces = aiter(pieces)
        self._close = close
        self._first: asyncio.Task[bytes] | None = None

    async def begin(self, patience_s: float) -> bool:
        """Wait for the first piece of the body; False when it did not come within `patience_s`.

        Raises UpstreamBroken when the answer breaks off before it.
        """
        if self._has_begun:  # it came with the head
            return True
        self._first = asyncio.ensure_future(anext(self._pieces, b""))
        done, _ = await asyncio.wait({self._first}, timeout=patience_s)
        with _broken_off():
            if done:
                self._first.result()
        return bool(done)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes off the network. Raises UpstreamBroken when it breaks off."""
        try:
            with _broken_off():
                if self._first is not None and (first := await self._first):
                    yield first
                async for chunk in self._pieces:
                    yield chunk
        except UpstreamFailure as exc:
            if self.witness is not None:
                self.witness.failed(exc)
            raise
        if self.witness is not None:
            self.witness.succeeded()

    async def check_is_stream(self) -> None:
        """Raises UpstreamFailure where the server answers with something else than events.

        It may be the error that it did not give the right status to.
        """
        if self._is_events:
            return
        try:
            body: Any = msgspec.json.decode(await self.read())
        except NO_SENSE:
            body = None
        if isinstance(body, dict) and body.get("error") is not None:
            raise told_failure(body["error"])
        raise UpstreamBroken("the model server sent something else than a stream of events")

    async def read(self) -> bytes:
        """The whole body. Raises UpstreamBroken."""
        pieces, size = [], 0
        async for chunk in self.chunks():
            pieces.append(chunk)
            size += len(chunk)
            if size > MOST_READ:
                raise UpstreamBroken(f"the model server's answer is longer than {MOST_READ} bytes")
        return b"".join(pieces)

    async def close(self) -> None:
        """Give the connection back, or close it when the body was not read to its end."""
        if self._first is not None and not self._first.cancel() and not self._first.cancelled():
            self._first.exception()  # nobody asks for it any more
        await self._close()


@contextmanager
def _broken_off() -> Iterator[None]:
    try:
        yield
    except UpstreamFailure:
        raise
    except Exception as exc:  # whatever the transport under the client raises
        raise UpstreamBroken(
            f"the model server's answer broke off: {str(exc) or type(exc).__name__}"
        ) from exc
