"""Makes generations, fills them and publishes them: the indexer's side."""

import re
from collections.abc import Iterator, Sequence

import msgspec
from pymilvus import MilvusClient

from indexer.index.collection.failures import translated_errors
from indexer.index.collection.generation import (
    GRPC_OPTIONS,
    Generation,
    described_generation,
    properties,
    schema,
)
from indexer.index.embedding import Vectors
from indexer.index.errors import KnowledgeBaseMissing
from indexer.index.filters import differs, equals, one_of
from indexer.index.records import Chunk, Fingerprint
from indexer.index.settings import IndexSettings


class StoredChunk(msgspec.Struct, frozen=True):
    """What a run compares with its sources, for one row."""

    chunk_id: str
    document_id: str
    document_hash: str
    chunk_count: int


class IndexWriter:
    """Makes generations, fills them and publishes them.

    The constructor and each method raise IndexUnavailable or IndexRefused.
    """

    def __init__(self, settings: IndexSettings) -> None:
        self._name = settings.knowledge_base
        self._tenant = settings.tenant
        self._timeout_s = settings.milvus_timeout_s
        with translated_errors():
            self._client = MilvusClient(
                settings.milvus_uri,
                token=settings.milvus_token.get_secret_value(),
                timeout=settings.milvus_timeout_s,
                grpc_options=GRPC_OPTIONS,
            )

    def published(self) -> Generation | None:
        """The generation that readers use now, loaded; None where nothing was ever published."""
        try:
            with translated_errors():
                alias = self._client.describe_alias(self._name, timeout=self._timeout_s)
        except KnowledgeBaseMissing:
            return None
        with translated_errors():
            collection = alias["collection_name"]
            self._client.load_collection(collection, timeout=self._timeout_s)
            return described_generation(
                self._client.describe_collection(collection, timeout=self._timeout_s)
            )

    def create(self, fingerprint: Fingerprint) -> Generation:
        """A new, empty generation that no reader sees yet."""
        collection = f"{self._name}__g{max(self._generation_numbers(), default=0) + 1}"
        index = MilvusClient.prepare_index_params()
        index.add_index("dense", index_type="AUTOINDEX", metric_type=fingerprint.metric)
        index.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
        with translated_errors():
            self._client.create_collection(
                collection,
                schema=schema(fingerprint.encoder.dimension),
                index_params=index,
                properties=properties(fingerprint),
                timeout=self._timeout_s,
            )
        return Generation(collection, fingerprint)

    def publish(self, generation: Generation) -> None:
        """Point the knowledge base's name at `generation`, in one step for every reader."""
        with translated_errors():
            if self.published() is None:
                self._client.create_alias(
                    generation.collection, self._name, timeout=self._timeout_s
                )
            else:
                self._client.alter_alias(generation.collection, self._name, timeout=self._timeout_s)

    def drop_unpublished(self) -> None:
        """Drop every generation of this knowledge base but the published one."""
        published = self.published()
        for number in self._generation_numbers():
            collection = f"{self._name}__g{number}"
            if published is None or collection != published.collection:
                with translated_errors():
                    self._client.drop_collection(collection, timeout=self._timeout_s)

    def stored_chunks(self, generation: Generation) -> Iterator[StoredChunk]:
        """Every row of this tenant, in no particular order."""
        with translated_errors():
            pages = self._client.query_iterator(
                generation.collection,
                batch_size=1000,
                filter=equals("tenant", self._tenant),
                output_fields=list(StoredChunk.__struct_fields__),
                consistency_level="Strong",
                timeout=self._timeout_s,
            )
            try:
                while page := pages.next():
                    yield from (msgspec.convert(row, StoredChunk) for row in page)
            finally:
                pages.close()

    def holds_other_tenants(self, generation: Generation) -> bool:
        """Whether any row belongs to another tenant than this one."""
        with translated_errors():
            found = self._client.query(
                generation.collection,
                filter=differs("tenant", self._tenant),
                output_fields=["chunk_id"],
                limit=1,
                consistency_level="Strong",
                timeout=self._timeout_s,
            )
        return bool(found)

    def upsert(self, generation: Generation, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Write `chunks` with their `vectors`, shape (len(chunks), dimension)."""
        rows = [
            {**msgspec.structs.asdict(chunk), "dense": vector}
            for chunk, vector in zip(chunks, vectors, strict=True)
        ]
        with translated_errors():
            self._client.upsert(generation.collection, rows, timeout=self._timeout_s)

    def delete(self, generation: Generation, chunk_ids: Sequence[str]) -> None:
        """Remove the rows with these keys."""
        with translated_errors():
            self._client.delete(
                generation.collection, filter=one_of("chunk_id", chunk_ids), timeout=self._timeout_s
            )

    def flush(self, generation: Generation) -> None:
        """Seal what was written. Without it Milvus Lite indexes the new rows at every search."""
        with translated_errors():
            self._client.flush(generation.collection, timeout=max(self._timeout_s, 60.0))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _generation_numbers(self) -> list[int]:
        pattern = re.compile(re.escape(self._name) + r"__g(\d+)")
        with translated_errors():
            names = self._client.list_collections(timeout=self._timeout_s)
        return [int(match[1]) for name in names if (match := pattern.fullmatch(name))]
