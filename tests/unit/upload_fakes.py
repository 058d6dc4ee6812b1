"""A library with uploads in it, and the fakes that its stores are indexed with."""

import io
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from indexer.chunking import Chunker, ChunkerSettings
from indexer.documents import Content
from indexer.errors import DocumentUnusable
from indexer.index.library import (
    Attributes,
    Chunking,
    ExpiresAfter,
    Library,
    Outcome,
    VectorStore,
    new_id,
)
from indexer.index.records import AttributeType, Fingerprint
from indexer.preparation import Prepared
from indexer.uploads.indexing import Indexing
from indexer.uploads.means import Means, Processed
from indexer.uploads.preparation import UploadPreparation
from tests.unit.index_fakes import FakeEncoder, FakeLease, FakeWriter

TENANT = "acme"
PLACES = ["folder", "file url", "memory"]


def library_at(place: str, folder: Path) -> Library:
    """An empty library; `folder` is of this test alone."""
    urls = {
        "folder": f"{folder}/library",
        "file url": f"file://{folder}/library",
        "memory": f"memory://{folder}",
    }
    return Library(urls[place])


class StoreWriter(FakeWriter):
    """The collections of one store. `failure` is raised instead of giving its lease."""

    def __init__(self) -> None:
        super().__init__()
        self.failure: Exception | None = None

    @contextmanager
    def lease(self, duration_s: float) -> Iterator[Any]:
        if self.failure is not None:
            raise self.failure
        with super().lease(duration_s) as lease:
            assert isinstance(lease, FakeLease)
            yield lease

    def check_lease(self) -> None:
        pass

    def remove(self) -> None:
        self.calls.append("remove")
        self.alias = None
        self.collections.clear()
        self.described.clear()


class UploadsInThisProcess:
    """Prepares uploads at once, and remembers which files that were."""

    def __init__(self, settings: ChunkerSettings) -> None:
        self._prepare = UploadPreparation(settings)
        self.prepared: list[str] = []

    def submit(self, content: Content) -> "Future[Prepared]":
        self.prepared.append(content.title)
        future: Future[Prepared] = Future()
        try:
            future.set_result(self._prepare(content))
        except DocumentUnusable as exc:
            future.set_exception(exc)
        return future


class Stack:
    """What `watch` is made of, in this process."""

    def __init__(self, library: Library, size: int = 64) -> None:
        self.library = library
        self.encoder = FakeEncoder()
        self.writers: dict[str, StoreWriter] = defaultdict(StoreWriter)
        chunker = ChunkerSettings(size=size, overlap_percent=0)
        self.workers = UploadsInThisProcess(chunker)
        self.means = Means(
            library=library,
            encoder=self.encoder,
            workers=self.workers,
            chunker=chunker,
            fingerprint=self._fingerprint,
            writer=self._writer,
            lease_duration_s=60,
            keep_generations=1,
        )

    def _fingerprint(
        self, attributes: dict[str, AttributeType], chunker: ChunkerSettings
    ) -> Fingerprint:
        return Fingerprint(
            encoder=self.encoder.identity,
            chunker=Chunker(chunker).description,
            attributes=attributes,
        )

    @contextmanager
    def _writer(self, name: str) -> Iterator[StoreWriter]:
        yield self.writers[name]


def add_store(
    library: Library,
    *,
    expires_after: ExpiresAfter | None = None,
    chunking: Chunking | None = None,
    tenant: str = TENANT,
) -> VectorStore:
    now = int(time.time())
    store = VectorStore(
        id=new_id("vector store"),
        name="a store",
        created_at=now,
        last_active_at=now,
        expires_after=expires_after,
        chunking=chunking,
    )
    return library.add_store(tenant, store)


def add_file(
    library: Library, text: str | bytes, name: str = "a.md", *, tenant: str = TENANT, **more: Any
) -> str:
    data = text.encode() if isinstance(text, str) else text
    return library.add_file(tenant, name, "assistants", io.BytesIO(data), **more).id


def attached(
    library: Library,
    store: VectorStore,
    text: str | bytes,
    name: str = "a.md",
    attributes: Attributes | None = None,
) -> str:
    file_id = add_file(library, text, name)
    library.attach(TENANT, store.id, file_id, attributes or {})
    return file_id


def aged(library: Library, store: VectorStore, seconds: int) -> VectorStore:
    """The same store, last used so long ago."""
    older = msgspec.structs.replace(store, last_active_at=store.last_active_at - seconds)
    return library.change_store(TENANT, older)


def indexed(stack: Stack, store: VectorStore) -> Processed:
    stack.encoder.calls.clear()
    stack.workers.prepared.clear()
    processed = Indexing(stack.means).process(TENANT, store.id)
    assert processed is not None
    return processed


def outcome(library: Library, store: VectorStore, file_id: str) -> Outcome:
    found = library.outcome(TENANT, store.id).of(library.member(TENANT, store.id, file_id))
    assert found is not None
    return found
