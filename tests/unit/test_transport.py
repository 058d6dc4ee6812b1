"""The transport under the openai client, over real sockets: what is kept, and how it fails."""

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway import transport as module
from gateway.connection import MOST_BEFORE_BODY, MOST_BUFFERED, NotHTTP, Unheard
from gateway.transport import Transport
from tests.unit.conftest import LoopClock

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\n"
ANSWER = OK + b"content-length: 2\r\n\r\nok"

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Runs a script for each connection until it returns, and counts connections."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.connections = 0
        self.ended: list[asyncio.Task[Any] | None] = []

    @property
    def open(self) -> int:
        return sum(task is not None and not task.done() for task in self.ended)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.ended.append(asyncio.current_task())
        try:
            await self._script(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(script: Script, **options: Any) -> AsyncIterator[tuple[Transport, Server]]:
    ours = Server(script)
    server = await asyncio.start_server(ours.serve, "127.0.0.1", 0, ssl=options.pop("tls", None))
    port = server.sockets[0].getsockname()[1]
    scheme = options.pop("scheme", "http")
    timeouts = {"connect_timeout_s": 5.0, "read_timeout_s": 5.0, "stall_timeout_s": 5.0, **options}
    transport = Transport(f"{scheme}://127.0.0.1:{port}/v1", **timeouts)
    try:
        yield transport, ours
    finally:
        await transport.aclose()
        server.close()
        await asyncio.wait_for(asyncio.gather(*filter(None, ours.ended)), 10)
        await server.wait_closed()


def answering(*answers: bytes) -> Script:
    """A server that says one of `answers` to each request, the last one ever after."""
    left = list(answers)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(2)
            answer = left.pop(0) if len(left) > 1 else left[0]
            writer.write(answer)
            await writer.drain()
            if b"connection: close" in answer or b"-length" not in answer:
                return

    return script


def request() -> httpx2.Request:
    return httpx2.Request(
        "POST", "http://server/v1/x?a=b", headers={"x-a": "b"}, stream=httpx2.ByteStream(b"{}")
    )


async def asked(transport: Transport) -> bytes:
    response = await transport.handle_async_request(request())
    try:
        return b"".join([piece async for piece in stream(response)])
    finally:
        await response.aclose()


def stream(response: httpx2.Response) -> AsyncIterator[bytes]:
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    return aiter(response.stream)


async def test_a_request_goes_out_with_its_headers_and_its_length() -> None:
    heard = asyncio.get_running_loop().create_future()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.set_result(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(2))
        writer.write(ANSWER)

    async with serving(script) as (transport, _):
        assert await asked(transport) == b"ok"

    assert await heard == b"POST /v1/x?a=b HTTP/1.1\r\nx-a: b\r\ncontent-length: 2\r\n\r\n{}"


async def test_a_connection_is_used_again() -> None:
    async with serving(answering(ANSWER)) as (transport, server):
        assert [await asked(transport) for _ in range(3)] == [b"ok"] * 3

    assert server.connections == 1


async def test_requests_at_the_same_time_have_a_connection_each() -> None:
    async with serving(answering(ANSWER)) as (transport, server):
        assert await asyncio.gather(*(asked(transport) for _ in range(5))) == [b"ok"] * 5

    assert server.connections == 5


@pytest.mark.parametrize(
    "first",
    [
        OK + b"connection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        OK + b"connection: close\r\n\r\nok",
        OK + b"\r\nok",
    ],
    ids=["close", "HTTP/1.0", "until it is closed", "without a word"],
)
async def test_a_connection_that_the_server_closes_is_not_used_again(first: bytes) -> None:
    async with serving(answering(first, ANSWER)) as (transport, server):
        assert [await asked(transport), await asked(transport)] == [b"ok", b"ok"]

    assert server.connections == 2


async def test_a_connection_that_was_closed_while_it_was_idle_is_not_used_again() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(ANSWER)

    async with serving(script) as (transport, server):
        assert await asked(transport) == b"ok"
        await asyncio.sleep(0.05)
        assert await asked(transport) == b"ok"

    assert server.connections == 2


async def test_a_connection_is_not_kept_for_longer_than_servers_keep_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "KEPT_S", 0.0)
    async with serving(answering(ANSWER)) as (transport, server):
        await asked(transport)
        await asked(transport)

    assert server.connections == 2


