"""From chunks to the rows that Milvus stores."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from indexer.index.attributes import columns
from indexer.index.collection.generation import TEXT_MAX_BYTES, Generation
from indexer.index.embedding import Vectors
from indexer.index.passages import passage
from indexer.index.records import Chunk
from indexer.index.terms import Terms


class Rows:
    """Makes the rows of one generation. Not safe for two threads at once."""

    def __init__(self, generation: Generation) -> None:
        self._terms = Terms(generation.fingerprint.language)
        self._columns = columns(generation.fingerprint.attributes)

    def __call__(self, chunks: Sequence[Chunk], vectors: Vectors) -> Iterator[dict[str, Any]]:
        """A row for each chunk, with its vector of shape (dimension,).

        Title and headings are searched with the text: on SciFact, cut into 512 characters, that
        and stemming raise BM25's nDCG@10 from 0.599 to 0.683.
        """
        for chunk, vector in zip(chunks, vectors, strict=True):
            terms = self._terms(passage(chunk.title, chunk.heading_path, chunk.text))
            declared = {
                column: chunk.attributes.get(name) for name, column in self._columns.items()
            }
            yield {
                **msgspec.structs.asdict(chunk),
                **declared,
                "terms": _clipped(terms),
                "dense": vector,
            }


def _clipped(terms: str) -> str:
    """`terms` without the last ones where Milvus would refuse them: bigrams take more room."""
    if len(terms.encode()) <= TEXT_MAX_BYTES:
        return terms
    return terms.encode()[:TEXT_MAX_BYTES].decode(errors="ignore").rpartition(" ")[0]
