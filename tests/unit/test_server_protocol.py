"""Requests that come before the one before them is answered, over a real socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from gateway.server import Protocol, ServerConfig
from gateway.settings import GatewaySettings

pytestmark = pytest.mark.anyio
FIRST = b"POST /first HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab"
TOO_SOON = b"POST /too-soon HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\ncdef"


class Application:
    """Answers when it is told to, with what it was sent."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers = asyncio.Event()
        self.was_left = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope["path"])
        body = (await receive())["body"]
        left = asyncio.create_task(self._left(receive))
        await asyncio.wait(
            [left, asyncio.create_task(self.answers.wait())], return_when="FIRST_COMPLETED"
        )
        left.cancel()
        if not self.was_left.is_set():
            length = [(b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 200, "headers": length})
            await send({"type": "http.response.body", "body": body})

    async def _left(self, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.was_left.set()


@pytest.fixture
async def application() -> Application:
    return Application()


@asynccontextmanager
async def connected(
    application: Application,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    config = ServerConfig(GatewaySettings(), application, lifespan="off")
    config.load()
    state = uvicorn.Server(config).server_state
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Protocol(config, state, {}), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(FIRST)
    async with asyncio.timeout(10):
        while not application.asked:  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)
    try:
        yield reader, writer
    finally:
        writer.close()
        server.close()


@pytest.mark.parametrize("more", [b"", TOO_SOON, TOO_SOON * 3, TOO_SOON[:-2], TOO_SOON[:20]])
async def test_a_client_that_leaves_is_noticed_whatever_it_sent(
    application: Application, more: bytes
) -> None:
    async with connected(application) as (_, writer):
        writer.write(more)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()
        async with asyncio.timeout(10):
            await application.was_left.wait()


@pytest.mark.parametrize("more", [TOO_SOON, TOO_SOON * 3, TOO_SOON[:-2]])
async def test_what_comes_too_soon_is_not_answered_and_does_not_disturb_what_is(
    application: Application, more: bytes
) -> None:
    async with connected(application) as (reader, writer):
        writer.write(more)
        await writer.drain()
        await asyncio.sleep(0.05)
        application.answers.set()
        async with asyncio.timeout(10):
            said = await reader.read()

    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in head
    assert body == b"ab"
    assert application.asked == ["/first"]


async def test_one_request_after_the_other_is_answered_on_one_connection(
    application: Application,
) -> None:
    application.answers.set()
    async with connected(application) as (reader, writer):
        assert (await reader.readuntil(b"ab")).startswith(b"HTTP/1.1 200")
        writer.write(TOO_SOON)
        async with asyncio.timeout(10):
            assert (await reader.readuntil(b"cdef")).startswith(b"HTTP/1.1 200")
