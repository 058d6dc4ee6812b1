"""A server that is slow, endless or lies about its size costs no more than the rules allow."""

import gzip
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from indexer.errors import DocumentUnusable
from indexer.sources import WebRules
from indexer.sources.web.client import WebClient
from tests.unit.web_fakes import FakeWeb, Reply, serving

Clients = Callable[..., WebClient]


@pytest.fixture
def web() -> Iterator[FakeWeb]:
    with serving() as running:
        yield running


@pytest.fixture
def client() -> Iterator[Clients]:
    """Makes clients that are closed after the test."""
    made = []

    def make(rules: WebRules | None = None, **options: object) -> WebClient:
        made.append(WebClient(rules or WebRules(), **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.close()


def refusal(client: WebClient, url: str) -> str:
    with pytest.raises(DocumentUnusable) as refused:
        client.get(url)
    return str(refused.value)


@pytest.mark.parametrize("kind", ["body", "headers", "nothing"])
def test_a_server_that_drips_is_left_when_the_time_is_up(client: Clients, kind: str) -> None:
    start = {"body": b"HTTP/1.1 200 OK\r\n\r\n", "headers": b"HTTP/1.1 200 OK\r\n", "nothing": b""}
    drop = {"body": b"x", "headers": b"A: b\r\n", "nothing": b""}

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        reader = client(WebRules(allow_private=True, respect_robots=False, timeout_s=0.4))
        was_left = threading.Event()

        def drip() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.sendall(start[kind])
                for _ in range(300):
                    if was_left.wait(0.05):
                        break
                    connection.sendall(drop[kind])

        thread = threading.Thread(target=drip)
        thread.start()
        started = time.monotonic()
        told = refusal(reader, f"http://127.0.0.1:{listener.getsockname()[1]}/")
        took_s = time.monotonic() - started
        was_left.set()
        reader.close()
        thread.join()

    assert told == "takes longer than 0.4 s"
    assert 0.3 < took_s < 10


def test_time_is_up_for_all_redirects_together(web: FakeWeb, client: Clients) -> None:
    def slow(_: object) -> Reply:
        time.sleep(0.2)
        return Reply(status=302, headers={"Location": "/again"})

    web.replies.update({"/": slow, "/again": slow})
    rules = WebRules(allow_private=True, respect_robots=False, timeout_s=0.5)

    assert refusal(client(rules), f"{web.url}/") == "takes longer than 0.5 s"
    assert len(web.asked) <= 3


def test_a_page_is_refused_once_it_is_too_large(web: FakeWeb, client: Clients) -> None:
    sent: list[int] = []

    def endless() -> Iterator[bytes]:
        while len(sent) < 2000:
            sent.append(1)
            yield b"x" * 10_000

    web.replies["/declared"] = Reply(b"x" * 1001)
    web.replies["/fits"] = Reply(b"x" * 1000)
    web.replies["/endless"] = Reply(pieces=endless)
    reader = client(WebRules(allow_private=True, max_bytes=1000))

    assert len(reader.get(f"{web.url}/fits").data) == 1000
    assert refusal(reader, f"{web.url}/declared") == "is larger than 1,000 bytes"
    assert refusal(reader, f"{web.url}/endless") == "is larger than 1,000 bytes"
    assert len(sent) < 2000


def test_a_gzip_bomb_is_left_at_the_limit(web: FakeWeb, client: Clients) -> None:
    bomb = gzip.compress(bytes(50_000_000), compresslevel=1)
    web.replies["/"] = Reply(bomb, headers={"Content-Encoding": "gzip"})
    reader = client(WebRules(allow_private=True, max_bytes=1_000_000, respect_robots=False))
    tracemalloc.start()
    try:
        told = refusal(reader, f"{web.url}/")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert told == "is larger than 1,000,000 bytes"
    assert peak < 5_000_000


def test_what_is_no_gzip_although_it_says_so_is_refused(web: FakeWeb, client: Clients) -> None:
    web.replies["/"] = Reply(b"no gzip", headers={"Content-Encoding": "gzip"})

    assert "cannot be read" in refusal(client(WebRules(allow_private=True)), f"{web.url}/")
