"""A model server that falls silent where a test wants it to, and sees when it is hung up on.

It answers what the fake one does, and embeddings; real HTTP, in an event loop of its own.
"""

import asyncio
import base64
import json
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from tests.integration import fake_vllm

When = Literal["head", "body", "middle"]
"""Before the head of an answer, before its first byte, behind its first event."""
DIMENSION = 4
PIECE = b"data: " + b"x" * 65_000 + b"\n\n"


class Seen:
    """A request that came."""

    def __init__(self, path: str, body: bytes) -> None:
        self.path = path
        self.body = body
        self.was_left = threading.Event()
        """Set when the other side closed the connection before the answer was over."""


class StallingVllm:
    """What it does next, and what it has seen."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.stalls: dict[str, When] = {}
        """Where it falls silent, by path; one that ends with a slash stands for all below it."""
        self.pace_s = 0.0
        """Between two events of a stream."""
        self.flood_bytes = 0
        """Length of each stream, where it is to be a long one."""
        self.sent_bytes = 0
        """Of the last such stream."""
        self.seen: list[Seen] = []
        self.port = 0
        self._loop = loop
        self._waiting: set[asyncio.Future[bytes]] = set()

    @property
    def url(self) -> str:
        """Base URL, /v1 included."""
        return f"http://127.0.0.1:{self.port}/v1"

    def asked(self, path: str, marker: bytes = b"", within_s: float = 10.0) -> Seen:
        """The request for `path` with `marker` in it, as soon as it comes."""
        ends = time.monotonic() + within_s
        while True:
            for seen in self.seen:
                if seen.path == path and marker in seen.body:
                    return seen
            assert time.monotonic() < ends, f"{path} was not asked for"
            time.sleep(0.005)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while head := await _head(reader):
                method, path = head.split(b" ", 2)[:2]
                name = path.decode().partition("?")[0]
                body = await reader.readexactly(_length(head))
                await self._answer(method.decode(), name, body, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(
        self,
        method: str,
        path: str,
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        seen = Seen(path, body)
        self.seen.append(seen)
        stall = self._stall_at(path)
        if stall == "head":
            await self._wait(seen, reader)
        said = json.loads(body) if body else {}
        if path in fake_vllm.EVENTS and said.get("stream"):
            writer.write(_stream_head())
            await self._stream(seen, list(fake_vllm.events(path, said)), stall, reader, writer)
            return
        answer = json.dumps(_whole(method, path, said)).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            % len(answer)
        )
        if stall is not None:
            writer.write(answer[:1] if stall == "middle" else b"")
            await self._wait(seen, reader)
        writer.write(answer)
        await writer.drain()

    async def _stream(
        self,
        seen: Seen,
        events: list[bytes],
        stall: When | None,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        if stall == "body":
            await self._wait(seen, reader)
        for number, event in enumerate(events):
            if number and self.pace_s:
                await asyncio.sleep(self.pace_s)
            writer.write(_chunk(event))
            await writer.drain()
            if not number and stall == "middle":
                await self._wait(seen, reader)
            if not number and self.flood_bytes:
                await self._flood(writer)
        writer.write(_chunk(b""))
        await writer.drain()

    async def _flood(self, writer: asyncio.StreamWriter) -> None:
        self.sent_bytes = 0
        while self.sent_bytes < self.flood_bytes:
            writer.write(_chunk(PIECE))
            await writer.drain()
            self.sent_bytes += len(PIECE)

    def hang_up(self) -> None:
        """Close the connections of all that are kept waiting."""
        for task in list(self._waiting):
            self._loop.call_soon_threadsafe(task.cancel)

    def _stall_at(self, path: str) -> When | None:
        for name, when in self.stalls.items():
            if path == name or (name.endswith("/") and path.startswith(name)):
                return when
        return None

    async def _wait(self, seen: Seen, reader: asyncio.StreamReader) -> None:
        """Say nothing until the other side hangs up."""
        reading = asyncio.ensure_future(reader.read(1))
        self._waiting.add(reading)
        try:
            await asyncio.wait({reading})
        finally:
            self._waiting.discard(reading)
        seen.was_left.set()
        raise ConnectionAbortedError


def _whole(method: str, path: str, said: dict[str, Any]) -> dict[str, Any]:
    if path == "/v1/models":
        entry = {"id": fake_vllm.MODEL, "object": "model", "created": 1, "max_model_len": 4096}
        return {"object": "list", "data": [entry]}
    if path == "/v1/embeddings":
        texts = [said["input"]] if isinstance(said["input"], str) else said["input"]
        vector = base64.b64encode(struct.pack(f"<{DIMENSION}f", *[0.5] * DIMENSION)).decode()
        rows = [{"index": at, "embedding": vector} for at, _ in enumerate(texts)]
        return {"model": said["model"], "data": rows, "usage": {"prompt_tokens": 1}}
    if path.startswith("/v1/responses/"):
        return fake_vllm.WHOLE["/v1/responses"](said) | {"background": method == "GET"}
    return fake_vllm.WHOLE[path](said)


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


def _length(head: bytes) -> int:
    for line in head.lower().splitlines():
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def _stream_head() -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


@contextmanager
def serving() -> Iterator[StallingVllm]:
    """A running one; it ends with the context, and so does all that it does."""
    loop = asyncio.new_event_loop()
    vllm = StallingVllm(loop)
    server = loop.run_until_complete(asyncio.start_server(vllm.serve, "127.0.0.1", 0))
    vllm.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield vllm
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.05))
        loop.close()
