"""Heads of requests over a real socket: how long they may be, and what is no HTTP at all."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from gateway.request_heads import HeadProtocol

pytestmark = pytest.mark.anyio

MOST = 2000


class Limited(HeadProtocol):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(MOST, *args, **kwargs)


async def app(_: Any, receive: Any, send: Any) -> None:
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % len(body)})


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    config = uvicorn.Config(app, http=Limited, ws="none", lifespan="off", log_config=None)
    config.load()
    state = uvicorn.Server(config).server_state
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Limited(config, state, {}), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        server.close()


def head(length: int, body: int = 0, path: str = "/") -> bytes:
    """A request whose URL and headers have `length` bytes in all, as they are counted."""
    said = f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {body}\r\nx-a: "
    counted = len(f"{path}hostacontent-length{body}x-a")
    return said.encode() + b"a" * (length - counted) + b"\r\n\r\n"


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    told = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
    if "content-length" in told:
        return int(lines[0].split()[1]), await reader.readexactly(int(told["content-length"]))
    size = int((await reader.readline()).strip(), 16)
    body = await reader.readexactly(size)
    assert await reader.readuntil(b"0\r\n\r\n")
    return int(lines[0].split()[1]), body


@pytest.mark.parametrize("path", ["/", "/" + "a" * 1500])
async def test_a_head_may_have_its_most_and_not_one_byte_more(path: str) -> None:
    async with connected() as (reader, writer):
        for body in (0, 100_000):  # in one piece with the head
            writer.write(head(MOST, body, path) + b"b" * body)
            assert await answer(reader) == (200, b"%d" % body)
        writer.write(head(MOST + 1, 100_000, path) + b"b" * 100_000)
        status, body_ = await answer(reader)
        assert status == 431
        assert json.loads(body_)["error"]["code"] == "request_header_fields_too_large"
        assert await reader.read() == b""


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\nx-a: ", b"GET /", b"GET / HTTP/1.1\r\n"])
async def test_a_head_that_does_not_end_is_refused_before_it_fills_memory(start: bytes) -> None:
    piece = b"a: b\r\n" * 100 if start.endswith(b"\n") else b"a" * 600
    async with connected() as (reader, writer):
        writer.write(start)
        for _ in range(10):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
            if reader._buffer:  # type: ignore[attr-defined]
                break
        assert (await answer(reader))[0] == 431


async def test_requests_in_a_row_are_counted_each_by_itself() -> None:
    async with connected() as (reader, writer):
        writer.write(head(MOST - 500, 10) + b"b" * 10 + head(MOST - 500) + head(MOST))
        assert [await answer(reader) for _ in range(3)] == [(200, b"10"), (200, b"0"), (200, b"0")]


@pytest.mark.parametrize(
    "said",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nbad header\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
    ],
)
async def test_what_is_no_http_gets_an_openai_error_body(said: bytes) -> None:
    async with connected() as (reader, writer):
        writer.write(said)
        status, body = await answer(reader)

        assert status == 400
        assert json.loads(body)["error"]["code"] == "invalid_http"
        assert await reader.read() == b""
