"""Waits for what changes in the library of uploads, and has it indexed.

A marker tells at once which store has changed. A look at everything, now and then, finds what a
gateway left without a marker when it died, and deletes what has expired.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NoReturn

from indexer.index.errors import (
    EncoderUnavailable,
    IndexUnavailable,
    LibraryUnavailable,
    NotInLibrary,
)
from indexer.index.library import Library, Marker, VectorStore
from indexer.uploads.indexing import Indexing
from indexer.uploads.means import Processed

LOOKS_AT_ALL_EVERY_S = 60.0
TRIES_AGAIN_AFTER_S = 5.0
"""A store that could not be indexed keeps no other waiting meanwhile."""

_AWAY = (IndexUnavailable, EncoderUnavailable, LibraryUnavailable)
"""What concerns every store."""
_Store = tuple[str, str]
"""Its tenant and its id."""


class Watch:
    """Indexes the stores that have changed, one after the other."""

    def __init__(
        self,
        library: Library,
        indexing: Indexing,
        tell: Callable[[Processed], None],
        complain: Callable[[str], None],
    ) -> None:
        """`tell` is told of each store that was indexed, `complain` why one could not be."""
        self._library = library
        self._indexing = indexing
        self._tell = tell
        self._complain = complain
        self._refused: dict[_Store, Exception] = {}
        self._tries_again_at: dict[_Store, float] = {}
        """For stores that could not be indexed, in monotonic seconds."""
        self._complaint: type[Exception] | None = None

    def once(self) -> None:
        """Bring every store up to date.

        What kept some of them from being indexed is raised when all others have been; Milvus or
        the storage being away, at once.
        """
        self._look(self._everything())
        for exc in self._refused.values():
            raise exc

    def forever(self, interval_s: float) -> NoReturn:
        """Index what changes until the process is interrupted, whatever fails meanwhile."""
        stores: Callable[[], Iterator[_Store]] = self._everything
        looks_at_all = time.monotonic()
        while True:
            try:
                started = time.monotonic()
                if started < looks_at_all:
                    self._look(())
                else:
                    self._look(stores())
                    stores, looks_at_all = self._due, started + LOOKS_AT_ALL_EVERY_S
                self._complaint = None
            except _AWAY as exc:
                if type(exc) is not self._complaint:
                    self._complain(f"{exc}; it is tried until it works")
                self._complaint = type(exc)
            time.sleep(interval_s)

    def _look(self, stores: Iterable[_Store]) -> None:
        """Index what is marked, and `stores`, which wait for what is marked meanwhile."""
        done = self._marked()
        for store in stores:
            if store not in done:
                self._process(store, ())
            done |= self._marked()

    def _marked(self) -> set[_Store]:
        marked: dict[_Store, list[Marker]] = {}
        for marker in self._library.pending():
            marked.setdefault((marker.tenant, marker.store_id), []).append(marker)
        for store, markers in marked.items():
            self._process(store, markers)
        return set(marked)

    def _process(self, store: _Store, markers: Sequence[Marker]) -> None:
        if time.monotonic() < self._tries_again_at.get(store, 0.0):
            return
        try:
            processed = self._indexing.process(*store)
        except _AWAY:
            raise
        except Exception as exc:  # noqa: BLE001  # one store must not keep the others waiting
            if type(exc) is not type(self._refused.get(store)):
                self._complain(f"{store[1]}: {exc or type(exc).__name__}")
            self._refused[store] = exc
            self._tries_again_at[store] = time.monotonic() + TRIES_AGAIN_AFTER_S
            return
        self._refused.pop(store, None)
        self._tries_again_at.pop(store, None)
        # A change that came after these were listed has a marker of its own.
        self._library.clear(markers)
        if processed is not None:
            self._tell(processed)

    def _everything(self) -> Iterator[_Store]:
        """Every store that has an index, or should have: Milvus may have lost it."""
        for tenant, store_id, store in self._stores():
            if store is None or self._indexing.is_known(tenant, store):
                yield tenant, store_id

    def _due(self) -> Iterator[_Store]:
        """Every store whose outcome is not what it should be."""
        for tenant, store_id, store in self._stores():
            if store is None or self._indexing.is_due(tenant, store):
                yield tenant, store_id

    def _stores(self) -> Iterator[tuple[str, str, VectorStore | None]]:
        """Each store with its tenant and its id, and None where it was deleted."""
        now = time.time()
        for tenant in self._library.tenants():
            for file in self._library.files(tenant):
                if file.expires_at is not None and file.expires_at <= now:
                    with contextlib.suppress(NotInLibrary):  # its owner was quicker
                        self._library.delete_file(tenant, file.id)
            self._library.sweep_uploads(tenant)
            for store_id in self._library.store_ids(tenant):
                try:
                    store = self._library.store(tenant, store_id)
                    if store.expires_at is not None and store.expires_at <= now:
                        self._library.delete_store(tenant, store_id)
                        yield tenant, store_id, None
                    else:
                        yield tenant, store_id, store
                except NotInLibrary:
                    if self._library.is_deleted(tenant, store_id):
                        yield tenant, store_id, None
