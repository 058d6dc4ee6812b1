"""A server that answers as vLLM does, and goes wrong as it is told, down to the bytes."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from tests.integration.fake_vllm import MODEL, WHOLE, events

EVENTS = "text/event-stream; charset=utf-8"
JSON = "application/json"


class Call:
    """One request, and the connection on which it is answered."""

    def __init__(
        self, path: str, said: dict[str, Any], reader: asyncio.StreamReader, server: "FaultyVLLM"
    ) -> None:
        self.path = path
        self.said = said
        self.server = server
        self._reader = reader

    @property
    def is_stream(self) -> bool:
        return bool(self.said.get("stream"))

    @property
    def kind(self) -> str:
        return EVENTS if self.is_stream else JSON

    @property
    def pieces(self) -> list[bytes]:
        """The right answer: events, or a body in two halves."""
        if self.is_stream:
            return [*events(self.path, self.said)]
        body = json.dumps(WHOLE[self.path](self.said)).encode()
        return [body[: len(body) // 2], body[len(body) // 2 :]]

    async def until_left(self) -> None:
        """Say nothing until the gateway closes the connection."""
        with suppress(ConnectionError):
            await self._reader.read()


class Fault(NamedTuple):
    """What goes wrong: bytes that are sent as they are, and how the connection ends."""

    said: Callable[[Call], list[bytes]]
    ending: str = "close"
    """`close`, `reset`, `half-close` (and keep listening), `hang`, or `keep` for the next one."""


class FaultyVLLM:
    """Serves a model; each other request is answered as `fault` says."""

    def __init__(self) -> None:
        self.fault: Fault | None = None
        """None answers as it should be."""
        self.model = MODEL
        self.lists_models = True
        self.asked: list[str] = []
        """Paths that were posted to, /tokenize left out."""
        self.busy = 0
        """Requests whose connections are still open."""
        self.url = ""
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[Any]] = set()

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.url = f"http://127.0.0.1:{self.port}/v1"

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """As a kill does: nobody listens any more, and every connection is closed."""
        assert self._server is not None
        self._server.close()
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether another may follow."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path, _ = head.split(" ", 2)
        length = next(
            (
                int(line.split(":")[1])
                for line in head.lower().split("\r\n")
                if "content-le" in line
            ),
            0,
        )
        content = await reader.readexactly(length)
        if method == "GET":
            await self._list(reader, writer)
            return True
        said = json.loads(content) if content else {}
        call = Call(path, said, reader, self)
        if path == "/tokenize":
            writer.write(whole(200, b'{"count":9,"max_model_len":4096,"tokens":[]}'))
            return True
        self.asked.append(path)
        self.busy += 1
        try:
            fault = self.fault or RIGHT
            for piece in fault.said(call):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)  # each goes out by itself
            return await self._end(fault.ending, call, writer)
        finally:
            self.busy -= 1

    async def _list(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.lists_models:
            await reader.read()
        entry = {"id": self.model, "object": "model", "created": 1, "max_model_len": 4096}
        writer.write(whole(200, json.dumps({"object": "list", "data": [entry]}).encode()))

    async def _end(self, ending: str, call: Call, writer: asyncio.StreamWriter) -> bool:
        if ending == "hang":
            await call.until_left()
        elif ending == "half-close":
            writer.write_eof()
            await call.until_left()
        elif ending == "reset":
            raw: socket.socket = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        return ending == "keep"


def head(status: int = 200, kind: str = JSON, *more: str) -> bytes:
    """A status line and headers."""
    lines = [f"HTTP/1.1 {status} Said", f"content-type: {kind}", *more, "", ""]
    return "\r\n".join(lines).encode()


def whole(status: int, body: bytes, kind: str = JSON, *more: str) -> bytes:
    """An answer of which everything is right, as far as HTTP goes."""
    return head(status, kind, f"content-length: {len(body)}", *more) + body


def chunked(*pieces: bytes, ends: bool = True) -> list[bytes]:
    """`pieces` as chunks; with `ends` the last one is behind them."""
    return [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces] + [b"0\r\n\r\n"] * ends


def streamed(*pieces: bytes, kind: str = EVENTS, ends: bool = True) -> list[bytes]:
    """A head, and `pieces` behind it in chunks."""
    return [head(200, kind, "transfer-encoding: chunked"), *chunked(*pieces, ends=ends)]


def answers(call: Call) -> list[bytes]:
    """What vLLM would say."""
    return streamed(*call.pieces, kind=call.kind)


RIGHT = Fault(answers, "keep")


@asynccontextmanager
async def faulty_vllm() -> AsyncIterator[FaultyVLLM]:
    """A running one; it ends with the context."""
    server = FaultyVLLM()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
