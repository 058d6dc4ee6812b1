"""The library of uploads: what the gateway stores, and the indexer makes an index of.

It lies below one URL, through fsspec: files that were uploaded, vector stores, and which file is
in which store. Each object has one kind of writer: the gateway writes all of them but a store's
`outcome.json`, which the indexer alone writes, under the lease of the store's knowledge base. A
write is atomic, and there is no database: the library survives restarts and any number of
gateways. The id of a vector store is the name of its knowledge base.

fsspec is imported with the first `Library`.
"""

from indexer.index.library.library import Library
from indexer.index.library.names import Marker, made_at, new_id
from indexer.index.library.records import (
    Attributes,
    Batch,
    Chunking,
    ExpiresAfter,
    Membership,
    Outcome,
    StoredFile,
    StoreOutcome,
    VectorStore,
)

__all__ = [
    "Attributes",
    "Batch",
    "Chunking",
    "ExpiresAfter",
    "Library",
    "Marker",
    "Membership",
    "Outcome",
    "StoreOutcome",
    "StoredFile",
    "VectorStore",
    "made_at",
    "new_id",
]
