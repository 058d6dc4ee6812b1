"""The index as its caller sees it: the one place in the gateway that tells Milvus whose rows.

Whatever reads chunks or documents does so through here and cannot say a tenant; the caller's is
added to each call, on every leg of every search. A knowledge base that the caller may not use is
not asked at all.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from gateway.access.callers import caller
from gateway.access.permissions import usable
from gateway.retrieval.options import Wanted
from gateway.retrieval.published import Published
from gateway.retrieval.searches import Searches
from gateway.uploads import store_not_found
from indexer.index.collection import DocumentEntry, Generation, IndexReader
from indexer.index.records import Hit
from indexer.index.searching import Query, Search

T = TypeVar("T")


class TenantIndex:
    """The published generations, with the rows of the caller's tenant alone.

    Each method but `ask` is given a generation by that one, and raises IndexFailure.
    """

    def __init__(
        self,
        reader: IndexReader,
        searches: Searches,
        published: Published,
        knowledge_bases: Sequence[str],
    ) -> None:
        """`searches` are the reader's; not every key may use each of the `knowledge_bases`."""
        self._reader = reader
        # There requests of several tenants wait together, so each search has its tenant by then.
        self._searches = searches
        self._published = published
        self._knowledge_bases = knowledge_bases

    @property
    def lists_documents(self) -> bool:
        """Whether the rows tell which document they are of."""
        return self._reader.lists_documents

    async def ask(self, name: str, question: Callable[[Generation], Awaitable[T]]) -> T:
        """The answer of the generation that is published as `name`.

        Raises VectorStoreNotFound where the caller may not use it, and IndexFailure.
        """
        if name in self._knowledge_bases and name not in usable(self._knowledge_bases):
            raise store_not_found(name)
        return await self._published.ask(name, question)

    async def search(
        self,
        generation: Generation,
        queries: Sequence[Query],
        wanted: Wanted,
        limit: int,
        among: str = "",
    ) -> list[list[Hit]]:
        """The `limit` best chunks for each of `queries`, best first, as `wanted` says.

        `among` is a further condition on rows, of `indexer.index.filters`. Raises FilterInvalid.
        """
        filters = wanted.where(generation.fingerprint.attributes)
        search = Search(
            tenant=caller().tenant,
            limit=limit,
            mode=wanted.mode,
            candidates=wanted.candidates,
            text_weight=wanted.text_weight,
            where=" and ".join(filter(None, [filters, among])),
        )
        return await self._searches.search(generation, queries, search)

    async def neighbours(
        self, generation: Generation, hits: Sequence[Hit], distance: int
    ) -> list[Hit]:
        """The chunks that stand up to `distance` before and behind each of `hits`."""
        return await self._reader.neighbours(generation, hits, caller().tenant, distance)

    async def count_documents(self, generation: Generation) -> int:
        """How many documents there are."""
        return await self._reader.count_documents(generation, caller().tenant)

    async def documents(
        self, generation: Generation, limit: int, after: str = ""
    ) -> list[DocumentEntry]:
        """Up to `limit` documents whose first chunks have keys behind `after`, in their order."""
        return await self._reader.documents(generation, caller().tenant, limit, after)

    async def document(self, generation: Generation, document_id: str) -> DocumentEntry | None:
        """The newest version of a document; None where there is none."""
        return await self._reader.document(generation, caller().tenant, document_id)

    def texts(self, generation: Generation, document: DocumentEntry) -> AsyncIterator[str]:
        """The text of a document in pieces, read while the iteration goes on."""
        return self._reader.texts(generation, caller().tenant, document)
