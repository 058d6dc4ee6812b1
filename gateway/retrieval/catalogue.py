"""Which vector stores there are. One is a knowledge base, whose name is its id.

Some are filled by the indexer from sources of its own; the others are in the library of uploads.
"""

import time
from collections.abc import Callable, Sequence

import msgspec

from gateway.access.callers import caller
from gateway.access.permissions import check_may_write, usable
from gateway.errors import VectorStoreNotFound, VectorStoreReadOnly
from gateway.uploads import Uploads, store_not_found
from indexer.index.errors import NotInLibrary
from indexer.index.library import Library, VectorStore

REMEMBERED_S = 1.0
"""How long a vector store is taken to be there without a look at the library."""


class Shelved(msgspec.Struct, frozen=True):
    """What the library knows of a vector store that is to be searched."""

    is_published: bool
    """Whether there is an index of it: before the first file is ready, there is none."""
    indexed_at: int
    """When the indexer was last done with it, in seconds since the epoch."""


class _Seen(msgspec.Struct, frozen=True):
    shelved: Shelved
    until: float
    """On the monotonic clock, in seconds."""


class Catalogue:
    """The vector stores that clients may name."""

    def __init__(
        self,
        knowledge_bases: Sequence[str],
        uploads: Uploads,
        on_change: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`knowledge_bases` are those that the indexer fills, the default first.

        `on_change` is told of each store in the library that was indexed anew.
        """
        self._knowledge_bases = knowledge_bases
        self._uploads = uploads
        self._on_change = on_change
        self._seen: dict[tuple[str, str], _Seen] = {}
        """By tenant and store: to others it is not there."""

    @property
    def knowledge_bases(self) -> Sequence[str]:
        """Those that the indexer fills and the caller may use; to it there are no others."""
        return usable(self._knowledge_bases)

    async def searchable(self, ids: Sequence[str] | None, param: str) -> tuple[str, ...]:
        """The names of what is to be searched, where a request names `ids` in its field `param`.

        The caller's default where it names none, if the caller has one. Stores without any file
        that is ready contribute nothing. Raises VectorStoreNotFound and LibraryUnavailable.
        """
        if not ids:
            return tuple(self.knowledge_bases[:1])
        return tuple(
            dict.fromkeys(
                [
                    store
                    for place, store in enumerate(ids)
                    if await self.is_published(store, f"{param}[{place}]")
                ]
            )
        )

    async def is_published(
        self, store: str, param: str | None = None, *, anew: bool = False
    ) -> bool:
        """Whether a store can be searched; it is not known anew what was known a moment ago.

        With `anew`, it is. Raises VectorStoreNotFound and LibraryUnavailable.
        """
        if store in self.knowledge_bases:
            return True
        place = (caller().tenant, store)
        seen = self._seen.get(place)
        if not anew and seen is not None and time.monotonic() < seen.until:
            return seen.shelved.is_published
        shelved = await self._looked_up(store, param)
        if seen is None or seen.shelved != shelved:
            self._on_change(store)
        # What is not published yet may be at any moment, and its client waits for that.
        until = time.monotonic() + (REMEMBERED_S if shelved.is_published else 0.0)
        self._seen[place] = _Seen(shelved, until)
        return shelved.is_published

    def is_read_only(self, store: str) -> bool:
        """Whether it is a knowledge base that the indexer fills from sources of its own."""
        return store in self.knowledge_bases

    def check_writable(self, store: str) -> None:
        """Raises PermissionDenied, VectorStoreReadOnly, and UploadsDisabled."""
        check_may_write()
        if self.is_read_only(store):
            raise VectorStoreReadOnly(
                f"The vector store {store!r} cannot be changed here: the indexer fills it from "
                "sources of its own."
            )
        self._uploads.check_change()

    def forget(self, store: str) -> None:
        """Look for a store in the library the next time it is named: it was changed or deleted."""
        self._seen.pop((caller().tenant, store), None)

    async def _looked_up(self, store: str, param: str | None) -> Shelved:
        if not self._uploads.are_kept:
            raise store_not_found(store, param)
        try:
            return await self._uploads.ask(_used, store)
        except VectorStoreNotFound as exc:
            self.forget(store)
            raise store_not_found(store, param) from exc


def usable_store(library: Library, tenant: str, store_id: str) -> VectorStore:
    """A store that has not expired. Raises NotInLibrary and LibraryUnavailable."""
    store = library.store(tenant, store_id)
    if store.expires_at is not None and store.expires_at <= time.time():
        raise NotInLibrary("vector store", store_id)
    return store


def _used(library: Library, tenant: str, store_id: str) -> Shelved:
    """What is known of a store, of which it is noted that it is used."""
    usable_store(library, tenant, store_id)
    library.touch_store(tenant, store_id)
    outcome = library.outcome(tenant, store_id)
    return Shelved(outcome.is_published, outcome.finished_at)
