"""What the indexer has published, as vector stores and their files. Nothing is changed here."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

from gateway.access.tenant_index import TenantIndex
from gateway.citations import filename_of
from gateway.errors import InvalidRequest
from gateway.stores import shapes
from gateway.stores.pages import FilesQuery, PageQuery, listing
from indexer.index.collection import DocumentEntry, Generation
from indexer.index.errors import FingerprintMismatch, KnowledgeBaseMissing, NotInLibrary


class KnowledgeBases:
    """The published generations, as the caller sees them.

    Each method raises VectorStoreNotFound for one that the caller may not use.
    """

    def __init__(self, index: TenantIndex) -> None:
        self._index = index

    async def stores(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Vector stores; what is not published, or not for this encoder, is in progress.

        Raises IndexFailure.
        """
        return await asyncio.gather(*map(self.store, names))

    async def store(self, name: str) -> dict[str, Any]:
        """One of them."""
        try:
            generation, documents = await self._index.ask(name, self._counted)
        except (KnowledgeBaseMissing, FingerprintMismatch):
            return shapes.knowledge_base(name, None, 0)
        return shapes.knowledge_base(name, generation, documents)

    async def files(self, name: str, query: FilesQuery) -> dict[str, Any]:
        """Documents as files, in the order of their keys: a run makes them all at once.

        Raises InvalidRequest and IndexFailure.
        """
        self._check_listing()
        if query.page.before is not None:
            raise InvalidRequest(
                "Invalid value for 'before': a vector store that the indexer fills is listed in "
                "one direction. Use 'after'.",
                "before",
            )
        if query.status not in (None, "completed"):
            return listing([], has_more=False)
        return await self._index.ask(name, partial(self._listed, name, query.page))

    async def file(self, name: str, file_id: str) -> dict[str, Any]:
        """One document as a file. Raises NotInLibrary, InvalidRequest and IndexFailure."""
        self._check_listing()
        generation, document = await self.document(name, file_id)
        return _told(name, generation, document)

    async def content(self, name: str, file_id: str) -> AsyncIterator[str]:
        """The text of a document, in pieces. Raises what `file` does."""
        self._check_listing()
        generation, document = await self.document(name, file_id)
        return self._index.texts(generation, document)

    async def document(self, name: str, file_id: str) -> tuple[Generation, DocumentEntry]:
        """A document and where it is. Raises NotInLibrary and IndexFailure."""

        async def look(generation: Generation) -> tuple[Generation, DocumentEntry | None]:
            return generation, await self._index.document(generation, file_id)

        generation, found = await self._index.ask(name, look)
        if found is None:
            raise NotInLibrary("file in this vector store", file_id)
        return generation, found

    async def _counted(self, generation: Generation) -> tuple[Generation, int]:
        if not self._index.lists_documents:
            return generation, 0
        return generation, await self._index.count_documents(generation)

    async def _listed(self, name: str, query: PageQuery, generation: Generation) -> dict[str, Any]:
        after = ""
        if query.after is not None:
            before = await self._index.document(generation, query.after)
            if before is None:
                raise InvalidRequest(
                    f"Invalid value for 'after': there is no file with id {query.after[:100]!r} in "
                    "this vector store.",
                    "after",
                )
            after = before.chunk_id
        found = await self._index.documents(generation, query.limit + 1, after)
        shown = [_told(name, generation, document) for document in found[: query.limit]]
        return listing(shown, has_more=len(found) > query.limit)

    def _check_listing(self) -> None:
        if not self._index.lists_documents:
            raise InvalidRequest(
                "This vector store was made by another program: its documents can be searched, "
                "not listed.",
                "vector_store_id",
            )


def _told(name: str, generation: Generation, document: DocumentEntry) -> dict[str, Any]:
    return shapes.document_file(name, generation, document, filename_of(document.source))
