"""Vector stores: those of the library, and the knowledge bases that the indexer fills."""

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.retrieval.catalogue import Catalogue
from gateway.retrieval.published import Published
from gateway.stores import shapes
from gateway.stores.knowledge_bases import KnowledgeBases
from gateway.stores.pages import Page, PageQuery, page
from gateway.stores.requests import CreateStore, UpdateStore, chunking_of, expiry_of, read
from gateway.stores.store_files import check_kept
from gateway.stores.uploaded import usable_file
from gateway.uploads import Uploads
from indexer.index.errors import NotInLibrary
from indexer.index.library import ExpiresAfter, Library, VectorStore, made_at, new_id
from indexer.index.library.objects import in_parallel

_Item = VectorStore | dict[str, Any]
"""One of the library, or a knowledge base as it is shown."""


class VectorStores:
    """All that clients may name.

    Each method raises LibraryUnavailable, what is about one of them VectorStoreNotFound, and what
    changes something PermissionDenied, VectorStoreReadOnly and UploadsDisabled.
    """

    def __init__(
        self,
        uploads: Uploads,
        catalogue: Catalogue,
        knowledge_bases: KnowledgeBases,
        published: Published,
    ) -> None:
        self._uploads = uploads
        self._catalogue = catalogue
        self._knowledge_bases = knowledge_bases
        self._published = published

    async def listed(self, query: PageQuery) -> dict[str, Any]:
        """A page of them. Raises InvalidRequest and IndexFailure."""
        bases = await self._knowledge_bases.stores(self._catalogue.knowledge_bases)
        kept: list[VectorStore] = []
        if self._uploads.are_kept:
            kept = await self._uploads.ask(Library.stores)
        items: list[_Item] = sorted([*bases, *kept], key=_age)
        ages = [_age(item) for item in items]

        def place(cursor: str) -> int | None:
            made = made_at(cursor)
            return None if made is None else sum(age < (made, cursor) for age in ages)

        found = page(items, query, lambda item: _age(item)[1], place)
        shown = await self._shown(found.items)
        return Page(shown, found.has_more).told(lambda told: told)

    async def create(self, content: bytes) -> dict[str, Any]:
        """A new one, and files in it. Raises InvalidRequest and NotInLibrary."""
        self._uploads.check_change()
        said = read(content, CreateStore)
        now = int(time.time())
        store = VectorStore(
            id=new_id("vector store"),
            name=said.name or "",
            description=said.description,
            created_at=now,
            last_active_at=now,
            metadata=said.metadata or {},
            expires_after=expiry_of(said.expires_after),
            chunking=chunking_of(said.chunking_strategy),
        )
        return await self._uploads.change(_created, store, said.file_ids or [])

    async def retrieve(self, store_id: str) -> dict[str, Any]:
        """One of them. Raises IndexFailure."""
        if self._catalogue.is_read_only(store_id):
            return await self._knowledge_bases.store(store_id)
        check_kept(self._uploads, store_id)
        return await self._uploads.ask(_retrieved, store_id)

    async def update(self, store_id: str, content: bytes) -> dict[str, Any]:
        """Say something else of one. Raises InvalidRequest."""
        self._catalogue.check_writable(store_id)
        return await self._uploads.change(_updated, store_id, read(content, UpdateStore))

    async def delete(self, store_id: str) -> dict[str, Any]:
        """Delete one; its files stay."""
        self._catalogue.check_writable(store_id)
        await self._uploads.change(Library.delete_store, store_id)
        self._catalogue.forget(store_id)
        self._published.forget(store_id)
        return shapes.deleted(store_id, "vector_store.deleted")

    async def _shown(self, items: Sequence[_Item]) -> list[dict[str, Any]]:
        """`items` as OpenAI shows them, without those that were deleted meanwhile."""
        kept = [item for item in items if isinstance(item, VectorStore)]
        told: dict[str, dict[str, Any]] = {}
        if kept:
            told = await self._uploads.ask(_told_of_all, kept)
        shown = [told.get(item.id) if isinstance(item, VectorStore) else item for item in items]
        return [each for each in shown if each is not None]


def _age(item: _Item) -> tuple[int, str]:
    """What stores are in the order of."""
    if isinstance(item, VectorStore):
        return item.created_at, item.id
    return item["created_at"], item["id"]


def _created(
    library: Library, tenant: str, store: VectorStore, file_ids: Sequence[str]
) -> dict[str, Any]:
    in_parallel(lambda each: usable_file(library, tenant, each), file_ids)
    library.add_store(tenant, store)
    if file_ids:
        try:
            library.attach_all(tenant, store.id, [(each, {}) for each in file_ids])
        except NotInLibrary:  # one was deleted in this moment
            library.delete_store(tenant, store.id)
            raise
    return _told(library, tenant, store)


def _retrieved(library: Library, tenant: str, store_id: str) -> dict[str, Any]:
    return _told(library, tenant, library.store(tenant, store_id))


def _updated(library: Library, tenant: str, store_id: str, said: UpdateStore) -> dict[str, Any]:
    store = library.store(tenant, store_id)
    fields: dict[str, Any] = {}
    if said.name is not msgspec.UNSET:
        fields["name"] = said.name or ""
    if said.metadata is not msgspec.UNSET:
        fields["metadata"] = said.metadata or {}
    if not isinstance(said.expires_after, msgspec.UnsetType):
        expires_after: ExpiresAfter | None = expiry_of(said.expires_after)
        fields["expires_after"] = expires_after
    # Who says how long it lives, wants it to live from now on.
    changed = msgspec.structs.replace(store, **fields, last_active_at=int(time.time()))
    return _told(library, tenant, library.change_store(tenant, changed))


def _told(library: Library, tenant: str, store: VectorStore) -> dict[str, Any]:
    members = library.members(tenant, store.id)
    return shapes.vector_store(store, members, library.outcome(tenant, store.id))


def _told_of_all(
    library: Library, tenant: str, stores: Sequence[VectorStore]
) -> dict[str, dict[str, Any]]:
    def told(store: VectorStore) -> dict[str, Any] | None:
        try:
            return _told(library, tenant, store)
        except NotInLibrary:
            return None

    found = in_parallel(told, stores)
    return {each["id"]: each for each in found if each is not None}
