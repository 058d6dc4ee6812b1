"""Finds chunks: the gateway's side."""

from collections.abc import Sequence
from typing import Any

import msgspec
from pymilvus import AsyncMilvusClient

from indexer.index.collection.failures import translated_async_errors
from indexer.index.collection.generation import GRPC_OPTIONS, Generation, described_generation
from indexer.index.embedding import Vectors
from indexer.index.errors import FingerprintMismatch
from indexer.index.filters import equals
from indexer.index.records import SCHEMA_VERSION, Hit
from indexer.index.settings import IndexSettings

_HIT_FIELDS = [field for field in Hit.__struct_fields__ if field not in ("chunk_id", "score")]


class IndexReader:
    """Finds chunks. Every call is limited by the configured timeout.

    Each method raises IndexUnavailable, KnowledgeBaseMissing or IndexRefused.
    """

    def __init__(self, settings: IndexSettings) -> None:
        self._name = settings.knowledge_base
        self._timeout_s = settings.milvus_timeout_s
        self._client = AsyncMilvusClient(
            settings.milvus_uri,
            token=settings.milvus_token.get_secret_value(),
            timeout=settings.milvus_timeout_s,
            grpc_options=GRPC_OPTIONS,
        )

    async def published(self) -> Generation:
        """The generation that readers should use now, loaded. Also raises FingerprintMismatch."""
        with translated_async_errors():
            alias = await self._client.describe_alias(self._name, timeout=self._timeout_s)
            collection = alias["collection_name"]
            # A restarted Milvus Lite knows its collections but has not loaded them.
            await self._client.load_collection(collection, timeout=self._timeout_s)
            described = await self._client.describe_collection(collection, timeout=self._timeout_s)
        generation = described_generation(described)
        if generation.fingerprint.schema_version != SCHEMA_VERSION:
            raise FingerprintMismatch(
                f"{collection!r} was stored by another version of Groundserve: run the indexer of "
                "this version"
            )
        return generation

    async def search(
        self, generation: Generation, vectors: Vectors, *, tenant: str, limit: int
    ) -> list[list[Hit]]:
        """The `limit` nearest chunks of `tenant` for each row of `vectors`, best first.

        Of a document that is being replaced at this moment the hits are those of one version,
        the new one; then more are fetched, so that the old ones take nobody's place.
        """
        found = await self._nearest(generation, vectors, tenant, limit)
        current = [_of_one_version(rows) for rows in found]
        if any(len(kept) < len(rows) for kept, rows in zip(current, found, strict=True)):
            found = await self._nearest(generation, vectors, tenant, 2 * limit)
            current = [_of_one_version(rows)[:limit] for rows in found]
        return [[_hit(row) for row in rows] for rows in current]

    async def _nearest(
        self, generation: Generation, vectors: Vectors, tenant: str, limit: int
    ) -> Sequence[Sequence[Any]]:
        with translated_async_errors():
            found: Sequence[Sequence[Any]] = await self._client.search(
                generation.collection,
                data=list(vectors),
                anns_field="dense",
                filter=equals("tenant", tenant),
                limit=limit,
                output_fields=[*_HIT_FIELDS, "document_hash", "run"],
                timeout=self._timeout_s,
            )
        return found

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()


def _of_one_version(rows: Sequence[Any]) -> list[Any]:
    """Without the rows of a version of a document that a later run has replaced."""
    versions = [
        (row["entity"]["document_id"], (row["entity"]["run"], row["entity"]["document_hash"]))
        for row in rows
    ]
    newest = dict(sorted(versions))
    return [
        row
        for row, (document, version) in zip(rows, versions, strict=True)
        if version == newest[document]
    ]


def _hit(row: Any) -> Hit:
    fields = {name: row["entity"][name] for name in _HIT_FIELDS}
    return msgspec.convert({"chunk_id": row["chunk_id"], "score": row["distance"], **fields}, Hit)
