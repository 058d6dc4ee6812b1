"""Streams over real sockets, through the transport that the gateway uses."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.errors import UpstreamBroken, UpstreamFailure, UpstreamUnavailable
from gateway.routing import Route
from gateway.settings import GatewaySettings
from gateway.upstream import Upstream

pytestmark = pytest.mark.anyio

HEADERS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
EVENT = b'data: {"choices":[]}\n\n'
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
LAST_CHUNK = b"0\r\n\r\n"
CHUNKED = HEADERS + b"transfer-encoding: chunked\r\n\r\n"

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Runs a script for each connection, after its request has come."""

    def __init__(self, script: Script) -> None:
        self.requests: list[bytes] = []
        self.connections: set[asyncio.Task[None] | None] = set()
        self._script = script

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(asyncio.current_task())
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(2)
            self.requests.append(head + body)
            await self._script(reader, writer)
            writer.close()
            await writer.wait_closed()
        except (asyncio.IncompleteReadError, ConnectionError):  # who asked has left
            writer.close()


@asynccontextmanager
async def vllm(
    script: Script, read_timeout_s: float = 10, stall_timeout_s: float = 10
) -> AsyncIterator[tuple[Upstream, Server]]:
    ours = Server(script)
    server = await asyncio.start_server(ours.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    upstream = Upstream.connect(
        GatewaySettings(
            upstream_read_timeout_s=read_timeout_s, upstream_stall_timeout_s=stall_timeout_s
        ),
        f"http://127.0.0.1:{port}/v1",
    )
    try:
        yield upstream, ours
    finally:
        await upstream.close()
        server.close()
        await asyncio.gather(*filter(None, ours.connections))
        await server.wait_closed()


def says(*pieces: bytes) -> Script:
    """A server that says `pieces`, one after the other, and closes the connection."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.02)

    return script


async def says_and_goes_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(CHUNKED + CHUNK)
    await reader.read()


async def is_silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def read(upstream: Upstream) -> tuple[bytes, UpstreamFailure | None]:
    """What came of the answer, and how it failed."""
    received = b""
    answer = await upstream.post("/chat/completions", b"{}")
    try:
        async for chunk in answer.chunks():
            received += chunk
    except UpstreamFailure as exc:
        return received, exc
    finally:
        await answer.close()
    return received, None


async def test_a_whole_stream_comes_as_it_was_sent() -> None:
    async with vllm(says(CHUNKED, CHUNK, CHUNK, LAST_CHUNK)) as (upstream, server):
        assert await read(upstream) == (EVENT + EVENT, None)

    [request] = server.requests
    assert request.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert request.endswith(b"{}")


@pytest.mark.parametrize(
    "pieces",
    [
        [CHUNKED, CHUNK],
        [CHUNKED, CHUNK, CHUNK[:9]],
        [HEADERS, b"content-length: 100\r\n\r\n", EVENT],
    ],
    ids=["between chunks", "within a chunk", "short of its length"],
)
async def test_a_stream_that_breaks_off_is_broken_and_what_came_before_is_kept(
    pieces: list[bytes],
) -> None:
    async with vllm(says(*pieces)) as (upstream, server):
        received, failure = await read(upstream)

    assert isinstance(failure, UpstreamBroken)
    assert received.startswith(EVENT)
    assert len(server.requests) == 1


async def test_a_stream_that_falls_silent_is_broken() -> None:
    async with vllm(says_and_goes_silent, stall_timeout_s=0.2) as (upstream, server):
        received, failure = await read(upstream)

    assert isinstance(failure, UpstreamBroken)
    assert received == EVENT
    assert len(server.requests) == 1


async def test_a_server_that_never_answers_is_asked_once() -> None:
    async with vllm(is_silent, read_timeout_s=0.2) as (upstream, server):
        with pytest.raises(UpstreamBroken, match="silent"):
            await upstream.post("/chat/completions", b"{}")

    assert len(server.requests) == 1


async def test_who_does_not_say_what_it_serves_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.upstream.LIST_TIMEOUT_S", 0.1)
    async with vllm(is_silent, read_timeout_s=60) as (upstream, _), asyncio.timeout(5):
        with pytest.raises(UpstreamUnavailable, match="does not say what it serves"):
            await upstream.models()


async def test_a_count_of_tokens_is_not_waited_for_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.upstream.COUNT_TIMEOUT_S", 0.1)
    async with vllm(is_silent, read_timeout_s=60) as (upstream, _), asyncio.timeout(5):
        with pytest.raises(UpstreamBroken, match="did not answer in time"):
            await upstream.tokenize(b"{}")


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        (b"application/json", b'{"error":{"message":"died","code":500}}', "died"),
        (b"application/json", b'{"choices":[]}', "something else than a stream"),
        (b"text/html", b"<html>", "something else than a stream"),
    ],
)
async def test_who_answers_with_something_else_than_a_stream_is_asked_why(
    kind: bytes, body: bytes, words: str
) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n"
    async with vllm(says(head % (kind, len(body)), body)) as (upstream, _):
        with pytest.raises(UpstreamFailure) as failed:
            await Route([upstream]).post("/chat/completions", b"{}", is_stream=True)
        assert words in getattr(failed.value, "message", str(failed.value))


async def test_an_answer_without_an_end_is_not_read_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.upstream_answer.MOST_READ", 100)
    async with vllm(says(CHUNKED, *[CHUNK] * 9)) as (upstream, _):
        answer = await upstream.post("/chat/completions", b"{}")
        with pytest.raises(UpstreamBroken, match="longer than 100 bytes"):
            await answer.read()
        await answer.close()


async def test_reading_a_whole_answer_that_breaks_off_gives_no_half_of_it() -> None:
    async with vllm(says(CHUNKED, CHUNK)) as (upstream, _):
        answer = await upstream.post("/chat/completions", b"{}")
        with pytest.raises(UpstreamBroken):
            await answer.read()
        await answer.close()


async def test_closing_an_answer_before_its_end_closes_the_connection() -> None:
    left = asyncio.Event()

    async def until_the_client_leaves(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(CHUNKED + CHUNK)
        await writer.drain()
        assert await reader.read() == b""
        left.set()

    async with vllm(until_the_client_leaves) as (upstream, _):
        answer = await upstream.post("/chat/completions", b"{}")
        await answer.close()
        # That is how vLLM learns that nobody waits for the rest.
        await asyncio.wait_for(left.wait(), timeout=5)


async def test_a_port_that_nobody_listens_on_is_unavailable(free_port: Callable[[], int]) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    upstream = Upstream.connect(GatewaySettings(), url)
    try:
        with pytest.raises(UpstreamUnavailable, match="cannot be reached"):
            await upstream.post("/chat/completions", b"{}")
        with pytest.raises(UpstreamUnavailable, match="cannot be reached"):
            await upstream.models()
    finally:
        await upstream.close()
