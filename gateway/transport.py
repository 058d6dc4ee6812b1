"""Carries the openai client's requests to one server, over connections that are kept open.

The client's own transports do much that is not needed here. Over aiohttp, the fastest of them, the
gateway needs 1.6 times the CPU time for a plain answer or a stream, and 1.3 times for a stream
whose tokens come one by one.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2

from gateway.connection import Connection

KEPT_S = 4.0
"""How long an idle connection is kept: uvicorn, and so vLLM, closes it after five seconds."""


class Transport(httpx2.AsyncBaseTransport):
    """A pool of connections to the server that a URL names. Follows no proxy and no redirect."""

    def __init__(  # noqa: PLR0913  # what a connection has, by keyword
        self,
        url: str,
        *,
        connect_timeout_s: float,
        read_timeout_s: float,
        stall_timeout_s: float,
        socket: Path | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Where there is a Unix `socket`, that is what it connects to.

        `tls` says whom to trust and who we are where the URL is https; the system's authorities
        and nobody, if not set.

        `read_timeout_s` is the longest silence before the body of an answer, `stall_timeout_s`
        within it.
        """
        server = httpx2.URL(url)
        self._tls = (tls or ssl.create_default_context()) if server.scheme == "https" else None
        self._host = server.host
        self._port = server.port or (443 if self._tls else 80)
        self._socket = socket
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._idle: deque[Connection] = deque()
        """Those that were used last at the end."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The answer to `request`, its head read. Raises httpx2.TransportError."""
        connection = self._kept() or await self._connected()
        try:
            await connection.send(_bytes_of(request))
        except BaseException:
            connection.abort()
            raise
        return httpx2.Response(
            connection.status,
            headers=connection.headers,
            stream=Answer(connection, self),
        )

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next request, or close one whose answer was not read."""
        if connection.is_reusable:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.abort()
        self._drop_the_old()

    async def aclose(self) -> None:
        """Close every idle connection."""
        for connection in self._idle:
            connection.abort()
        self._idle.clear()

    def _kept(self) -> Connection | None:
        """The connection that was used last, so that those which are not needed grow old."""
        self._drop_the_old()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable:
                return connection
            connection.abort()
        return None

    def _drop_the_old(self) -> None:
        oldest = asyncio.get_running_loop().time() - KEPT_S
        while self._idle and self._idle[0].idle_since <= oldest:
            self._idle.popleft().abort()

    async def _connected(self) -> Connection:
        loop = asyncio.get_running_loop()

        def made() -> Connection:
            return Connection(self._read_timeout_s, self._stall_timeout_s)

        try:
            async with asyncio.timeout(self._connect_timeout_s):
                if self._socket is not None:
                    _, connection = await loop.create_unix_connection(made, str(self._socket))
                else:
                    _, connection = await loop.create_connection(
                        made, self._host, self._port, ssl=self._tls
                    )
        except TimeoutError as exc:
            raise httpx2.ConnectTimeout(
                f"no connection within {self._connect_timeout_s:.0f} s"
            ) from exc
        except OSError as exc:
            raise httpx2.ConnectError(str(exc)) from exc
        return connection


class Answer(httpx2.AsyncByteStream):
    """The body of an answer, as it comes."""

    def __init__(self, connection: Connection, transport: Transport) -> None:
        self._connection: Connection | None = connection
        self._transport = transport

    @property
    def has_begun(self) -> bool:
        """Whether some of it is there that was not read yet."""
        return self._connection is not None and self._connection.has_piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Pieces of any size. Raises httpx2.TransportError where it breaks off."""
        while self._connection is not None and (piece := await self._connection.piece()):
            yield piece

    async def aclose(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            self._transport.give_back(connection)


def _bytes_of(request: httpx2.Request) -> bytes:
    body = request.read()
    head = [b"%b %b HTTP/1.1\r\n" % (request.method.encode(), request.url.raw_path)]
    head += [b"%b: %b\r\n" % header for header in request.headers.raw]
    if "content-length" not in request.headers:
        head.append(b"content-length: %d\r\n" % len(body))
    return b"%b\r\n%b" % (b"".join(head), body)
