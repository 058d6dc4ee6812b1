"""Finds chunks: the gateway's side."""

from typing import Any

import msgspec
from pymilvus import AsyncMilvusClient

from indexer.index.collection.failures import translated_async_errors
from indexer.index.collection.generation import GRPC_OPTIONS, Generation, described_generation
from indexer.index.embedding import Vectors
from indexer.index.filters import equals
from indexer.index.records import Hit
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
        """The generation that readers should use now, loaded."""
        with translated_async_errors():
            alias = await self._client.describe_alias(self._name, timeout=self._timeout_s)
            collection = alias["collection_name"]
            # A restarted Milvus Lite knows its collections but has not loaded them.
            await self._client.load_collection(collection, timeout=self._timeout_s)
            described = await self._client.describe_collection(collection, timeout=self._timeout_s)
        return described_generation(described)

    async def search(
        self, generation: Generation, vectors: Vectors, *, tenant: str, limit: int
    ) -> list[list[Hit]]:
        """The `limit` nearest chunks of `tenant` for each row of `vectors`, best first."""
        with translated_async_errors():
            found = await self._client.search(
                generation.collection,
                data=list(vectors),
                anns_field="dense",
                filter=equals("tenant", tenant),
                limit=limit,
                output_fields=_HIT_FIELDS,
                timeout=self._timeout_s,
            )
        return [[_hit(row) for row in rows] for rows in found]

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()


def _hit(row: Any) -> Hit:
    return msgspec.convert(
        {"chunk_id": row["chunk_id"], "score": row["distance"], **row["entity"]}, Hit
    )
