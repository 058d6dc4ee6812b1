"""Searches that wait at the same time and look in the same way, put into one call to Milvus.

For Milvus Lite 64 single searches for the two nearest of 4,559 chunks take 7 ms each; 16 of them in
one call take 1.5 ms each, and a fifth of the CPU time here.
"""

from collections.abc import Hashable, Sequence

import msgspec

from gateway.batching import AsyncBatcher
from gateway.waiting import QueueBounds
from indexer.index.collection import Generation, IndexReader
from indexer.index.errors import FingerprintMismatch, IndexUnavailable, KnowledgeBaseMissing
from indexer.index.records import Hit
from indexer.index.searching import Query, Search

AT_ONCE = 16
"""Most questions in one call: who comes during a call waits for its end."""
CALLS_OF_A_WAY = 2
"""Calls on their way at a time that look in one way, so that Milvus has the next one when it has
answered."""
CALLS = 32
"""Calls on their way at a time in all."""
_OF_ALL = (IndexUnavailable, KnowledgeBaseMissing, FingerprintMismatch)
"""What no single question of a call is to blame for."""


class _Sought(msgspec.Struct, frozen=True, eq=False):
    generation: Generation
    search: Search
    query: Query

    @property
    def way(self) -> Hashable:
        """Of what looks in the same way, the same."""
        return self.generation.collection, self.search


class Searches:
    """The reader's searches, put together."""

    def __init__(self, reader: IndexReader, bounds: QueueBounds = QueueBounds()) -> None:  # noqa: B008
        self._reader = reader
        self._batches = AsyncBatcher[_Sought, list[Hit]](
            "searches",
            self._found,
            AT_ONCE,
            CALLS,
            bounds=bounds,
            kind=lambda sought: sought.way,
            max_calls_of_a_kind=CALLS_OF_A_WAY,
            may_be_of_one=lambda failure: not isinstance(failure, _OF_ALL),
        )

    async def search(
        self, generation: Generation, queries: Sequence[Query], search: Search
    ) -> list[list[Hit]]:
        """What `IndexReader.search` finds for each of `queries`, and raises; and Overloaded."""
        sought = [_Sought(generation, search, query) for query in queries]
        return await self._batches.submit_all(sought)

    async def _found(self, sought: list[_Sought]) -> list[list[Hit]]:
        first = sought[0]
        queries = [each.query for each in sought]
        return await self._reader.search(first.generation, queries, first.search)
