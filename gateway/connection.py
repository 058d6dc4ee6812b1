"""One HTTP/1.1 connection to a server, kept open from request to request. Knows HTTP, not pools.

Parsed by httptools, as uvicorn does on the other side; nothing else stands between the socket and
who reads.
"""

import asyncio
from collections import deque
from typing import cast

import httptools
import httpx2

MOST_BUFFERED = 256 * 1024
"""Bytes of an answer that wait for a slow reader before the server has to wait for it too."""
MOST_BEFORE_BODY = 1024 * 1024
"""Bytes of a status line and headers; 1xx answers before them count as well."""
_UNTIL_CLOSED = {b"content-length", b"transfer-encoding"}
"""An answer with none of these headers ends where the connection does (RFC 9112, section 6.3)."""


class NotHTTP(httpx2.RemoteProtocolError):
    """What the server says is no HTTP, or more of it than anybody reads."""


class Unheard(httpx2.RemoteProtocolError):
    """A connection that had been kept was closed before anything of an answer came on it.

    The server may have closed it as idle in the moment that the request was sent.
    """


class Connection(asyncio.Protocol):
    """Sends a request and reads its answer, one at a time. Errors are httpx2's."""

    def __init__(self, silence_s: float, stall_s: float) -> None:
        """The longest silences of the server while it is waited for.

        `stall_s` counts once something of the body came, `silence_s` before.
        """
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.idle_since = 0.0
        """On the loop's clock, in seconds."""
        self._silence_s = silence_s
        self._stall_s = stall_s
        self._look_s = min(silence_s, stall_s)
        self._asked = 0
        self._bytes_before_body = 0
        self._has_body = False
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[bytes] = deque()
        self._buffered = 0
        self._is_paused = False
        self._has_head = self._is_complete = False
        self._failure: httpx2.TransportError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._heard_at = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)

    @property
    def is_reusable(self) -> bool:
        """Whether the answer was read to its end, and the server takes another request."""
        return self._is_complete and not self._pieces and self._failure is None

    @property
    def has_piece(self) -> bool:
        """Whether something of the body waits to be read."""
        return bool(self._pieces)

    async def send(self, request: bytes) -> None:
        """Send `request`, head and body, and wait for the head of its answer.

        Raises httpx2.TransportError.
        """
        self.status, self.headers = 0, []
        self._has_head = self._has_body = self._is_complete = False
        self._asked += 1
        self._bytes_before_body = 0
        if self._failure is None and self._transport is not None:
            self._transport.write(request)
        self._heard_at = self._loop.time()
        while not self._has_head and self._failure is None:
            await self._heard()
        if not self._has_head and self._failure is not None:
            raise self._failure

    async def piece(self) -> bytes:
        """What came of the body since the last time; empty at its end.

        Raises httpx2.TransportError where it breaks off.
        """
        while not self._pieces and not self._is_complete and self._failure is None:
            await self._heard()
        if self._pieces:
            whole = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces.clear()
            self._buffered = 0
            if self._is_paused and self._transport is not None:
                self._is_paused = False
                self._transport.resume_reading()
            return whole
        if not self._is_complete and self._failure is not None:
            raise self._failure
        return b""

    def abort(self) -> None:
        """Close it at once."""
        self._fail(httpx2.ReadError("the connection was closed here"))
        if self._transport is not None:
            self._transport.abort()

    async def _heard(self) -> None:
        """Until something came."""
        self._waiter = self._loop.create_future()
        if self._alarm is None:
            self._alarm = self._loop.call_later(self._look_s, self._look)
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _look(self) -> None:
        """Whether the server has been silent for too long: one timer for all that it sends."""
        self._alarm = None
        if self._waiter is None:
            return
        allowed_s = self._stall_s if self._has_body else self._silence_s
        left_s = self._heard_at + allowed_s - self._loop.time()
        if left_s <= 0:
            self._fail(httpx2.ReadTimeout(f"nothing came for {allowed_s:g} s"))
            self.abort()
        else:
            # A body may begin meanwhile, and then less is allowed.
            self._alarm = self._loop.call_later(min(left_s, self._look_s), self._look)

    def _fail(self, failure: httpx2.TransportError) -> None:
        self._failure = self._failure or failure
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _count(self, data: bytes) -> None:
        self._bytes_before_body += len(data)
        if self._bytes_before_body > MOST_BEFORE_BODY:
            raise NotHTTP(f"no head of an answer within {MOST_BEFORE_BODY} bytes")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio's protocol."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Part of asyncio's protocol."""
        self._heard_at = self._loop.time()
        try:
            if not self._has_head:
                self._count(data)
            self._parser.feed_data(data)
        except (httptools.HttpParserError, NotHTTP) as exc:
            self._fail(NotHTTP(str(exc)))
            self.abort()
            return
        if self._buffered > MOST_BUFFERED and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio's protocol."""
        if self._alarm is not None:
            self._alarm.cancel()
        if self._has_head and _UNTIL_CLOSED.isdisjoint(name for name, _ in self.headers):
            self._is_complete = True
        reason = f"the server closed the connection{f': {exc}' if exc else ''}"
        if not self._has_head:
            is_unheard = self._asked > 1 and not self._bytes_before_body
            self._fail((Unheard if is_unheard else httpx2.RemoteProtocolError)(reason))
        self._fail(httpx2.ReadError(reason))

    def on_message_begin(self) -> None:
        """Part of httptools' protocol."""
        if self._is_complete:
            raise NotHTTP("the server says more than it was asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Part of httptools' protocol."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Part of httptools' protocol."""
        self.status = self._parser.get_status_code()
        self._has_head = self.status >= 200

    def on_body(self, body: bytes) -> None:
        """Part of httptools' protocol."""
        self._has_body = True
        self._pieces.append(body)
        self._buffered += len(body)

    def on_message_complete(self) -> None:
        """Part of httptools' protocol."""
        if not self._has_head:  # 1xx, with the answer still to come
            self.headers = []
            return
        self._is_complete = True
        if not self._parser.should_keep_alive():
            self._fail(httpx2.ReadError("the server closed the connection"))
