"""What readers ask for: a question, and how chunks are looked for."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from indexer.index.records import SearchMode


class Query(msgspec.Struct, frozen=True):
    """A question, in words and as a vector."""

    text: str
    vector: NDArray[np.float32] | None = None
    """Shape (dimension,), unit norm; None where only words are looked for."""


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """How chunks are looked for."""

    tenant: str
    limit: int
    """How many chunks each question gets."""
    mode: SearchMode = "dense"
    candidates: int = 0
    """How many chunks each leg of a hybrid search contributes; `limit` where that is more."""
    text_weight: float | None = None
    """Weight of words in a hybrid search, of 1; by rank (RRF), if not set."""
    where: str = ""
    """A compiled filter on attributes, in parentheses; everything, if empty."""
