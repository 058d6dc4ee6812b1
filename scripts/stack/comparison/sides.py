"""What is different about the two sides: how a run is started, and how its rows are found."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pymilvus import MilvusClient

from indexer.index.collection import IndexReader
from indexer.index.searching import Query, Search
from indexer.index.settings import IndexSettings
from stack import langchain_side

KNOWLEDGE_BASE = "documents"
LEASE_S = 10
"""A killed run keeps its lease so long; the default, 60 s, would only make the script slower."""
NEAREST = 5
"""Hits of one search."""


@dataclass(frozen=True)
class Row:
    """A chunk as it is stored."""

    source: str
    text: str
    document: str = ""
    version: tuple[int, str] = (0, "")
    """Of two versions of a document the higher one counts; where the store knows of versions."""
    vector: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Side(ABC):
    """An indexer with its stores: Milvus, and for one of them a file."""

    python: Path
    encoder: str
    """Folder of the embedding model."""
    name: ClassVar[str]
    imports: ClassVar[Sequence[str]]
    """What a run imports."""
    done: ClassVar[frozenset[int]]
    """Exit codes of a run that did its work."""
    busy: ClassVar[frozenset[int]] = frozenset()
    """Exit codes of a run that must wait for the lease of a killed one."""
    records: ClassVar[str] = ""
    """Name of the file beside Milvus that the next run depends on; empty where there is none."""

    @abstractmethod
    def command(self, documents: Path, uri: str, state: Path) -> list[str]:
        """Module and arguments of a run over the folder `documents`."""

    @abstractmethod
    def environment(self, uri: str) -> dict[str, str]:
        """Settings of a run."""

    @abstractmethod
    def rows(self, client: MilvusClient, *, with_vectors: bool = False) -> list[Row]:
        """Everything that is stored where readers look."""

    @abstractmethod
    def served(self, rows: Sequence[Row]) -> list[Row]:
        """What of `rows` a reader can find together."""

    @abstractmethod
    def search(self, client: MilvusClient, uri: str, vector: NDArray[np.float32]) -> list[str]:
        """Texts of the chunks that a reader gets for a question with this vector."""


class Groundserve(Side):
    """This project: no store but Milvus."""

    name = "Groundserve"
    imports: ClassVar[Sequence[str]] = ("indexer.commands",)
    done = frozenset({0, 4})
    busy = frozenset({5})

    def command(self, documents: Path, uri: str, state: Path) -> list[str]:  # noqa: ARG002
        """Its settings are in the environment."""
        return ["indexer", "run", str(documents), "--json"]

    def environment(self, uri: str) -> dict[str, str]:
        """Settings of a run."""
        return {
            "GROUNDSERVE_MILVUS_URI": uri,
            "GROUNDSERVE_KNOWLEDGE_BASE": KNOWLEDGE_BASE,
            "GROUNDSERVE_ENCODER_MODEL": self.encoder,
            "GROUNDSERVE_LEASE_DURATION_S": str(LEASE_S),
        }

    def rows(self, client: MilvusClient, *, with_vectors: bool = False) -> list[Row]:
        """The rows behind the alias; none where nothing was published."""
        if KNOWLEDGE_BASE not in client.list_aliases().get("aliases", []):
            return []
        collection = client.describe_alias(KNOWLEDGE_BASE)["collection_name"]
        fields = ["source", "text", "document_id", "document_hash", "run"]
        return [
            Row(
                source=row["source"],
                text=row["text"],
                document=row["document_id"],
                version=(row["run"], row["document_hash"]),
                vector=_vector(row, "dense"),
            )
            for row in _all(client, collection, [*fields, *(["dense"] if with_vectors else [])])
        ]

    def served(self, rows: Sequence[Row]) -> list[Row]:
        """IndexReader's rule: of a document that is being replaced, the newest version."""
        newest: dict[str, tuple[int, str]] = {}
        for row in rows:
            newest[row.document] = max(row.version, newest.get(row.document, row.version))
        return [row for row in rows if row.version == newest[row.document]]

    def search(self, client: MilvusClient, uri: str, vector: NDArray[np.float32]) -> list[str]:  # noqa: ARG002
        """Through IndexReader, as the gateway does."""
        return asyncio.run(self._search(uri, vector))

    async def _search(self, uri: str, vector: NDArray[np.float32]) -> list[str]:
        settings = IndexSettings(
            milvus_uri=uri, knowledge_base=KNOWLEDGE_BASE, encoder_model=self.encoder
        )
        reader = IndexReader(settings)
        try:
            generation = await reader.published(KNOWLEDGE_BASE)
            asked = Search(tenant=settings.tenant, limit=NEAREST, mode="dense")
            [hits] = await reader.search(generation, [Query("", vector)], asked)
            return [hit.text for hit in hits]
        finally:
            await reader.close()


class LangChain(Side):
    """LangChain's indexing API: what Milvus holds is remembered in a file of SQLite."""

    name = "LangChain"
    imports: ClassVar[Sequence[str]] = langchain_side.IMPORTS
    done = frozenset({0})
    records = "records.sqlite"

    def command(self, documents: Path, uri: str, state: Path) -> list[str]:
        """Module and arguments of a run over the folder `documents`."""
        stores = ["--uri", uri, "--records", str(state / self.records)]
        return ["stack.langchain_side", str(documents), *stores, "--encoder", self.encoder]

    def environment(self, uri: str) -> dict[str, str]:  # noqa: ARG002
        """It says nothing to anybody outside."""
        return {"LANGSMITH_TRACING": "false"}

    def rows(self, client: MilvusClient, *, with_vectors: bool = False) -> list[Row]:
        """The rows of the collection; none where it was not made yet."""
        if not client.has_collection(langchain_side.COLLECTION):
            return []
        fields = ["source", "text", *(["vector"] if with_vectors else [])]
        return [
            Row(source=row["source"], text=row["text"], vector=_vector(row, "vector"))
            for row in _all(client, langchain_side.COLLECTION, fields)
        ]

    def served(self, rows: Sequence[Row]) -> list[Row]:
        """All of them."""
        return list(rows)

    def search(self, client: MilvusClient, uri: str, vector: NDArray[np.float32]) -> list[str]:  # noqa: ARG002
        """What its similarity search asks of Milvus."""
        [hits] = client.search(
            langchain_side.COLLECTION,
            data=[vector],
            anns_field="vector",
            limit=NEAREST,
            output_fields=["text"],
        )
        return [str(hit["entity"]["text"]) for hit in hits]


def _all(client: MilvusClient, collection: str, fields: list[str]) -> list[dict[str, Any]]:
    # A Milvus Lite that was started again has not loaded its collections.
    client.load_collection(collection)
    pages = client.query_iterator(
        collection, batch_size=1000, filter="", output_fields=fields, consistency_level="Strong"
    )
    found: list[dict[str, Any]] = []
    try:
        while page := pages.next():
            found += page
    finally:
        pages.close()
    return found


def _vector(row: dict[str, Any], name: str) -> NDArray[np.float32] | None:
    return np.asarray(row[name], dtype=np.float32) if name in row else None
