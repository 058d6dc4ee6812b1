"""Reads a collection that this project did not make: its fields are mapped to ours.

Such a collection says nothing about its encoder but the dimension, and nothing about documents:
it is searched by meaning, and each row stands for itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.index.collection.failures import answered_within
from indexer.index.collection.generation import Generation
from indexer.index.collection.reader import IndexReader
from indexer.index.errors import FingerprintMismatch, IndexRefused
from indexer.index.filters import equals
from indexer.index.records import EncoderIdentity, Fingerprint, Hit
from indexer.index.searching import Query, Search
from indexer.index.settings import IndexSettings


class ForeignReader(IndexReader):
    """Finds rows of another project's collection, by the name of the knowledge base."""

    lists_documents = False

    def __init__(self, settings: IndexSettings, fields: Mapping[str, str]) -> None:
        """`fields` maps `foreign_fields.FIELDS` to the collection's own."""
        super().__init__(settings)
        self._tenant = settings.tenant
        """Whose all rows are where none says whose it is."""
        self._fields = fields
        self._key = ""
        self._metric = ""

    async def published(self, name: str) -> Generation:
        """The collection `name`, loaded.

        Also raises FingerprintMismatch, when a field is missing.
        """
        async with answered_within(self._timeout_s):
            await self._client.load_collection(name, timeout=self._timeout_s)
            described = await self._client.describe_collection(name, timeout=self._timeout_s)
            [index] = await self._client.list_indexes(
                name, field_name=self._fields["vector"], timeout=self._timeout_s
            )
            about = await self._client.describe_index(name, index, timeout=self._timeout_s)
        stored = {field["name"]: field for field in described["fields"]}
        if missing := [each for each in self._fields.values() if each not in stored]:
            raise FingerprintMismatch(
                f"collection {name!r} has no field {', '.join(map(repr, missing))}; it has "
                f"{', '.join(stored)}"
            )
        self._key = next(each for each, field in stored.items() if field.get("is_primary"))
        self._metric = about["metric_type"].upper()
        vector = stored[self._fields["vector"]]
        encoder = EncoderIdentity.unknown(int(vector["params"]["dim"]))
        collection = described["collection_name"]
        return Generation(collection, Fingerprint(encoder=encoder, chunker="", metric=self._metric))

    async def search(
        self, generation: Generation, queries: Sequence[Query], search: Search
    ) -> list[list[Hit]]:
        """The nearest rows, whatever the mode but "bm25": there are no words to search."""
        if search.mode == "bm25":
            raise IndexRefused(
                f"collection {generation.collection!r} can be searched by meaning alone"
            )
        if search.where:
            raise IndexRefused(f"collection {generation.collection!r} has no declared attributes")
        tenant = self._fields.get("tenant")
        if tenant is None and search.tenant != self._tenant:
            return [[] for _ in queries]
        wanted = [name for name in self._fields.values() if name != self._fields["vector"]]
        async with answered_within(self._timeout_s):
            found = await self._client.search(
                generation.collection,
                data=[query.vector for query in queries],
                anns_field=self._fields["vector"],
                filter=equals(tenant, search.tenant) if tenant else "",
                limit=search.limit,
                output_fields=wanted,
                timeout=self._timeout_s,
            )
        return [[self._found(row) for row in rows] for rows in found]

    async def passages(self, _: Generation) -> list[tuple[str, NDArray[np.float32]]]:
        """None: nothing tells what was embedded for a row."""
        return []

    async def neighbours(self, *_: object) -> list[Hit]:
        """None: nothing tells in which order the rows stand in their documents."""
        return []

    def _found(self, row: Mapping[str, Any]) -> Hit:
        entity = {ours: row["entity"].get(name) for ours, name in self._fields.items()}
        text, key = str(entity["text"]), str(row[self._key])
        source = str(entity.get("source") or "")
        return Hit(
            chunk_id=key,
            document_id=source,
            document_hash=key,  # no two rows overlap
            source=source,
            title=str(entity.get("title") or source.rsplit("/", 1)[-1]),
            heading_path="",
            start=0,
            end=len(text),
            text=text,
            score=min(1.0, max(0.0, self._cosine(row["distance"]))),
        )

    def _cosine(self, distance: float) -> float:
        """Of unit vectors: their squared distance is 2 - 2 cos."""
        return 1 - distance / 2 if self._metric == "L2" else distance
