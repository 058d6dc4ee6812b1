"""Fakes of Milvus and the embedding model, as the indexer meets them. They share the real
interfaces, and each remembers what it was asked."""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from indexer.chunking import Chunker, ChunkerSettings
from indexer.documents import Content, SourceDocument
from indexer.errors import DocumentUnusable
from indexer.index.collection import (
    Generation,
    IndexWriter,
    LeaseRecord,
    RunRecord,
    StoredChunk,
    StoredRow,
)
from indexer.index.embedding import Vectors
from indexer.index.errors import IndexUnavailable, TokensInvalid
from indexer.index.passages import passage
from indexer.index.records import Chunk, EncoderIdentity, Fingerprint
from indexer.preparation import Preparation, Prepared
from indexer.work import Tools

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

    tokenizer = ""
    max_tokens = 0

    def __init__(self, identity: EncoderIdentity = IDENTITY) -> None:
        self.identity = identity
        self.calls: list[list[str]] = []
        self.failure: Exception | None = None

    def close(self) -> None:
        pass

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return self._encode([self.identity.query_prefix + text for text in texts])

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        return self._encode([self.identity.passage_prefix + text for text in texts])

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        return self._encode(list(texts))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Its words, and one that begins them."""
        return [1 + len(text.split()) for text in texts]

    def decode(self, arrays: Sequence[Sequence[int]]) -> list[str]:
        """The id 7 is the word "w7"; there are 100."""
        for place, ids in enumerate(arrays):
            if max(ids) >= 100:
                raise TokensInvalid(f"{max(ids)} is no token id", place)
        return [" ".join(f"w{each}" for each in ids) for ids in arrays]

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


class FakeLease:
    """A lease that is always held."""

    def __init__(self, run: int) -> None:
        self.run = run


class FakeWriter(IndexWriter):
    """Collections in memory. `calls` tells in which order it was asked to change what."""

    def __init__(self) -> None:
        self.collections: dict[str, dict[str, tuple[Chunk, NDArray[np.float32]]]] = {}
        self.described: dict[str, Generation] = {}
        self.alias: str | None = None
        self.calls: list[str] = []
        self.upserted: list[list[str]] = []
        """Keys of the chunks of each upsert."""
        self.looked_up: list[int] = []
        """How many vectors were asked for, each time."""
        self.fail_at_upsert: int | None = None
        self.runs = 0

    @contextmanager
    def lease(self, duration_s: float) -> Iterator[Any]:  # noqa: ARG002  # of the interface
        self.runs += 1
        yield FakeLease(self.runs)

    def leases(self) -> list[LeaseRecord]:
        return []

    def published(self) -> Generation | None:
        return self.described[self.alias] if self.alias else None

    def generations(self) -> list[Generation]:
        return sorted(self.described.values(), key=lambda generation: generation.number)

    def create(self, fingerprint: Fingerprint) -> Generation:
        self.calls.append("create")
        generation = Generation(f"kb__g{self.runs}", fingerprint)
        self.collections[generation.collection] = {}
        self.described[generation.collection] = generation
        return generation

    def adopt(self, generation: Generation) -> Generation:
        self.calls.append("adopt")
        adopted = Generation(f"kb__g{self.runs}", generation.fingerprint)
        del self.described[generation.collection]
        self.described[adopted.collection] = adopted
        self.collections[adopted.collection] = self.collections.pop(generation.collection)
        return adopted

    def record(self, generation: Generation, record: RunRecord) -> None:
        self.calls.append("record")
        self.described[generation.collection] = msgspec.structs.replace(
            self.described[generation.collection], last_run=record
        )

    def publish(self, generation: Generation) -> None:
        self.calls.append("publish")
        assert generation.collection in self.collections
        self.alias = generation.collection

    def drop(self, generation: Generation) -> None:
        self.calls.append("drop")
        assert generation.collection != self.alias
        del self.collections[generation.collection]
        del self.described[generation.collection]

    def stored_chunks(
        self, generation: Generation, tenants: Collection[str]
    ) -> Iterator[StoredChunk]:
        for row in self.stored_rows(generation, tenants):
            known = msgspec.structs.asdict(row.chunk)
            yield StoredChunk(**{name: known[name] for name in StoredChunk.__struct_fields__})

    def stored_rows(self, generation: Generation, tenants: Collection[str]) -> Iterator[StoredRow]:
        for chunk, vector in list(self.collections[generation.collection].values()):
            if chunk.tenant in tenants:
                yield StoredRow(chunk, vector)

    def tenants(self, generation: Generation) -> dict[str, int]:
        found = [chunk.tenant for chunk, _ in self.collections[generation.collection].values()]
        return {tenant: found.count(tenant) for tenant in found}

    def has_other_tenants(self, generation: Generation, tenants: Collection[str]) -> bool:
        return not self.tenants(generation).keys() <= set(tenants)

    def count(self, generation: Generation, tenants: Collection[str]) -> tuple[int, int]:
        rows = list(self.stored_rows(generation, tenants))
        return sum(row.chunk.ordinal == 0 for row in rows), len(rows)

    def vectors(
        self, generation: Generation, hashes: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        self.looked_up.append(len(hashes))
        return {
            chunk.chunk_hash: vector
            # A copy: the pipeline looks up and writes at the same time.
            for chunk, vector in list(self.collections[generation.collection].values())
            if chunk.chunk_hash in hashes
        }

    def upsert(self, generation: Generation, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        if len(self.upserted) == self.fail_at_upsert:
            raise IndexUnavailable("Milvus went away")
        self.calls.append("upsert")
        assert vectors.shape == (len(chunks), IDENTITY.dimension)
        self.upserted.append([chunk.chunk_id for chunk in chunks])
        self.collections[generation.collection] |= {
            chunk.chunk_id: (chunk, vector) for chunk, vector in zip(chunks, vectors, strict=True)
        }

    def delete_older(self, generation: Generation, document_ids: Sequence[str]) -> None:
        self.calls.append("delete_older")
        self._keep(
            generation,
            lambda chunk: chunk.document_id not in document_ids or chunk.run >= self.runs,
        )

    def delete_documents(self, generation: Generation, document_ids: Sequence[str]) -> None:
        if document_ids:
            self.calls.append("delete_documents")
            self._keep(generation, lambda chunk: chunk.document_id not in document_ids)

    def delete_tenant(self, generation: Generation, tenant: str) -> None:
        self.calls.append("delete_tenant")
        self._keep(generation, lambda chunk: chunk.tenant != tenant)

    def flush(self, generation: Generation) -> None:
        assert generation.collection in self.collections
        self.calls.append("flush")

    def close(self) -> None:
        self.calls.append("close")

    def rows(self) -> list[Chunk]:
        """What readers see, in the order of documents."""
        assert self.alias is not None
        rows = [chunk for chunk, _ in self.collections[self.alias].values()]
        return sorted(rows, key=lambda row: (row.tenant, row.source, row.ordinal))

    def texts(self) -> list[str]:
        return [row.text for row in self.rows()]

    def _keep(self, generation: Generation, is_kept: Any) -> None:
        rows = self.collections[generation.collection]
        self.collections[generation.collection] = {
            key: row for key, row in rows.items() if is_kept(row[0])
        }


class InThisProcess:
    """Prepares documents at once, where the worker processes are not what is tested."""

    def __init__(self, settings: ChunkerSettings) -> None:
        self._prepare = Preparation(settings)
        self.prepared = 0

    def submit(self, content: Content) -> "Future[Prepared]":
        self.prepared += 1
        future: Future[Prepared] = Future()
        try:
            future.set_result(self._prepare(content))
        except DocumentUnusable as exc:
            future.set_exception(exc)
        return future


class FakeDocument(msgspec.Struct, frozen=True):
    """A document that is what it is given: text, a failure, or a version that did not change."""

    name: str
    text: str = ""
    tenant: str = "default"
    failure: DocumentUnusable | None = None
    version: str = ""
    title: str = ""

    @property
    def uri(self) -> str:
        return f"fake:///{self.name}"

    def read(self, known_version: str = "") -> Content | None:
        if self.failure is not None:
            raise self.failure
        if known_version and known_version == self.version:
            return None
        data = self.text.encode()
        return Content(data=data, format=".md", version=self.version, title=self.title)


class FakeDocuments(list[SourceDocument]):
    """A list of documents, and of sources that could not be listed."""

    def __init__(
        self, documents: Sequence[SourceDocument], failures: Sequence[tuple[str, str]] = ()
    ) -> None:
        super().__init__(documents)
        self.failures = list(failures)


def tools(writer: IndexWriter, encoder: FakeEncoder, *, size: int = 64) -> Tools:
    """Tools that cut chunks of `size` characters without overlap."""
    settings = ChunkerSettings(size=size, overlap_percent=0)
    return Tools(
        writer=writer,
        encoder=encoder,
        workers=InThisProcess(settings),
        passage=passage,
        fingerprint=Fingerprint(encoder=encoder.identity, chunker=Chunker(settings).description),
    )
