"""Makes generations, fills them and publishes them: the indexer's side.

Every method that changes something needs the lease, and asks it before each call to Milvus.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec
from pymilvus import MilvusClient

from indexer.index.attributes import columns
from indexer.index.collection.connecting import connection
from indexer.index.collection.contents import ROWS_AT_ONCE, Contents
from indexer.index.collection.failures import translated_errors
from indexer.index.collection.generation import (
    Generation,
    RunRecord,
    described_generation,
    fingerprint_property,
    last_run_property,
    schema,
)
from indexer.index.collection.lease import Lease, LeaseRecord, numbered, read_lease
from indexer.index.collection.rows import Rows
from indexer.index.embedding import Vectors
from indexer.index.errors import KnowledgeBaseMissing, LeaseLost
from indexer.index.filters import below, one_of
from indexer.index.records import Chunk, Fingerprint
from indexer.index.settings import IndexSettings

BM25 = {"bm25_k1": 1.2, "bm25_b": 0.75}
"""What Robertson and Zaragoza recommend; on SciFact better than Anserini's 0.9 and 0.4."""
FLUSH_TIMEOUT_S = 300.0


class IndexWriter(Contents):
    """Makes generations, fills them and publishes them.

    The constructor and each method raise IndexUnavailable or IndexRefused, and what changes
    something raises LeaseLost.
    """

    def __init__(self, settings: IndexSettings) -> None:
        self._name = settings.knowledge_base
        self._lease: Lease | None = None
        with translated_errors():
            client = MilvusClient(**connection(settings))
        super().__init__(client, settings.milvus_timeout_s)

    @contextmanager
    def lease(self, duration_s: float) -> Iterator[Lease]:
        """Be the one writer of the knowledge base. Raises LeaseHeld when another one is."""
        self._lease = Lease(
            self._client, self._name, duration_s=duration_s, timeout_s=self._timeout_s
        )
        try:
            yield self._lease
        finally:
            self._lease.release()
            self._lease = None

    def check_lease(self) -> None:
        """Raises LeaseLost where this writer may not write."""
        self._held()

    def leases(self) -> list[LeaseRecord]:
        """The lease of the last run and, for a moment, of the one that takes it over."""
        found = (
            read_lease(self._client, f"{self._name}__lease_{number}", self._timeout_s)
            for number in numbered(self._collections(), f"{self._name}__lease_")
        )
        return [record for record in found if record is not None]

    def published(self) -> Generation | None:
        """The generation that readers use now, loaded; None where nothing was ever published."""
        collection = self._published()
        return None if collection is None else self._opened(collection)

    def generations(self) -> list[Generation]:
        """Every generation of the knowledge base, oldest first, loaded."""
        names = self._collections()
        prefix = f"{self._name}__g"
        return [self._opened(f"{prefix}{number}") for number in numbered(names, prefix)]

    def create(self, fingerprint: Fingerprint) -> Generation:
        """A new, empty generation of this run, that no reader sees yet."""
        index = MilvusClient.prepare_index_params()
        index.add_index("dense", index_type="AUTOINDEX", metric_type=fingerprint.metric)
        index.add_index(
            "sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25", params=BM25
        )
        for field in ("document_id", "chunk_hash", *columns(fingerprint.attributes).values()):
            index.add_index(field, index_type="INVERTED")
        collection = f"{self._name}__g{self._held().run}"
        with translated_errors():
            self._client.create_collection(
                collection,
                schema=schema(fingerprint),
                index_params=index,
                properties=fingerprint_property(fingerprint),
                timeout=self._timeout_s,
            )
        return Generation(collection, fingerprint)

    def adopt(self, generation: Generation) -> Generation:
        """Make a generation that a dead run was building this run's own.

        It gets another name, so that the run which is thought dead cannot publish it.
        """
        collection = f"{self._name}__g{self._held().run}"
        with translated_errors():
            self._client.rename_collection(
                generation.collection, collection, timeout=self._timeout_s
            )
        return msgspec.structs.replace(self._opened(collection), last_run=None)

    def record(self, generation: Generation, record: RunRecord) -> None:
        """Leave written on `generation` that a run has completed it."""
        self._held()
        with translated_errors():
            self._client.alter_collection_properties(
                generation.collection, last_run_property(record), timeout=self._timeout_s
            )

    def publish(self, generation: Generation) -> None:
        """Point the knowledge base's name at `generation`, in one step for every reader."""
        published = self.published()
        move = self._client.create_alias if published is None else self._client.alter_alias
        self._held()
        with translated_errors():
            move(generation.collection, self._name, timeout=self._timeout_s)

    def drop(self, generation: Generation) -> None:
        """Drop a generation that nobody reads."""
        self._held()
        with translated_errors():
            self._client.drop_collection(generation.collection, timeout=self._timeout_s)

    def remove(self) -> None:
        """Drop the name, then every generation, then the leases: nothing is left of it."""
        self._held()
        with translated_errors():
            if self._published() is not None:
                self._client.drop_alias(self._name, timeout=self._timeout_s)
            for kind in ("g", "lease_"):
                prefix = f"{self._name}__{kind}"
                for number in numbered(self._collections(), prefix):
                    self._held()
                    self._client.drop_collection(f"{prefix}{number}", timeout=self._timeout_s)

    def upsert(self, generation: Generation, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Write `chunks` with their `vectors`, shape (len(chunks), dimension)."""
        rows = list(Rows(generation)(chunks, vectors))
        self._held()
        with translated_errors():
            self._client.upsert(generation.collection, rows, timeout=self._timeout_s)

    def delete_older(self, generation: Generation, document_ids: Sequence[str]) -> None:
        """Remove what earlier runs wrote of these documents."""
        earlier = below("run", self._held().run)
        self._delete(generation, f"{one_of('document_id', document_ids)} and {earlier}")

    def delete_documents(self, generation: Generation, document_ids: Sequence[str]) -> None:
        """Remove these documents."""
        for first in range(0, len(document_ids), ROWS_AT_ONCE):
            gone = document_ids[first : first + ROWS_AT_ONCE]
            self._delete(generation, one_of("document_id", gone))

    def delete_tenant(self, generation: Generation, tenant: str) -> None:
        """Remove every row of `tenant`."""
        self._delete(generation, one_of("tenant", [tenant]))

    def flush(self, generation: Generation) -> None:
        """Seal what was written. Without it Milvus Lite indexes the new rows at every search."""
        self._held()
        with translated_errors():
            self._client.flush(generation.collection, timeout=max(self._timeout_s, FLUSH_TIMEOUT_S))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _held(self) -> Lease:
        if self._lease is None:
            raise LeaseLost("nothing is changed without the lease")
        self._lease.check()
        return self._lease

    def _delete(self, generation: Generation, rows: str) -> None:
        self._held()
        with translated_errors():
            self._client.delete(
                generation.collection,
                filter=rows,
                consistency_level="Strong",
                timeout=self._timeout_s,
            )

    def _published(self) -> str | None:
        """The collection that the name stands for."""
        try:
            with translated_errors():
                alias = self._client.describe_alias(self._name, timeout=self._timeout_s)
        except KnowledgeBaseMissing:
            return None
        return str(alias["collection_name"])

    def _opened(self, collection: str) -> Generation:
        """A collection as a generation, loaded: a restarted Milvus Lite has not loaded it."""
        with translated_errors():
            self._client.load_collection(collection, timeout=self._timeout_s)
            return described_generation(
                self._client.describe_collection(collection, timeout=self._timeout_s)
            )

    def _collections(self) -> list[str]:
        with translated_errors():
            return list(self._client.list_collections(timeout=self._timeout_s))
