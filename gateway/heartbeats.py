"""Keeps a stream of events from being silent for long. Knows no events, only when nothing is said.

Proxies and clients give a connection up on which nothing comes.
"""

import asyncio

from litestar.types import Send

COMMENT = b": keep-alive\n\n"
"""What clients skip (WHATWG HTML, section 9.2.6)."""


class Heartbeat:
    """Sends the pieces of one stream, whole events each, and a comment where none comes."""

    def __init__(self, send: Send, interval_s: float) -> None:
        self._send = send
        self._interval_s = interval_s
        self._loop = asyncio.get_running_loop()
        self._said_at = self._loop.time()
        self._is_sending = False
        self._comment: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(interval_s, self._look)

    async def send(self, piece: bytes) -> None:
        """Send `piece`."""
        self._is_sending = True
        await self._said(piece)
        self._is_sending = False
        self._said_at = self._loop.time()

    def stop(self) -> None:
        """Say nothing more."""
        self._timer.cancel()
        if self._comment is not None:
            self._comment.cancel()

    def _look(self) -> None:
        """Whether nothing was said for too long: one timer for the whole stream."""
        now = self._loop.time()
        if self._is_sending or (self._comment is not None and not self._comment.done()):
            self._said_at = now  # it is the client that does not read
        elif now - self._said_at >= self._interval_s:
            self._said_at = now
            self._comment = self._loop.create_task(self._said(COMMENT))
        self._timer = self._loop.call_at(self._said_at + self._interval_s, self._look)

    async def _said(self, piece: bytes) -> None:
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})
