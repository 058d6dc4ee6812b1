"""The least that a relay in Python can do, and so the measure of what the gateway adds.

A bare ASGI application on uvicorn: reads a request, sends it on over a connection kept open, hands
back what comes. It knows no API, looks at nothing and promises nothing.
"""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

from stack.bench.connection import Connection, post

_HOST = "127.0.0.1"
_KEPT = (b"content-type", b"content-length")


class Relay:
    """Hands everything on to one server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Connection] = []

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """The ASGI application."""
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        connection = self._idle.pop() if self._idle else None
        connection = connection or await Connection.open(_HOST, self._port)
        came: asyncio.Queue[tuple[bytes, bool]] = asyncio.Queue()
        connection.send(
            post(scope["path"], body), lambda piece, ended: came.put_nowait((piece, ended))
        )
        piece, ended = await came.get()
        headers = [header for header in connection.headers if header[0] in _KEPT]
        await send({"type": "http.response.start", "status": connection.status, "headers": headers})
        await send({"type": "http.response.body", "body": piece, "more_body": not ended})
        while not ended:
            piece, ended = await came.get()
            await send({"type": "http.response.body", "body": piece, "more_body": not ended})
        self._idle.append(connection)


def main() -> int:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(prog="stack.bench.raw_relay", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", type=int, required=True, help="its port")
    given = parser.parse_args()
    relay = Relay(given.upstream)
    uvicorn.run(relay, host=_HOST, port=given.port, log_level="warning", lifespan="off")
    return 0


if __name__ == "__main__":
    sys.exit(main())