async def test_connections_that_are_not_needed_any_more_are_closed(
    monkeypatch: pytest.MonkeyPatch, loop_clock: LoopClock
) -> None:
    monkeypatch.setattr(module, "KEPT_S", 200.0)
    async with serving(answering(ANSWER)) as (transport, server):
        await asyncio.gather(*(asked(transport) for _ in range(5)))
        for _ in range(4):
            loop_clock.ahead_s += 60
            await asked(transport)
        async with asyncio.timeout(10):
            while server.open > 1:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        assert await asked(transport) == b"ok"

    assert server.connections == 5


async def test_a_server_that_speaks_without_being_asked_is_left() -> None:
    async with serving(answering(ANSWER + b"HTTP/1.1 200 OK\r\n\r\n", ANSWER)) as (
        transport,
        server,
    ):
        assert await asked(transport) == b"ok"
        await asyncio.sleep(0.05)
        assert await asked(transport) == b"ok"

    assert server.connections == 2


async def test_what_is_not_the_answer_yet_is_passed_over() -> None:
    continued = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    async with serving(answering(continued + ANSWER)) as (transport, _):
        response = await transport.handle_async_request(request())
        assert (response.status_code, "link" in response.headers) == (200, False)
        await response.aclose()


async def test_an_answer_that_is_left_half_read_closes_its_connection() -> None:
    closed = asyncio.get_running_loop().create_future()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(OK + b"content-length: 9\r\n\r\nhalf")
        closed.set_result(await reader.read())

    async with serving(script) as (transport, _):
        response = await transport.handle_async_request(request())
        assert await anext(stream(response)) == b"half"
        await response.aclose()
        assert await asyncio.wait_for(closed, 5) == b""


