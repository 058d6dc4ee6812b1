"""What clients, load balancers and operators see of a gateway that is told to end."""

import contextlib
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.integration import edges, stalling_vllm
from tests.integration.edges import MESSAGES, Gateway
from tests.integration.stalling_vllm import StallingVllm

Starting = Callable[..., AbstractContextManager[Gateway]]
CHAT = "/v1/chat/completions"
DELAY_S = 5.0
QUICKLY_S = 15.0

# Path, request and how the stream's own dialect tells of an error.
DIALECTS: dict[str, tuple[str, dict[str, Any], bytes, bytes]] = {
    "chat": (CHAT, {"messages": MESSAGES}, b"data: ", b'{"error"'),
    "completions": ("/v1/completions", {"prompt": "Llamas"}, b"data: ", b'{"error"'),
    "responses": ("/v1/responses", {"input": "Llamas"}, b"event: error\ndata: ", b"{"),
    "messages": (
        "/v1/messages",
        {"messages": MESSAGES, "max_tokens": 9},
        b"event: error\ndata: ",
        b'{"type":"error"',
    ),
}


@pytest.fixture
def upstream() -> Iterator[StallingVllm]:
    with stalling_vllm.serving() as vllm:
        yield vllm


@pytest.fixture
def starting(upstream: StallingVllm, free_port: Callable[[], int], tmp_path: Path) -> Starting:
    def start(**settings: object) -> AbstractContextManager[Gateway]:
        return edges.running(upstream, free_port(), tmp_path / "logs", **settings)

    return start


def asked(gateway: Gateway, **more: Any) -> socket.socket:
    return gateway.send("POST", CHAT, {"model": "default", "messages": MESSAGES, **more})


def refuses(gateway: Gateway) -> bool:
    try:
        gateway.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def until_draining(gateway: Gateway, within_s: float) -> None:
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        # Who asked a moment before is told whatever Milvus, which is silent here, has to say.
        with contextlib.suppress(TimeoutError):
            if gateway.get("/health/ready", 0.2) == (503, '{"status":"draining"}'):
                return
    pytest.fail("it is not draining")


def until_refused(gateway: Gateway, within_s: float) -> None:
    ends = time.monotonic() + within_s
    while not refuses(gateway):
        assert time.monotonic() < ends, "it still listens"
        time.sleep(0.02)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_it_is_not_ready_at_once_takes_requests_for_a_while_and_finishes_what_runs(
    starting: Starting, upstream: StallingVllm, workers: int
) -> None:
    upstream.pace_s = 0.4
    with starting(shutdown_delay_s=DELAY_S, workers=workers) as gateway:
        idle = asked(gateway)
        assert b"connection: close" not in edges.read_plain(idle)
        running = asked(gateway, stream=True)
        edges.read_until(running, b"\n\n")

        gateway.signal(signal.SIGTERM)
        told = time.monotonic()
        until_draining(gateway, DELAY_S - 1)
        # An idle connection that a proxy takes for one more request is not to be taken again.
        for late in (idle, gateway.connect()):
            late.sendall(edges.request("POST", CHAT, {"model": "default", "messages": MESSAGES}))
            answer = edges.read_all(late)
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"connection: close\r\n" in answer
        stream = asked(gateway, stream=True)
        assert time.monotonic() - told < DELAY_S
        until_refused(gateway, QUICKLY_S)
        assert time.monotonic() - told >= DELAY_S - 0.1
        for each in (running, stream):
            assert b"data: [DONE]\n\n\r\n0\r\n\r\n" in edges.read_all(each)
        assert gateway.wait(QUICKLY_S) == 0


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_stream_that_takes_too_long_ends_with_an_error_of_its_own_dialect(
    starting: Starting, upstream: StallingVllm, dialect: str
) -> None:
    path, body, before, begin = DIALECTS[dialect]
    upstream.stalls = {path: "middle"}
    with starting(drain_timeout_s=1) as gateway:
        stream = gateway.send("POST", path, {"model": "default", "stream": True, **body})
        edges.read_until(stream, b"\n\n")
        gateway.signal(signal.SIGTERM)
        rest = edges.read_all(stream)

        assert rest.endswith(b"\n\n\r\n0\r\n\r\n")
        event = rest.removesuffix(b"\n\n\r\n0\r\n\r\n").partition(b"\r\n")[2]
        assert event.startswith(before + begin)
        said = json.loads(event.removeprefix(before))
        assert "gateway_stopping" in json.dumps(said)
        assert upstream.asked(path).was_left.wait(10)
        assert gateway.wait(QUICKLY_S) == 0


@pytest.mark.parametrize("when", ["head", "body", "middle"])
def test_a_plain_request_that_takes_too_long_is_told_to_try_again(
    starting: Starting, upstream: StallingVllm, when: stalling_vllm.When
) -> None:
    upstream.stalls = {CHAT: when}
    with starting(drain_timeout_s=1) as gateway:
        answer = asked(gateway)
        upstream.asked(CHAT)
        gateway.signal(signal.SIGTERM)
        head, _, body = edges.read_all(answer).partition(b"\r\n\r\n")

        assert head.startswith(b"HTTP/1.1 503")
        assert b"retry-after: " in head
        assert json.loads(body)["error"]["code"] == "gateway_stopping"
        assert upstream.asked(CHAT).was_left.wait(10)
        assert gateway.wait(QUICKLY_S) == 0
        assert "Traceback" not in gateway.log()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_second_signal_ends_it_at_once_and_clients_are_told(
    starting: Starting, upstream: StallingVllm, workers: int
) -> None:
    upstream.stalls = {CHAT: "middle"}
    with starting(drain_timeout_s=60, workers=workers) as gateway:
        stream = gateway.client().chat.completions.create(
            model="default",
            messages=MESSAGES,
            stream=True,
        )
        next(iter(stream))
        gateway.signal(signal.SIGTERM)
        until_refused(gateway, QUICKLY_S)
        gateway.signal(signal.SIGTERM)

        with pytest.raises(openai.APIError, match="being stopped"):
            list(stream)
        assert gateway.wait(QUICKLY_S) == 128 + signal.SIGTERM
        assert "Traceback" not in gateway.log()


def test_an_interrupt_from_a_terminal_does_not_wait_for_a_load_balancer(
    starting: Starting,
) -> None:
    with starting(shutdown_delay_s=30, workers=2) as gateway:
        gateway.signal(signal.SIGINT)

        assert gateway.wait(QUICKLY_S) == 0


def test_a_client_that_does_not_read_does_not_keep_it_from_ending(
    starting: Starting, upstream: StallingVllm
) -> None:
    upstream.flood_bytes = 1 << 30
    with starting(drain_timeout_s=1) as gateway:
        stream = asked(gateway, stream=True)
        upstream.asked(CHAT)
        time.sleep(0.5)
        gateway.signal(signal.SIGTERM)

        assert gateway.wait(QUICKLY_S) == 0
        stream.close()
