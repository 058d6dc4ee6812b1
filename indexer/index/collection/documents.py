"""Reads documents of a generation: for who lists them or reads one, not for who searches."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from pymilvus import AsyncMilvusClient

from indexer.index.collection.failures import answered_within
from indexer.index.collection.generation import Generation
from indexer.index.errors import IndexUnavailable
from indexer.index.filters import between, equals, following

CHUNKS_AT_ONCE = 200
MOST_VERSIONS = 100
"""Of one document that are stored at the same moment: it is being replaced."""
# Only with these does Milvus give rows in the order of their keys, and each once.
_IN_ORDER = {"iterator": "True", "reduce_stop_for_best": "True"}
_FIRST_CHUNK = "(ordinal == 0)"


class DocumentEntry(msgspec.Struct, frozen=True):
    """What is known of a document from its first chunk."""

    document_id: str
    chunk_id: str
    """Of its first chunk: documents are listed in the order of these."""
    document_hash: str
    run: int
    source: str
    title: str
    chunk_count: int
    attributes: dict[str, Any]


class Documents:
    """The documents of a generation. Each method raises IndexUnavailable or IndexRefused."""

    lists_documents = True
    """Whether the rows tell which document they are of, and where they stand in it."""

    def __init__(self, client: AsyncMilvusClient, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s

    async def count_documents(self, generation: Generation, tenant: str) -> int:
        """How many documents `tenant` has."""
        rows = f"{equals('tenant', tenant)} and {_FIRST_CHUNK}"
        async with answered_within(self._timeout_s):
            [counted] = await self._client.query(
                generation.collection,
                filter=rows,
                output_fields=["count(*)"],
                timeout=self._timeout_s,
            )
        return int(counted["count(*)"])

    async def documents(
        self, generation: Generation, tenant: str, limit: int, after: str = ""
    ) -> list[DocumentEntry]:
        """Up to `limit` documents whose first chunks have keys behind `after`, in their order."""
        rows = f"{equals('tenant', tenant)} and {_FIRST_CHUNK} and {following('chunk_id', after)}"
        found = await self._rows(generation, rows, DocumentEntry.__struct_fields__, limit)
        return [msgspec.convert(row, DocumentEntry) for row in found]

    async def document(
        self, generation: Generation, tenant: str, document_id: str
    ) -> DocumentEntry | None:
        """The newest version of a document; None where there is none."""
        rows = " and ".join(
            [equals("tenant", tenant), equals("document_id", document_id), _FIRST_CHUNK]
        )
        found = await self._rows(generation, rows, DocumentEntry.__struct_fields__, MOST_VERSIONS)
        versions = [msgspec.convert(row, DocumentEntry) for row in found]
        return max(versions, key=lambda version: version.run, default=None)

    async def texts(
        self, generation: Generation, tenant: str, document: DocumentEntry
    ) -> AsyncIterator[str]:
        """The text of a document in pieces; what chunks have in common is in it once.

        Raises IndexUnavailable also where the document is being replaced.
        """
        end = 0
        for first in range(0, document.chunk_count, CHUNKS_AT_ONCE):
            last = min(first + CHUNKS_AT_ONCE, document.chunk_count) - 1
            rows = " and ".join(
                [
                    equals("tenant", tenant),
                    equals("document_id", document.document_id),
                    equals("document_hash", document.document_hash),
                    between("ordinal", first, last),
                ]
            )
            found = await self._rows(
                generation, rows, ("ordinal", "start", "end", "text"), 2 * CHUNKS_AT_ONCE
            )
            chunks = {row["ordinal"]: row for row in found}
            if len(chunks) != last - first + 1:
                raise IndexUnavailable(
                    f"document {document.document_id!r} is being replaced at this moment"
                )
            piece = ""
            for _, row in sorted(chunks.items()):
                # A chunk has no blank edges: what is missing between two of them is blank.
                piece += "\n" * min(2, max(0, row["start"] - end)) if end else ""
                piece += row["text"][max(0, end - row["start"]) :]
                end = max(end, row["end"])
            yield piece

    async def _rows(
        self, generation: Generation, rows: str, fields: tuple[str, ...], limit: int
    ) -> list[dict[str, Any]]:
        async with answered_within(self._timeout_s):
            found = await self._client.query(
                generation.collection,
                filter=rows,
                output_fields=list(fields),
                limit=limit,
                timeout=self._timeout_s,
                **_IN_ORDER,
            )
        return [dict(row) for row in found]
