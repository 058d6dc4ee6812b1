"""Fakes of what stands at the edges: vLLM, Milvus and the embedding model. They share the real
interfaces, and each remembers what it was asked."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from litestar.testing import TestClient

from gateway.access.callers import Caller, acting_as
from gateway.app import create_app
from gateway.settings import GatewaySettings
from gateway.upstream import ServedModel, Upstream
from gateway.upstream_answer import UpstreamAnswer
from indexer.index.collection import Generation, IndexReader
from indexer.index.records import Fingerprint, Hit
from indexer.index.searching import Query, Search
from tests.unit.index_fakes import IDENTITY, FakeEncoder, FakeWriter
from tests.unit.run_fakes import RunOnce, run_with

COMPLETION = (
    b'{"id":"c","choices":[{"index":0,"message":{"content":"Grass [1]."},"finish_reason":"stop"}]}'
)


class Clock:
    """The time in seconds, which stands still until it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class LoopClock:
    """The time of the event loop, which goes by, and which a test may set forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


@pytest.fixture
async def loop_clock(monkeypatch: pytest.MonkeyPatch) -> LoopClock:
    clock = LoopClock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", clock)
    return clock


class FakeReader(IndexReader):
    """A published generation with a fixed answer to every search."""

    def __init__(self, hits: Sequence[Hit]) -> None:
        self.hits = list(hits)
        self.generation = Generation("documents__g1", Fingerprint(encoder=IDENTITY, chunker="c"))
        self.failure: Exception | None = None
        """Raised by every call while it is set."""
        self.search_failures: list[Exception] = []
        """Raised by the next searches, one each."""
        self.searches: list[tuple[str, list[Query], Search]] = []
        """Collection, questions and manner of each search."""
        self.around: list[Hit] = []
        """What stands around every hit."""
        self.asked_around: list[tuple[str, list[str], str, int]] = []
        self.resolved: list[str] = []
        self.closed = 0

    async def published(self, name: str) -> Generation:
        self.resolved.append(name)
        if self.failure is not None:
            raise self.failure
        return self.generation

    async def search(
        self, generation: Generation, queries: Sequence[Query], search: Search
    ) -> list[list[Hit]]:
        self.searches.append((generation.collection, list(queries), search))
        if self.search_failures:
            raise self.search_failures.pop(0)
        if self.failure is not None:
            raise self.failure
        return [self.hits[: search.limit] for _ in queries]

    async def neighbours(
        self, generation: Generation, hits: Sequence[Hit], tenant: str, distance: int
    ) -> list[Hit]:
        ids = [hit.chunk_id for hit in hits]
        self.asked_around.append((generation.collection, ids, tenant, distance))
        return self.around

    async def close(self) -> None:
        self.closed += 1


class FakeAnswer(UpstreamAnswer):
    """An answer that arrives in given pieces and then ends, or breaks off with `failure`."""

    def __init__(self, pieces: Sequence[bytes], failure: Exception | None = None) -> None:
        self.pieces = list(pieces)
        self.failure = failure
        self.closed = 0
        super().__init__(self.iter_bytes(), self.close)

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece
        if self.failure is not None:
            raise self.failure

    async def close(self) -> None:
        self.closed += 1


class FakeUpstream(Upstream):
    """Serves `served`, and answers each post with the next of `answers`."""

    def __init__(self, *served: str) -> None:
        self.served: list[str] = list(served)
        self.url = "http://vllm.test/v1/"
        self.failure: Exception | None = None
        """Raised when asked for models, while it is set."""
        self.answers: list[FakeAnswer | Exception] = []
        self.posted: list[tuple[str, bytes]] = []
        self.asked = 0
        self.was_asked = asyncio.Event()
        self.closed = 0

    @property
    def name(self) -> str:
        return self.url

    async def models(self) -> list[ServedModel]:
        self.asked += 1
        self.was_asked.set()
        if self.failure is not None:
            raise self.failure
        return [
            ServedModel(name, {"id": name, "object": "model", "max_model_len": 4096})
            for name in self.served
        ]

    async def post(self, path: str, content: bytes) -> UpstreamAnswer:
        self.posted.append((path, content))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        self.closed += 1


MakeHit = Callable[..., Hit]


@pytest.fixture
def make_hit() -> MakeHit:
    """A hit, of which a test states only what it is about."""

    def make(**stated: object) -> Hit:
        defaults: dict[str, object] = {
            "chunk_id": "c1",
            "document_id": "d1",
            "source": "https://example.org/guide/llamas.html",
            "title": "Llamas",
            "heading_path": "Llamas > Food",
            "start": 0,
            "end": 5,
            "text": "Llamas eat grass.",
            "score": 0.9,
        }
        return msgspec.convert(defaults | stated, Hit)

    return make


@pytest.fixture
def hits(make_hit: MakeHit) -> list[Hit]:
    """Three hits, best first; the first and the last are from one source."""
    return [
        make_hit(chunk_id="c1", text="Llamas eat grass.", score=0.9),
        make_hit(
            chunk_id="c2",
            document_id="d2",
            source="docs/orbit.md",
            title="Orbits",
            text="GEO is high.",
        ),
        make_hit(
            chunk_id="c3", ordinal=1, start=20, end=40, text="Llamas drink little.", score=0.5
        ),
    ]


@pytest.fixture
def acting() -> Iterator[Caller]:
    """Who asks, for what is called past the application."""
    who = Caller(name="test", tenant="acme")
    with acting_as(who):
        yield who


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def reader(hits: list[Hit]) -> FakeReader:
    return FakeReader(hits)


@pytest.fixture
def writer() -> FakeWriter:
    return FakeWriter()


@pytest.fixture
def run(writer: FakeWriter, encoder: FakeEncoder) -> RunOnce:
    return run_with(writer, encoder)


@pytest.fixture
def upstream() -> FakeUpstream:
    return FakeUpstream("org/model-a")


@pytest.fixture
def settings() -> GatewaySettings:
    return GatewaySettings()


@pytest.fixture
def client(
    upstream: FakeUpstream, reader: FakeReader, encoder: FakeEncoder
) -> Iterator[TestClient[Any]]:
    """The application, started and ready."""
    settings = GatewaySettings(max_body_bytes=2000, tenant="acme")
    app = create_app(settings, servers=[upstream], reader=reader, load_encoder=lambda: encoder)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        ends = time.monotonic() + 10
        while client.get("/health/ready").status_code != 200:
            assert time.monotonic() < ends
        yield client


@pytest.fixture
def answer(upstream: FakeUpstream) -> FakeAnswer:
    """The next answer of vLLM, a whole one; a test may give it other pieces."""
    answer = FakeAnswer([COMPLETION])
    upstream.answers.append(answer)
    return answer
