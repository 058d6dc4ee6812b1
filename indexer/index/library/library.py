"""Vector stores, their outcomes and batches, and what is pending: the whole library."""

import time
from collections.abc import Iterable, Sequence

import msgspec

from indexer.index.errors import NotInLibrary
from indexer.index.library import names
from indexer.index.library.members import Members
from indexer.index.library.names import Marker
from indexer.index.library.objects import in_parallel
from indexer.index.library.records import (
    Batch,
    Membership,
    StoreOutcome,
    VectorStore,
)

TOUCHED_EVERY_S = 60
"""How exactly it is known when a store was last used."""


class Library(Members):
    """Files, vector stores, and what became of them, below one URL.

    Its methods block, and may be called from several threads at once. They raise
    LibraryUnavailable, and NotInLibrary for ids that `tenant` has nothing of, whatever they hold.
    The constructor raises LibraryUnavailable for a URL that cannot be used.
    """

    def add_store(self, tenant: str, store: VectorStore) -> VectorStore:
        """Add a new store, with nothing in it; `new_id("vector store")` makes its id."""
        self._know(tenant)
        self._write(self._store_path(tenant, store.id), store)
        return store

    def store(self, tenant: str, store_id: str) -> VectorStore:
        """What is known of a store."""
        found = self._read(self._store_path(tenant, store_id), VectorStore)
        if found is None:
            raise NotInLibrary("vector store", store_id)
        return found

    def stores(self, tenant: str) -> list[VectorStore]:
        """All stores of `tenant`, newest first."""
        found = in_parallel(
            lambda each: self._read(self._store_path(tenant, each), VectorStore),
            self.store_ids(tenant),
        )
        present = [store for store in found if store is not None]
        return sorted(present, key=lambda store: (store.created_at, store.id), reverse=True)

    def store_ids(self, tenant: str) -> list[str]:
        """The ids of all stores of `tenant`, from one listing; some may be deleted."""
        found = self._objects.names(names.stores_of(tenant))
        return sorted(each for each in found if names.is_id("vector store", each))

    def change_store(self, tenant: str, store: VectorStore) -> VectorStore:
        """Make `store` what is known of it; id, creation, and a chunking once said stay."""
        before = self.store(tenant, store.id)
        changed = msgspec.structs.replace(
            store, created_at=before.created_at, chunking=before.chunking or store.chunking
        )
        self._write(self._store_path(tenant, store.id), changed)
        if self.is_deleted(tenant, store.id):  # meanwhile: it must not come back
            self._objects.delete(self._store_path(tenant, store.id))
            raise NotInLibrary("vector store", store.id)
        return changed

    def touch_store(self, tenant: str, store_id: str) -> VectorStore:
        """Note that a store is used now; it is written once a minute at most."""
        store = self.store(tenant, store_id)
        now = int(time.time())
        if now - store.last_active_at < TOUCHED_EVERY_S:
            return store
        return self.change_store(tenant, msgspec.structs.replace(store, last_active_at=now))

    def delete_store(self, tenant: str, store_id: str) -> None:
        """Delete a store; its files stay. The indexer deletes its index, and then the rest."""
        self._check_store(tenant, store_id)
        # A store that is merely missing may be a mount that failed: only this says it is meant.
        self._objects.write(f"{names.store_folder(tenant, store_id)}/deleted.json", b"{}")
        self._objects.delete(self._store_path(tenant, store_id))
        self._mark(tenant, store_id)

    def is_deleted(self, tenant: str, store_id: str) -> bool:
        """Whether a store was deleted, and not all of it is gone yet."""
        return self._objects.exists(f"{names.store_folder(tenant, store_id)}/deleted.json")

    def forget_store(self, tenant: str, store_id: str) -> None:
        """Delete what is left of a deleted store, whose index is gone. For the indexer alone."""
        folder = names.store_folder(tenant, store_id)
        self._objects.delete(self._store_path(tenant, store_id))
        for part in ("files", "batches"):
            self._objects.delete_folder(f"{folder}/{part}")
        self._objects.delete_folder(folder)

    def delete_file(self, tenant: str, file_id: str) -> None:
        """Delete a file; it leaves every store that it is in."""
        self._check_file(tenant, file_id)
        # From here on it is gone for everyone, and the indexer drops it wherever it still is.
        self._objects.delete(names.file_path(tenant, file_id))
        for store_id in self.store_ids(tenant):
            there = self._objects_of(tenant, store_id).get(file_id)
            if there:
                self._drop(tenant, there)
                self._mark(tenant, store_id)
        self._objects.delete(names.content_path(tenant, file_id))

    def outcome(self, tenant: str, store_id: str) -> StoreOutcome:
        """What the indexer has made of a store until now; nothing, where it has not looked yet."""
        path = f"{names.store_folder(tenant, store_id)}/outcome.json"
        return self._read(path, StoreOutcome) or StoreOutcome()

    def write_outcome(self, tenant: str, store_id: str, outcome: StoreOutcome) -> None:
        """Tell what was made of a store. For the indexer alone, under the lease of the store."""
        self._write(f"{names.store_folder(tenant, store_id)}/outcome.json", outcome)

    def add_batch(self, tenant: str, store_id: str, members: Sequence[Membership]) -> Batch:
        """Note which memberships were made together."""
        self._check_store(tenant, store_id)
        batch = Batch(
            id=names.new_id("file batch"),
            store_id=store_id,
            created_at=int(time.time()),
            members=[(each.file_id, each.version) for each in members],
        )
        self._write(names.batch_path(tenant, store_id, batch.id), batch)
        return batch

    def batch(self, tenant: str, store_id: str, batch_id: str) -> Batch:
        """Which memberships were made together."""
        self._check_store(tenant, store_id)
        found = self._read(names.batch_path(tenant, store_id, batch_id), Batch)
        if found is None:
            raise NotInLibrary("file batch", batch_id)
        return found

    def pending(self) -> list[Marker]:
        """The markers of stores that have changed. Those that are cleared are of these alone."""
        found = []
        for name in sorted(self._objects.names(names.PENDING)):
            if (marked := names.marked(name)) is not None:
                folder, store_id = marked
                if (tenant := self._tenant(folder)) is not None:
                    found.append(Marker(name, tenant, store_id))
        return found

    def clear(self, markers: Iterable[Marker]) -> None:
        """Delete markers whose stores were looked at after these were listed."""
        in_parallel(lambda each: self._objects.delete(f"{names.PENDING}/{each.name}"), markers)

    def _check_file(self, tenant: str, file_id: str) -> None:
        if not self._objects.exists(names.file_path(tenant, file_id)):
            raise NotInLibrary("file", file_id)

    def _store_path(self, tenant: str, store_id: str) -> str:
        return f"{names.store_folder(tenant, store_id)}/store.json"
