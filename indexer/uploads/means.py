"""What every vector store is indexed with, and what is told of one that was."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import msgspec

from indexer.chunking import ChunkerSettings
from indexer.index.collection import IndexWriter
from indexer.index.embedding import TextEncoder
from indexer.index.library import Library, VectorStore
from indexer.index.records import AttributeType, Fingerprint, key
from indexer.uploads.preparation import chunker_of
from indexer.work import Prepares


class Means(msgspec.Struct, frozen=True, kw_only=True):
    """What every store is indexed with."""

    library: Library
    encoder: TextEncoder
    workers: Prepares
    """They run an UploadPreparation."""
    chunker: ChunkerSettings
    """Of the stores that ask for nothing else."""
    fingerprint: Callable[[dict[str, AttributeType], ChunkerSettings], Fingerprint]
    writer: Callable[[str], AbstractContextManager[IndexWriter]]
    """A connection for a knowledge base of that name."""
    lease_duration_s: float
    keep_generations: int


class Processed(msgspec.Struct, kw_only=True):
    """What became of a vector store, in files unless it says otherwise."""

    tenant: str
    vector_store: str
    completed: int = 0
    failed: int = 0
    deleted: int = 0
    """Files that are gone from its index."""
    chunks_embedded: int = 0
    chunks_reused: int = 0
    seconds: float = 0.0
    is_gone: bool = False
    """Whether it was deleted, and nothing is left of it."""
    error: str = ""
    """Why it could not be indexed as a whole."""


def built_with(means: Means, store: VectorStore) -> str:
    """Digest of what every file of a store is read, cut and embedded with.

    Raises ConfigurationUnusable.
    """
    fingerprint = means.fingerprint({}, chunker_of(means.chunker, store.chunking))
    return key(msgspec.json.encode(fingerprint, order="deterministic").decode())
