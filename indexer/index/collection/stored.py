"""What is read back of a generation: enough to compare it with its sources, or all of it."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from indexer.index.records import Chunk


class StoredChunk(msgspec.Struct, frozen=True, gc=False):
    """What a run compares with its sources, for one row."""

    document_id: str
    document_hash: str
    version: str
    source: str
    chunk_count: int


class StoredRow(msgspec.Struct, frozen=True):
    """A whole row, for who verifies it."""

    chunk: Chunk
    vector: NDArray[np.float32]
    """Shape (dimension,)."""
