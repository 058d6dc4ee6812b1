"""Batches: files that were put into a vector store together, and what became of them."""

from collections.abc import Sequence
from typing import Any

from gateway.errors import InvalidRequest
from gateway.retrieval.catalogue import Catalogue, usable_store
from gateway.stores import shapes
from gateway.stores.pages import FilesQuery, page
from gateway.stores.requests import (
    AttachFile,
    CreateBatch,
    attributes_of,
    read,
)
from gateway.stores.shapes import IN_PROGRESS, status_of
from gateway.stores.store_files import check_kept, store_for, told_page
from gateway.stores.uploaded import usable_file
from gateway.uploads import Uploads
from indexer.index.errors import NotInLibrary
from indexer.index.library import Batch, Library, Membership
from indexer.index.library.objects import in_parallel


class FileBatches:
    """Batches of the library; what the indexer fills from sources of its own has none.

    Each method raises VectorStoreNotFound, NotInLibrary and LibraryUnavailable, and what changes
    something PermissionDenied, VectorStoreReadOnly and UploadsDisabled.
    """

    def __init__(self, uploads: Uploads, catalogue: Catalogue) -> None:
        self._uploads = uploads
        self._catalogue = catalogue

    async def create(self, store_id: str, content: bytes) -> dict[str, Any]:
        """Put files into a store. Raises InvalidRequest."""
        self._catalogue.check_writable(store_id)
        files = _files(read(content, CreateBatch))
        return await self._uploads.change(_created, store_id, files)

    async def retrieve(self, store_id: str, batch_id: str) -> dict[str, Any]:
        """What became of one."""
        self._check(store_id, batch_id)
        return await self._uploads.ask(_retrieved, store_id, batch_id)

    async def cancel(self, store_id: str, batch_id: str) -> dict[str, Any]:
        """Keep what is in progress of it from being indexed."""
        self._catalogue.check_writable(store_id)
        return await self._uploads.change(_cancelled, store_id, batch_id)

    async def files(self, store_id: str, batch_id: str, query: FilesQuery) -> dict[str, Any]:
        """A page of its files that are still in the store. Raises InvalidRequest."""
        self._check(store_id, batch_id)
        return await self._uploads.ask(_listed, store_id, batch_id, query)

    def _check(self, store_id: str, batch_id: str) -> None:
        if self._catalogue.is_read_only(store_id):
            raise NotInLibrary("file batch", batch_id)
        check_kept(self._uploads, store_id)


def _files(said: CreateBatch) -> list[AttachFile]:
    """The files of a request, each with all that is said of it. Raises InvalidRequest."""
    if bool(said.file_ids) == bool(said.files):
        raise InvalidRequest(
            "Say either 'file_ids' or 'files', with at least one file.", "file_ids"
        )
    if said.files:
        for place, file in enumerate(said.files):
            attributes_of(file.attributes, f"files[{place}].attributes")
        return said.files
    attributes_of(said.attributes)
    return [
        AttachFile(file_id, said.attributes, said.chunking_strategy)
        for file_id in said.file_ids or ()
    ]


def _created(
    library: Library, tenant: str, store_id: str, files: Sequence[AttachFile]
) -> dict[str, Any]:
    usable_store(library, tenant, store_id)
    in_parallel(lambda file: usable_file(library, tenant, file.file_id), files)
    store_for(library, tenant, store_id, files)
    wanted = [(file.file_id, attributes_of(file.attributes)) for file in files]
    members = library.attach_all(tenant, store_id, wanted)
    return _told(library, tenant, library.add_batch(tenant, store_id, members))


def _retrieved(library: Library, tenant: str, store_id: str, batch_id: str) -> dict[str, Any]:
    return _told(library, tenant, library.batch(tenant, store_id, batch_id))


def _cancelled(library: Library, tenant: str, store_id: str, batch_id: str) -> dict[str, Any]:
    batch = library.batch(tenant, store_id, batch_id)
    outcome = library.outcome(tenant, store_id)
    made = set(batch.members)
    running = [
        member
        for member in _members(library, tenant, batch)
        # What somebody has put in anew since then is not this batch's.
        if (member.file_id, member.version) in made and status_of(member, outcome) == IN_PROGRESS
    ]
    if running:
        library.cancel(tenant, store_id, running)
    return _told(library, tenant, batch)


def _listed(
    library: Library, tenant: str, store_id: str, batch_id: str, query: FilesQuery
) -> dict[str, Any]:
    batch = library.batch(tenant, store_id, batch_id)
    outcome = library.outcome(tenant, store_id)
    members = [
        member
        for member in _members(library, tenant, batch)
        if query.status in (None, status_of(member, outcome))
    ]
    found = page(members, query.page, lambda member: member.file_id)
    return told_page(library, tenant, store_id, found, outcome)


def _told(library: Library, tenant: str, batch: Batch) -> dict[str, Any]:
    outcome = library.outcome(tenant, batch.store_id)
    members = _members(library, tenant, batch)
    return shapes.files_batch(batch, (status_of(member, outcome) for member in members))


def _members(library: Library, tenant: str, batch: Batch) -> list[Membership]:
    """Those files of a batch that are in the store now, oldest first."""
    files = {file_id for file_id, _ in batch.members}
    there = library.members(tenant, batch.store_id)
    return [member for member in reversed(there) if member.file_id in files]
