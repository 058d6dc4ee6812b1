"""A gateway whose embeddings server misbehaves: what clients see, and that it is over by itself."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from litestar.testing import TestClient

from gateway.app import create_app
from gateway.degraded import HEADER
from gateway.encoding import Vector
from gateway.settings import GatewaySettings
from indexer.index.collection import Generation
from indexer.index.errors import IndexUnavailable
from indexer.index.records import Hit
from tests.unit.conftest import COMPLETION, FakeAnswer, FakeReader, FakeUpstream
from tests.unit.embeddings_fakes import MODEL, FakeEmbeddings, serving
from tests.unit.index_fakes import FakeEncoder

CHAT = "/v1/chat/completions"
STORED = "a stored passage"
Client = TestClient[Any]


class Stored(FakeReader):
    """A collection that has one passage."""

    async def passages(self, generation: Generation) -> list[tuple[str, Vector]]:
        assert generation == self.generation
        return [(STORED, FakeEncoder().encode_texts([STORED])[0])]


@pytest.fixture
def reader(hits: list[Hit]) -> Stored:
    return Stored(hits)


@pytest.fixture
def server() -> Iterator[FakeEmbeddings]:
    with serving() as server:
        yield server


@pytest.fixture
def gateway(upstream: FakeUpstream, reader: Stored, server: FakeEmbeddings) -> Iterator[Any]:
    """Started, with these settings."""
    with ExitStack() as stack:

        def start(**stated: Any) -> Client:
            settings = GatewaySettings(
                encoder_url=server.url,
                encoder_model=MODEL,
                encoder_query_prefix="query: ",
                poll_interval_s=0.05,
                upstream_attempts=1,
                **stated,
            )
            app = create_app(settings, servers=[upstream], reader=reader)
            return stack.enter_context(TestClient(app, base_url="http://127.0.0.1"))

        yield start


def ask(client: Client, upstream: FakeUpstream, question: str = "What?", **more: Any) -> Any:
    upstream.answers = [FakeAnswer([COMPLETION])]
    messages = [{"role": "user", "content": question}]
    return client.post(CHAT, json={"model": "default", "messages": messages} | more)


def missing(client: Client) -> dict[str, str]:
    reasons: dict[str, str] = client.get("/health/ready").json().get("missing", {})
    return reasons


def until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + 40
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_a_stored_passage_that_is_refused_ends_no_watch_and_is_not_the_clients_fault(
    gateway: Callable[..., Client], upstream: FakeUpstream, reader: Stored, server: FakeEmbeddings
) -> None:
    server.refuses = STORED
    client = gateway()
    until(lambda: "refuses a stored passage" in missing(client).get("milvus", ""))
    refused = ask(client, upstream)

    assert (refused.status_code, refused.json()["error"]["code"]) == (500, "encoding_failed")
    looks = len(reader.resolved)
    until(lambda: len(reader.resolved) > looks + 3)
    server.refuses = None
    assert ask(client, upstream).status_code == 200
    reader.failure = IndexUnavailable("killed")
    until(lambda: "times in a row" in missing(client).get("milvus", ""))
    reader.failure = None
    until(lambda: not missing(client))
    assert ask(client, upstream).status_code == 200


def test_an_embeddings_server_that_says_nothing_is_told_and_done_without(
    gateway: Callable[..., Client], upstream: FakeUpstream, server: FakeEmbeddings
) -> None:
    client = gateway(encoder_timeout_s=0.3)
    until(lambda: not missing(client))
    server.let.clear()
    silent = ask(client, upstream, "Which one?")

    assert (silent.status_code, silent.json()["error"]["code"]) == (503, "encoder_unavailable")
    until(lambda: "encoder" in missing(client))
    degraded = ask(client, upstream, "And which?", retrieval={"when_unavailable": "degrade"})
    assert (degraded.status_code, degraded.headers.get(HEADER)) == (200, "encoder")

    server.let.set()
    until(lambda: not missing(client))
    assert ask(client, upstream, "And this?").status_code == 200
