"""Makes the index of one vector store equal to what the library says is in it."""

import time

from indexer.errors import ConfigurationUnusable
from indexer.index.errors import NotInLibrary
from indexer.index.library import VectorStore
from indexer.uploads.contents import StoreContents
from indexer.uploads.means import Means, Processed, built_with


class Indexing:
    """Indexes vector stores, one at a time."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._library = means.library

    def process(self, tenant: str, store_id: str) -> Processed | None:
        """Bring the index of a store up to date, and its outcome; None where there is none.

        A file that cannot be used has its reason in the outcome, and so have all of them where
        the store as a whole cannot be indexed. Raises IndexUnavailable, LeaseFailure and
        LibraryUnavailable: what was written until then is taken up the next time.
        """
        if self._store(tenant, store_id) is None and not self._library.is_deleted(tenant, store_id):
            return None
        started = time.monotonic()
        means = self._means
        with (
            means.writer(store_id) as writer,
            writer.lease(means.lease_duration_s) as lease,
        ):
            done = Processed(tenant=tenant, vector_store=store_id)
            if self._library.is_deleted(tenant, store_id):
                writer.remove()
                self._library.forget_store(tenant, store_id)
                done.is_gone = True
            elif (store := self._store(tenant, store_id)) is not None:
                contents = StoreContents(means, writer, tenant, store)
                outcome = contents.index(lease.run, done)
                writer.check_lease()
                self._library.write_outcome(tenant, store_id, outcome)
                states = [each.status for each in outcome.files.values()]
                done.completed, done.failed = states.count("completed"), states.count("failed")
        done.seconds = time.monotonic() - started
        return done

    def is_known(self, tenant: str, store: VectorStore) -> bool:
        """Whether a store has an index, or should have one."""
        outcome = self._library.outcome(tenant, store.id)
        return outcome.is_published or bool(self._versions(tenant, store))

    def is_due(self, tenant: str, store: VectorStore) -> bool:
        """Whether the outcome of a store is not that of its members and of these means."""
        outcome = self._library.outcome(tenant, store.id)
        known = {file_id: each.version for file_id, each in outcome.files.items()}
        if known != self._versions(tenant, store):
            return True
        try:
            return bool(known) and outcome.built_with != built_with(self._means, store)
        except ConfigurationUnusable:
            return True

    def _versions(self, tenant: str, store: VectorStore) -> dict[str, str]:
        """Those of the members that are to be indexed, by the ids of their files."""
        try:
            members = self._library.members(tenant, store.id)
        except NotInLibrary:
            return {}  # it was deleted a moment ago, and that has left a marker
        return {each.file_id: each.version for each in members if not each.is_cancelled}

    def _store(self, tenant: str, store_id: str) -> VectorStore | None:
        try:
            return self._library.store(tenant, store_id)
        except NotInLibrary:
            return None
