"""Fakes of what stands at the edges: vLLM, Milvus and the embedding model. They share the real
interfaces, and each remembers what it was asked."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from litestar.testing import TestClient

from gateway.app import create_app
from gateway.settings import GatewaySettings
from gateway.upstream import ServedModel, Upstream, UpstreamAnswer
from indexer.index.collection import Generation, IndexReader, IndexWriter, StoredChunk
from indexer.index.embedding import Vectors
from indexer.index.errors import IndexUnavailable
from indexer.index.records import Chunk, EncoderIdentity, Fingerprint, Hit

COMPLETION = b'{"id":"c","choices":[{"index":0,"message":{"content":"Grass [1]."}}]}'

IDENTITY = EncoderIdentity(
    model="fake",
    revision="1",
    dimension=4,
    pooling="mean",
    normalised=True,
    query_prefix="query: ",
    passage_prefix="",
)


class FakeEncoder:
    """Derives a vector from the digest of a text: the same text, the same vector."""

    def __init__(self, identity: EncoderIdentity = IDENTITY) -> None:
        self.identity = identity
        self.calls: list[list[str]] = []
        self.failure: Exception | None = None

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return self._encode([self.identity.query_prefix + text for text in texts])

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        return self._encode([self.identity.passage_prefix + text for text in texts])

    def _encode(self, texts: list[str]) -> Vectors:
        self.calls.append(texts)
        if self.failure is not None:
            raise self.failure
        digests = [
            hashlib.sha256(text.encode()).digest()[: self.identity.dimension] for text in texts
        ]
        vectors = np.array([list(digest) for digest in digests], dtype=np.float32) + 1
        unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


class FakeReader(IndexReader):
    """A published generation with a fixed answer to every search."""

    def __init__(self, hits: Sequence[Hit]) -> None:
        self.hits = list(hits)
        self.generation = Generation("documents__g1", Fingerprint(encoder=IDENTITY, chunker="c"))
        self.failure: Exception | None = None
        """Raised by every call while it is set."""
        self.search_failures: list[Exception] = []
        """Raised by the next searches, one each."""
        self.searches: list[tuple[str, tuple[int, ...], str, int]] = []
        """Collection, shape of the vectors, tenant and limit of each search."""
        self.closed = 0

    async def published(self) -> Generation:
        if self.failure is not None:
            raise self.failure
        return self.generation

    async def search(
        self, generation: Generation, vectors: Vectors, *, tenant: str, limit: int
    ) -> list[list[Hit]]:
        self.searches.append((generation.collection, vectors.shape, tenant, limit))
        if self.search_failures:
            raise self.search_failures.pop(0)
        if self.failure is not None:
            raise self.failure
        return [self.hits[:limit] for _ in vectors]

    async def close(self) -> None:
        self.closed += 1


class FakeAnswer(UpstreamAnswer):
    """An answer that arrives in given pieces and then ends, or breaks off with `failure`."""

    def __init__(self, pieces: Sequence[bytes], failure: Exception | None = None) -> None:
        self.pieces = list(pieces)
        self.failure = failure
        self.closed = 0

    async def chunks(self) -> AsyncIterator[bytes]:
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
        self.failure: Exception | None = None
        """Raised when asked for models, while it is set."""
        self.answers: list[FakeAnswer | Exception] = []
        self.posted: list[tuple[str, bytes]] = []
        self.asked = 0
        self.was_asked = asyncio.Event()
        self.closed = 0

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


class FakeWriter(IndexWriter):
    """Collections in memory. `calls` tells in which order it was asked for what."""

    def __init__(self) -> None:
        self.collections: dict[str, dict[str, Chunk]] = {}
        self.fingerprints: dict[str, Fingerprint] = {}
        self.alias: str | None = None
        self.calls: list[str] = []
        self.upserted: list[list[str]] = []
        """Keys of the chunks of each upsert."""
        self.fail_at_upsert: int | None = None

    def published(self) -> Generation | None:
        return self.generation(self.alias) if self.alias else None

    def generation(self, collection: str) -> Generation:
        return Generation(collection, self.fingerprints[collection])

    def create(self, fingerprint: Fingerprint) -> Generation:
        self.calls.append("create")
        collection = f"kb__g{len(self.fingerprints) + 1}"
        self.collections[collection] = {}
        self.fingerprints[collection] = fingerprint
        return self.generation(collection)

    def publish(self, generation: Generation) -> None:
        self.calls.append("publish")
        self.alias = generation.collection

    def drop_unpublished(self) -> None:
        self.calls.append("drop_unpublished")
        self.collections = {
            name: rows for name, rows in self.collections.items() if name == self.alias
        }

    def holds_other_tenants(self, generation: Generation) -> bool:
        return len({row.tenant for row in self.collections[generation.collection].values()}) > 1

    def stored_chunks(self, generation: Generation) -> Iterator[StoredChunk]:
        for row in list(self.collections[generation.collection].values()):
            yield StoredChunk(row.chunk_id, row.document_id, row.document_hash, row.chunk_count)

    def upsert(self, generation: Generation, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        if len(self.upserted) == self.fail_at_upsert:
            raise IndexUnavailable("Milvus went away")
        self.calls.append("upsert")
        assert vectors.shape == (len(chunks), IDENTITY.dimension)
        self.upserted.append([chunk.chunk_id for chunk in chunks])
        self.collections[generation.collection] |= {chunk.chunk_id: chunk for chunk in chunks}

    def delete(self, generation: Generation, chunk_ids: Sequence[str]) -> None:
        self.calls.append("delete")
        for chunk_id in chunk_ids:
            del self.collections[generation.collection][chunk_id]

    def flush(self, generation: Generation) -> None:
        assert generation.collection in self.collections
        self.calls.append("flush")

    def close(self) -> None:
        self.calls.append("close")

    def rows(self) -> list[Chunk]:
        """What readers see, in the order of documents."""
        assert self.alias is not None
        rows = self.collections[self.alias].values()
        return sorted(rows, key=lambda row: (row.source, row.ordinal))

    def texts(self) -> list[str]:
        return [row.text for row in self.rows()]


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
        make_hit(chunk_id="c2", source="docs/orbit.md", title="Orbits", text="GEO is high."),
        make_hit(chunk_id="c3", text="Llamas drink little.", score=0.5),
    ]


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
    app = create_app(settings, upstream=upstream, reader=reader, load_encoder=lambda: encoder)
    with TestClient(app) as client:
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
