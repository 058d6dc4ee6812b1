"""The files of vector stores: which are in one, what became of them, and their texts."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from gateway.errors import InvalidRequest
from gateway.retrieval.catalogue import Catalogue, usable_store
from gateway.stores import shapes
from gateway.stores.knowledge_bases import KnowledgeBases
from gateway.stores.pages import FilesQuery, Page, page
from gateway.stores.requests import AttachFile, UpdateFile, attributes_of, common_chunking, read
from gateway.stores.uploaded import usable_file
from gateway.uploads import Uploads, store_not_found
from indexer.index.library import Attributes, Library, Membership, StoreOutcome, VectorStore


class StoreFiles:
    """What is in vector stores.

    Each method raises VectorStoreNotFound and LibraryUnavailable, and what changes something
    PermissionDenied, VectorStoreReadOnly and UploadsDisabled.
    """

    def __init__(
        self, uploads: Uploads, catalogue: Catalogue, knowledge_bases: KnowledgeBases
    ) -> None:
        self._uploads = uploads
        self._catalogue = catalogue
        self._knowledge_bases = knowledge_bases

    async def listed(self, store_id: str, query: FilesQuery) -> dict[str, Any]:
        """A page of the files of a store. Raises InvalidRequest and IndexFailure."""
        if self._catalogue.is_read_only(store_id):
            return await self._knowledge_bases.files(store_id, query)
        check_kept(self._uploads, store_id)
        return await self._uploads.ask(_listed, store_id, query)

    async def attach(self, store_id: str, content: bytes) -> dict[str, Any]:
        """Put a file into a store. Raises InvalidRequest and NotInLibrary."""
        self._catalogue.check_writable(store_id)
        said = read(content, AttachFile)
        attributes = attributes_of(said.attributes)
        return await self._uploads.change(_attached, store_id, said, attributes)

    async def retrieve(self, store_id: str, file_id: str) -> dict[str, Any]:
        """One file of a store. Raises NotInLibrary and IndexFailure."""
        if self._catalogue.is_read_only(store_id):
            return await self._knowledge_bases.file(store_id, file_id)
        check_kept(self._uploads, store_id)
        return await self._uploads.ask(_retrieved, store_id, file_id)

    async def update(self, store_id: str, file_id: str, content: bytes) -> dict[str, Any]:
        """Give a file other attributes. Raises what `attach` does."""
        self._catalogue.check_writable(store_id)
        attributes = attributes_of(read(content, UpdateFile).attributes)
        return await self._uploads.change(_updated, store_id, file_id, attributes)

    async def delete(self, store_id: str, file_id: str) -> dict[str, Any]:
        """Take a file out of a store. Raises NotInLibrary."""
        self._catalogue.check_writable(store_id)
        await self._uploads.change(Library.detach, store_id, file_id)
        return shapes.deleted(file_id, "vector_store.file.deleted")

    async def content(self, store_id: str, file_id: str) -> AsyncIterator[str]:
        """The text of a file as it was indexed, in pieces.

        Raises InvalidRequest where it is not, and what `retrieve` does.
        """
        if not self._catalogue.is_read_only(store_id):
            status = (await self.retrieve(store_id, file_id))["status"]
            if status != "completed":
                raise InvalidRequest(
                    f"The file {file_id!r} has no content in this vector store: it is {status}.",
                    "file_id",
                )
            # It may be in a generation that this gateway has not heard of yet.
            await self._catalogue.is_published(store_id, anew=True)
        return await self._knowledge_bases.content(store_id, file_id)


def check_kept(uploads: Uploads, store_id: str) -> None:
    """Raises VectorStoreNotFound where there is no library that a store could be in."""
    if not uploads.are_kept:
        raise store_not_found(store_id)


def store_for(
    library: Library, tenant: str, store_id: str, files: Sequence[AttachFile]
) -> VectorStore:
    """The store that `files` are to be put into, cut as they want. Raises InvalidRequest."""
    store = usable_store(library, tenant, store_id)
    strategies = [file.chunking_strategy for file in files]
    is_empty = store.chunking is None and not library.members(tenant, store_id)
    chunking = common_chunking(strategies, store.chunking, is_empty=is_empty)
    if chunking == store.chunking:
        return store
    return library.change_store(tenant, msgspec.structs.replace(store, chunking=chunking))


def told_page(
    library: Library, tenant: str, store_id: str, found: Page[Membership], outcome: StoreOutcome
) -> dict[str, Any]:
    """A page of files as OpenAI shows them, without those that have left meanwhile."""
    store = library.store(tenant, store_id)
    described = library.described(tenant, found.items)
    files = library.listed_files(tenant, [member.file_id for member in described])
    return Page(described, found.has_more).told(
        lambda member: shapes.store_file(member, outcome, store, files.get(member.file_id))
    )


def _listed(library: Library, tenant: str, store_id: str, query: FilesQuery) -> dict[str, Any]:
    outcome = library.outcome(tenant, store_id)
    members = [
        member
        for member in reversed(library.members(tenant, store_id))
        if query.status in (None, shapes.status_of(member, outcome))
    ]
    found = page(members, query.page, lambda member: member.file_id)
    return told_page(library, tenant, store_id, found, outcome)


def _attached(
    library: Library, tenant: str, store_id: str, said: AttachFile, attributes: Attributes
) -> dict[str, Any]:
    file = usable_file(library, tenant, said.file_id)
    store = store_for(library, tenant, store_id, [said])
    member = library.attach(tenant, store_id, file.id, attributes)
    return shapes.store_file(member, StoreOutcome(), store, file)


def _retrieved(library: Library, tenant: str, store_id: str, file_id: str) -> dict[str, Any]:
    return _told(library, tenant, library.member(tenant, store_id, file_id))


def _updated(
    library: Library, tenant: str, store_id: str, file_id: str, attributes: Attributes
) -> dict[str, Any]:
    usable_store(library, tenant, store_id)
    return _told(library, tenant, library.change_member(tenant, store_id, file_id, attributes))


def _told(library: Library, tenant: str, member: Membership) -> dict[str, Any]:
    store = library.store(tenant, member.store_id)
    file = library.listed_files(tenant, [member.file_id]).get(member.file_id)
    return shapes.store_file(member, library.outcome(tenant, store.id), store, file)
