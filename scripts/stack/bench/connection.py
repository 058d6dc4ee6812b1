"""One HTTP/1.1 connection of a client, kept open: as little as there can be between two sockets."""

import asyncio
from collections.abc import Callable
from typing import cast

import httptools


class Connection(asyncio.Protocol):
    """Sends one request at a time; what comes back is told to whoever sent it."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] = []
        self._ended = False
        self._transport: asyncio.WriteTransport | None = None
        self._told: Callable[[bytes, bool], None] = lambda *_: None
        self._parser = httptools.HttpResponseParser(self)

    @classmethod
    async def open(cls, host: str, port: int) -> "Connection":
        """A connection to that server. Raises OSError."""
        _, connection = await asyncio.get_running_loop().create_connection(cls, host, port)
        return connection

    def send(self, request: bytes, told: Callable[[bytes, bool], None]) -> None:
        """Send `request`, head and body.

        `told` gets what came of the body, and whether that was the end: b"" and True for a
        connection that was lost before it, with `status` 0.
        """
        self.status, self.headers, self._pieces, self._ended = 0, [], [], False
        self._told = told
        self._parser = httptools.HttpResponseParser(self)
        if self._transport is None or self._transport.is_closing():
            told(b"", True)
        else:
            self._transport.write(request)

    async def ask(self, request: bytes, patience_s: float) -> bytes:
        """Send `request` and read the whole body. Raises TimeoutError."""
        pieces: list[bytes] = []
        ended = asyncio.get_running_loop().create_future()

        def came(piece: bytes, is_end: bool) -> None:
            pieces.append(piece)
            if is_end and not ended.done():
                ended.set_result(None)

        self.send(request, came)
        async with asyncio.timeout(patience_s):
            await ended
        return b"".join(pieces)

    def close(self) -> None:
        """Close it; nothing is told any more."""
        self._told = lambda *_: None
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio's protocol."""
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        """Part of asyncio's protocol."""
        self._parser.feed_data(data)
        pieces, self._pieces = self._pieces, []
        if pieces or self._ended:
            self._told(b"".join(pieces), self._ended)

    def connection_lost(self, _: Exception | None) -> None:
        """Part of asyncio's protocol."""
        if not self._ended:
            self.status = 0
            self._told(b"", True)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Part of httptools' protocol."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Part of httptools' protocol."""
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """Part of httptools' protocol."""
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        """Part of httptools' protocol."""
        self._ended = True


def post(path: str, body: bytes, host: str = "127.0.0.1") -> bytes:
    """The bytes of a POST request with a body that is JSON."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