async def test_who_stops_waiting_for_an_answer_closes_its_connection() -> None:
    heard, closed = (asyncio.get_running_loop().create_future() for _ in range(2))

    async def script(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        heard.set_result(await reader.readuntil(b"\r\n\r\n{}"))
        closed.set_result(await reader.read())

    async with serving(script) as (transport, _):
        waiting = asyncio.create_task(transport.handle_async_request(request()))
        await heard
        waiting.cancel()
        assert await asyncio.wait_for(closed, 5) == b""


async def test_a_slow_reader_makes_the_server_wait() -> None:
    """What is not read yet does not pile up here."""
    size = 200 * MOST_BUFFERED
    written = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(OK + b"content-length: %d\r\n\r\n" % size)
        for _ in range(200):
            writer.write(b"x" * MOST_BUFFERED)
            await writer.drain()
            written += MOST_BUFFERED

    async with serving(script) as (transport, _):
        response = await transport.handle_async_request(request())
        before = -1
        while written != before:
            before = written
            await asyncio.sleep(0.2)
        assert 0 < written < size / 2
        assert sum([len(piece) async for piece in stream(response)]) == size
        await response.aclose()


@pytest.mark.parametrize(
    ("said", "failure"),
    [
        (b"SSH-2.0-OpenSSH\r\n", NotHTTP),
        (b"", httpx2.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nconten", httpx2.RemoteProtocolError),
        (OK + b"content-length: 9\r\n\r\nhalf", httpx2.ReadError),
        (OK + b"transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", httpx2.ReadError),
        (OK + b"transfer-encoding: chunked\r\n\r\nnonsense\r\n", NotHTTP),
    ],
    ids=["no HTTP", "nothing", "half a head", "half a body", "half the chunks", "no chunks"],
)
async def test_what_breaks_off_or_makes_no_sense_is_an_error(
    said: bytes, failure: type[Exception]
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(said)

    async with serving(script) as (transport, _):
        with pytest.raises(failure):
            await asked(transport)


@pytest.mark.parametrize("said", [b"", OK + b"content-length: 9\r\n\r\nhalf"])
async def test_a_server_that_falls_silent_is_not_waited_for(said: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(said)
        await reader.read()

    async with serving(script, read_timeout_s=0.2, stall_timeout_s=0.2) as (transport, _):
        with pytest.raises(httpx2.ReadTimeout):
            await asked(transport)


@pytest.mark.parametrize(
    ("said", "silence_s", "stall_s"),
    [
        (OK + b"content-length: 9\r\n\r\n", 0.2, 60),
        (OK + b"content-length: 9\r\n\r\nhalf", 60, 0.2),
    ],
    ids=["before the body", "within it"],
)
async def test_before_a_body_and_within_it_another_silence_is_too_long(
    said: bytes, silence_s: float, stall_s: float
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(said)
        await reader.read()

    async with serving(script, read_timeout_s=silence_s, stall_timeout_s=stall_s) as (transport, _):
        async with asyncio.timeout(5):
            with pytest.raises(httpx2.ReadTimeout, match=r"0\.2 s"):
                await asked(transport)


@pytest.mark.parametrize(
    "piece",
    [b"x-more: %b\r\n" % (b"x" * 8000), b"", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 200],
    ids=["headers", "nothing", "hints"],
)
async def test_a_head_without_an_end_is_not_read_for_ever(piece: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(OK if b"HTTP" not in piece else b"")
        with suppress(ConnectionError):
            for _ in range(2 * MOST_BEFORE_BODY // max(len(piece), 4096)):
                writer.write(piece or b"x" * 4096)
                await writer.drain()
            await reader.read()

    async with serving(script) as (transport, _):
        with pytest.raises(NotHTTP):
            await asked(transport)


async def test_that_a_kept_connection_was_closed_without_a_word_is_told_from_other_ends() -> None:
    """The server may have closed it as idle, and never have read the request."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(ANSWER)
        await reader.readuntil(b"\r\n\r\n{}")

    async with serving(script) as (transport, server):
        assert await asked(transport) == b"ok"
        with pytest.raises(Unheard):
            await asked(transport)

    assert server.connections == 1


async def test_a_server_that_speaks_now_and_then_is_waited_for(loop_clock: LoopClock) -> None:
    """The timeout is that of a silence, not of the answer."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(OK + b"content-length: 8\r\n\r\n")
        for _ in range(8):
            loop_clock.ahead_s += 100
            await asyncio.sleep(0.01)
            writer.write(b"x")
            await asyncio.sleep(0.01)

    async with serving(script, read_timeout_s=400, stall_timeout_s=400) as (transport, _):
        assert await asked(transport) == b"x" * 8


async def test_a_port_that_nobody_listens_on_is_a_failed_connection(
    free_port: Callable[[], int],
) -> None:
    transport = Transport(
        f"http://127.0.0.1:{free_port()}/v1",
        connect_timeout_s=5,
        read_timeout_s=5,
        stall_timeout_s=5,
    )
    with pytest.raises(httpx2.ConnectError):
        await transport.handle_async_request(request())


async def test_a_handshake_that_never_comes_is_not_waited_for() -> None:
    async def script(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(script, scheme="https", connect_timeout_s=0.2) as (transport, _):
        with pytest.raises(httpx2.ConnectTimeout):
            await transport.handle_async_request(request())


async def test_a_unix_socket_is_a_server_too(tmp_path: Path) -> None:
    ours = Server(answering(ANSWER))
    socket = tmp_path / "socket"
    server = await asyncio.start_unix_server(ours.serve, socket)
    transport = Transport(
        "http://server/v1", connect_timeout_s=5, read_timeout_s=5, stall_timeout_s=5, socket=socket
    )
    assert await asked(transport) == b"ok"
    await transport.aclose()
    server.close()
    await asyncio.gather(*filter(None, ours.ended))
    await server.wait_closed()


class TestTLS:
    """Certificates are checked, against those that the machine trusts."""

    async def test_a_certificate_that_is_trusted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tls = certified(tmp_path, monkeypatch)
        async with serving(answering(ANSWER), tls=tls, scheme="https") as (transport, _):
            assert await asked(transport) == b"ok"

    async def test_a_certificate_that_nobody_trusts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tls = certified(tmp_path, monkeypatch)
        monkeypatch.delenv("SSL_CERT_FILE")
        async with serving(answering(ANSWER), tls=tls, scheme="https") as (transport, _):
            with pytest.raises(httpx2.ConnectError, match="self-signed"):
                await transport.handle_async_request(request())


def certified(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A certificate for 127.0.0.1 that this process trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "public.pem", folder / "private.pem"
    public.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(public))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(public, private)
    return tls
