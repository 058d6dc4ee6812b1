"""Reads what a generation holds, row by row: what a run compares with its sources."""

from collections.abc import Collection, Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from pymilvus import MilvusClient

from indexer.index.collection.failures import translated_errors
from indexer.index.collection.generation import Generation
from indexer.index.collection.stored import StoredChunk, StoredRow
from indexer.index.filters import one_of
from indexer.index.records import Chunk

ROWS_AT_ONCE = 1000


class Contents:
    """What is stored. Each method raises IndexUnavailable or IndexRefused."""

    def __init__(self, client: MilvusClient, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s

    def stored_chunks(
        self, generation: Generation, tenants: Collection[str]
    ) -> Iterator[StoredChunk]:
        """Every row of these tenants, in no particular order."""
        fields = list(StoredChunk.__struct_fields__)
        for row in self._rows(generation, one_of("tenant", tenants), fields):
            yield msgspec.convert(row, StoredChunk)

    def stored_rows(self, generation: Generation, tenants: Collection[str]) -> Iterator[StoredRow]:
        """Every row of these tenants with all that is in it, in no particular order."""
        fields = [*Chunk.__struct_fields__, "dense"]
        for row in self._rows(generation, one_of("tenant", tenants), fields):
            vector = np.asarray(row.pop("dense"), dtype=np.float32)
            yield StoredRow(msgspec.convert(dict(row), Chunk), vector)

    def tenants(self, generation: Generation) -> dict[str, int]:
        """How many rows each tenant has."""
        counts: dict[str, int] = {}
        for row in self._rows(generation, "", ["tenant"]):
            counts[str(row["tenant"])] = counts.get(str(row["tenant"]), 0) + 1
        return counts

    def has_other_tenants(self, generation: Generation, tenants: Collection[str]) -> bool:
        """Whether any row belongs to another tenant than these."""
        with translated_errors():
            found = self._client.query(
                generation.collection,
                filter=f"not {one_of('tenant', tenants)}",
                output_fields=["chunk_id"],
                limit=1,
                consistency_level="Strong",
                timeout=self._timeout_s,
            )
        return bool(found)

    def count(self, generation: Generation, tenants: Collection[str]) -> tuple[int, int]:
        """How many documents and how many chunks these tenants have."""
        chunks = one_of("tenant", tenants)
        documents = f"{chunks} and (ordinal == 0)"
        with translated_errors():
            found = [
                self._client.query(
                    generation.collection,
                    filter=rows,
                    output_fields=["count(*)"],
                    consistency_level="Strong",
                    timeout=self._timeout_s,
                )
                for rows in (documents, chunks)
            ]
        return int(found[0][0]["count(*)"]), int(found[1][0]["count(*)"])

    def vectors(
        self, generation: Generation, hashes: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        """The stored vectors of chunks by their `chunk_hash`, as far as they are found."""
        found: dict[str, NDArray[np.float32]] = {}
        for first in range(0, len(hashes), ROWS_AT_ONCE):
            wanted = hashes[first : first + ROWS_AT_ONCE]
            with translated_errors():
                rows = self._client.query(
                    generation.collection,
                    filter=one_of("chunk_hash", wanted),
                    output_fields=["chunk_hash", "dense"],
                    # A passage that stands on every page is stored as often; once is enough.
                    limit=4 * ROWS_AT_ONCE,
                    consistency_level="Strong",
                    timeout=self._timeout_s,
                )
            for row in rows:
                found[row["chunk_hash"]] = np.asarray(row["dense"], dtype=np.float32)
        return found

    def _rows(
        self, generation: Generation, rows: str, fields: list[str]
    ) -> Iterator[dict[str, object]]:
        with translated_errors():
            pages = self._client.query_iterator(
                generation.collection,
                batch_size=ROWS_AT_ONCE,
                filter=rows,
                output_fields=fields,
                consistency_level="Strong",
                timeout=self._timeout_s,
            )
            try:
                while page := pages.next():
                    yield from page
            finally:
                pages.close()
