"""Milvus: one collection for each generation of a knowledge base, one alias that readers use.

The one module that knows pymilvus. A *generation* is a collection with its fingerprint;
the alias that bears the knowledge base's name points at the published one. Readers resolve
the alias, check the fingerprint, and then search the generation by its own name: an alias
that moves in between can never put an answer from another encoder under their query.
"""

from indexer.index.collection.bulk import BulkLoad, BulkStorage, bulk_load
from indexer.index.collection.documents import DocumentEntry
from indexer.index.collection.foreign import ForeignReader
from indexer.index.collection.generation import (
    NAME_MAX_BYTES,
    VERSION_MAX_BYTES,
    Generation,
    RunRecord,
)
from indexer.index.collection.lease import LeaseRecord
from indexer.index.collection.reader import IndexReader
from indexer.index.collection.stored import StoredChunk, StoredRow
from indexer.index.collection.writer import IndexWriter

__all__ = [
    "NAME_MAX_BYTES",
    "VERSION_MAX_BYTES",
    "BulkLoad",
    "BulkStorage",
    "DocumentEntry",
    "ForeignReader",
    "Generation",
    "IndexReader",
    "IndexWriter",
    "LeaseRecord",
    "RunRecord",
    "StoredChunk",
    "StoredRow",
    "bulk_load",
]
