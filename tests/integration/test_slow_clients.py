"""Clients that stall, and what keeps a stream alive while it is the model that does."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import psutil
import pytest

from tests.integration import edges, fake_vllm, stalling_vllm
from tests.integration.edges import MESSAGES, Gateway
from tests.integration.stalling_vllm import StallingVllm

pytestmark = pytest.mark.long

PATIENCE_S = 2.0
CHAT = "/v1/chat/completions"
ASKED = {"model": "default", "messages": MESSAGES}
COMMENT = b": keep-alive\n\n"
MIB = 1 << 20


@pytest.fixture(scope="module")
def upstream() -> Iterator[StallingVllm]:
    with stalling_vllm.serving() as vllm:
        yield vllm


@pytest.fixture(scope="module")
def gateway(
    upstream: StallingVllm,
    free_port: Callable[[], int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    logs: Path = tmp_path_factory.mktemp("logs")
    with edges.running(
        upstream,
        free_port(),
        logs,
        client_timeout_s=PATIENCE_S,
        heartbeat_s=0.3,
        keep_alive_timeout_s=1,
    ) as running:
        yield running


@pytest.fixture(autouse=True)
def as_before(upstream: StallingVllm) -> Iterator[None]:
    yield
    upstream.stalls, upstream.pace_s, upstream.flood_bytes = {}, 0.0, 0
    upstream.hang_up()
    upstream.seen.clear()


def trickle(connection: socket.socket, piece: bytes, within_s: float) -> float:
    """Send `piece` again and again; seconds until the other side has enough of it."""
    started = time.monotonic()
    connection.settimeout(0.1)
    while time.monotonic() - started < within_s:
        try:
            connection.sendall(piece)
            if connection.recv(1, socket.MSG_PEEK) is not None:
                break
        except TimeoutError:
            continue
        except ConnectionError:
            break
    connection.settimeout(5)
    return time.monotonic() - started


@pytest.mark.parametrize("is_second", [False, True])
def test_a_head_that_trickles_is_refused(gateway: Gateway, is_second: bool) -> None:
    client = gateway.connect()
    if is_second:
        client.sendall(edges.request("POST", CHAT, ASKED))
        edges.read_plain(client)
    client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nx-a: ")
    took = trickle(client, b"a", 4 * PATIENCE_S)

    assert PATIENCE_S * 0.9 <= took < 2.5 * PATIENCE_S
    head, _, body = edges.read_all(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408")
    assert json.loads(body)["error"]["code"] == "client_too_slow"


def test_a_body_that_trickles_is_refused_and_its_request_ended(gateway: Gateway) -> None:
    client = gateway.send("POST", CHAT, b"{", {"content-length": "9000"})
    took = trickle(client, b" ", 4 * PATIENCE_S)

    assert PATIENCE_S * 0.9 <= took < 2.5 * PATIENCE_S
    assert edges.read_all(client).startswith(b"HTTP/1.1 408")
    gateway.until_idle(1.0)


def test_a_long_body_that_comes_steadily_may_take_longer(gateway: Gateway) -> None:
    body = json.dumps({**ASKED, "messages": [{"role": "user", "content": "x" * 8_000}]}).encode()
    client = gateway.send("POST", CHAT, b"", {"content-length": str(len(body))})
    for start in range(0, len(body), 800):
        time.sleep(2 * PATIENCE_S * 800 / len(body))
        client.sendall(body[start : start + 800])

    assert edges.read_plain(client).startswith(b"HTTP/1.1 200")


def test_a_connection_that_nothing_comes_on_is_closed(gateway: Gateway) -> None:
    for client in (gateway.connect(), gateway.send("POST", CHAT, ASKED)):
        if client is not gateway.connections[-2]:
            edges.read_plain(client)
        started = time.monotonic()
        assert client.recv(1) == b""
        assert time.monotonic() - started < 2.5 * PATIENCE_S


def test_a_client_that_never_reads_costs_no_memory_and_is_given_up(
    gateway: Gateway, upstream: StallingVllm
) -> None:
    upstream.flood_bytes = 1024 * MIB
    process = psutil.Process(gateway.pid)
    before = process.memory_info().rss
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.connect(("127.0.0.1", gateway.port))
        client.sendall(edges.request("POST", CHAT, ASKED | {"stream": True}))
        most = before
        ends = time.monotonic() + 0.9 * PATIENCE_S
        while time.monotonic() < ends:
            most = max(most, process.memory_info().rss)
            time.sleep(0.05)
        assert most - before < 8 * MIB
        assert upstream.sent_bytes < 32 * MIB
        gateway.until_idle(2 * PATIENCE_S)


def streamed(gateway: Gateway, path: str, body: dict[str, Any]) -> bytes:
    """The events of a stream, as they come off the wire."""
    said = edges.request(
        "POST",
        path,
        {"model": "default", "stream": True, **body},
        {"accept-encoding": "gzip, deflate, br", "connection": "close"},
    )
    client = gateway.connect()
    client.sendall(said)
    head, _, chunks = edges.read_all(client).partition(b"\r\n\r\n")
    assert b"content-encoding" not in head
    assert b"x-accel-buffering: no\r\n" in head
    assert b"cache-control: no-cache, no-transform\r\n" in head
    events = b""
    while chunks:
        length, _, rest = chunks.partition(b"\r\n")
        events += rest[: int(length, 16)]
        chunks = rest[int(length, 16) + 2 :]
    return events


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": MESSAGES}),
        ("/v1/completions", {"prompt": "Llamas"}),
        ("/v1/responses", {"input": "Llamas"}),
        ("/v1/messages", {"messages": MESSAGES, "max_tokens": 9}),
    ],
)
def test_a_silent_stream_is_kept_alive_between_its_events_alone(
    gateway: Gateway, upstream: StallingVllm, path: str, body: dict[str, Any]
) -> None:
    upstream.pace_s = 0.7
    events = streamed(gateway, path, body).split(b"\n\n")

    assert events.count(COMMENT.strip()) >= 2
    assert events[-1] == b""
    kinds = (b"data: ", b"event: ", COMMENT.strip())
    assert all(event.startswith(kinds) for event in events[:-1])
    assert not any(COMMENT.strip() in event for event in events if event != COMMENT.strip())


def test_a_stream_whose_events_come_soon_enough_has_no_comment(
    gateway: Gateway, upstream: StallingVllm
) -> None:
    upstream.pace_s = 0.1

    assert COMMENT not in streamed(gateway, CHAT, {"messages": MESSAGES})


def test_clients_skip_the_comments(gateway: Gateway, upstream: StallingVllm) -> None:
    upstream.pace_s = 0.7
    ours = gateway.client()
    with ours, anthropic.Anthropic(base_url=gateway.url, api_key="k", max_retries=0) as theirs:
        chunks = ours.chat.completions.create(
            model="default",
            messages=MESSAGES,
            stream=True,
        )
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == fake_vllm.TEXT
        with ours.responses.stream(model="default", input="Llamas") as response:
            assert response.get_final_response().output_text == fake_vllm.TEXT
        with theirs.messages.stream(
            model="default",
            messages=MESSAGES,
            max_tokens=9,
        ) as message:
            assert message.get_final_text() == fake_vllm.TEXT


def test_a_stream_that_waits_for_its_first_token_is_kept_alive_and_ends_with_its_client(
    gateway: Gateway, upstream: StallingVllm
) -> None:
    """The head goes out when vLLM has been waited for for a while, and the first token has not."""
    upstream.stalls = {CHAT: "body"}
    client = gateway.send("POST", CHAT, ASKED | {"stream": True})
    seen = upstream.asked(CHAT)
    assert edges.read_until(client, COMMENT).startswith(b"HTTP/1.1 200")
    client.close()

    assert seen.was_left.wait(1.0)


@pytest.mark.parametrize("streams", [64])
def test_health_is_told_quickly_while_many_streams_are_written(
    gateway: Gateway, upstream: StallingVllm, streams: int
) -> None:
    upstream.pace_s = 0.02
    clients = [gateway.send("POST", CHAT, ASKED | {"stream": True}) for _ in range(streams)]
    took = []
    for _ in range(40):
        started = time.monotonic()
        assert gateway.get("/health/live") == (200, '{"status":"live"}')
        took.append(time.monotonic() - started)
    for client in clients:
        assert b"[DONE]" in edges.read_until(client, b"[DONE]")
    assert sorted(took)[-2] < 0.25


def test_readiness_is_told_soon_though_milvus_and_vllm_say_nothing_and_each_is_asked_once(
    gateway: Gateway, upstream: StallingVllm
) -> None:
    upstream.stalls = {"/v1/models": "head"}
    upstream.seen.clear()
    pollers = [gateway.send("GET", "/health/ready") for _ in range(30)]
    started = time.monotonic()
    for poller in pollers:
        answer = edges.read_plain(poller)
        assert answer.startswith(b"HTTP/1.1 503")
        missing = json.loads(answer.partition(b"\r\n\r\n")[2])["missing"]
        assert set(missing) >= {"vllm", "milvus"}
    assert time.monotonic() - started < 4.0
    # One of them is the gateway's own, which looks every few seconds.
    assert len([seen for seen in upstream.seen if seen.path == "/v1/models"]) <= 4


def test_the_sdk_is_told_of_a_body_that_is_too_slow(gateway: Gateway) -> None:
    def slowly() -> Iterator[bytes]:
        yield b"{"
        time.sleep(2.5 * PATIENCE_S)
        yield b"}"

    with gateway.client() as client, pytest.raises(openai.APIError):
        client.post(CHAT, cast_to=object, content=slowly(), options={})
