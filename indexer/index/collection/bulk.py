"""Milvus' own bulk import, for first loads of millions of rows: files instead of requests.

Rows are written as Parquet files to the bucket that Milvus keeps its data in, and Milvus is told
to import them. They are in the collection all at once, at the end, so this is for a generation
that is empty and that nobody reads. Imported rows replace none with the same key.
Milvus Lite has no import: it takes Milvus Standalone or Distributed.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from pymilvus import MilvusClient

from indexer.index.collection.connecting import connection
from indexer.index.collection.failures import translated_errors
from indexer.index.collection.generation import BULK_LOAD_PROPERTY, Generation
from indexer.index.embedding import Vectors
from indexer.index.errors import IndexRefused
from indexer.index.records import Chunk
from indexer.index.settings import IndexSettings

if TYPE_CHECKING:
    from indexer.index.collection.bulk_files import Files
    from indexer.index.collection.bulk_jobs import ImportJobs

LOAD_TIMEOUT_S = 1800.0
"""Seconds that Milvus may take to load what it has imported."""


class BulkStorage(msgspec.Struct, frozen=True, kw_only=True):
    """The bucket that Milvus keeps its data in, as S3: Milvus imports from no other."""

    endpoint: str
    """Host and port."""
    bucket: str
    access_key: str = ""
    secret_key: str = ""
    is_secure: bool = True
    """Whether it is HTTPS."""
    region: str | None = None
    prefix: str = "groundserve"
    """Folder in the bucket, for the files of all loads."""


class BulkLoad:
    """Rows on their way into one generation. Made by `bulk_load`."""

    def __init__(
        self,
        files: "Files",
        jobs: "ImportJobs",
        client: MilvusClient,
        generation: Generation,
        timeout_s: float,
    ) -> None:
        self._files = files
        self._jobs = jobs
        self._client = client
        self._collection = generation.collection
        self._timeout_s = timeout_s

    def upsert(self, generation: Generation, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Take rows as `IndexWriter.upsert` does; `vectors` has shape (len(chunks), dimension).

        Raises IndexUnavailable when a file cannot be written, IndexRefused for a row that Milvus
        would not take.
        """
        if generation.collection != self._collection:
            raise ValueError(f"{generation.collection} is not what is being loaded")
        self._files.add(chunks, vectors)

    def finish(self) -> int:
        """Import everything and wait until it can be read; gives the number of rows.

        Raises IndexUnavailable, IndexRefused and LeaseLost.
        """
        self._files.flush()
        before = self._count()  # of other tenants, perhaps
        if self._files.rows:
            self._mark("running")
            self._jobs.run(self._collection, self._files.paths)
            self._mark("")
            with translated_errors():
                # A loaded collection does not show imported rows until it is told to.
                self._client.refresh_load(
                    self._collection, timeout=max(self._timeout_s, LOAD_TIMEOUT_S)
                )
        rows = self._count() - before
        if rows != self._files.rows:
            raise IndexRefused(f"Milvus has {rows:,} rows of an import of {self._files.rows:,}")
        return rows

    def _mark(self, state: str) -> None:
        with translated_errors():
            self._client.alter_collection_properties(
                self._collection, {BULK_LOAD_PROPERTY: state}, timeout=self._timeout_s
            )

    def _count(self) -> int:
        with translated_errors():
            [counted] = self._client.query(
                self._collection,
                filter="",
                output_fields=["count(*)"],
                consistency_level="Strong",
                timeout=self._timeout_s,
            )
        return int(counted["count(*)"])


@contextmanager
def bulk_load(
    settings: IndexSettings,
    storage: BulkStorage | Path,
    generation: Generation,
    held: Callable[[], object],
    on_progress: Callable[[int], None] = lambda _: None,
) -> Iterator[BulkLoad]:
    """A load of `generation`; its files are removed, whether it ends well or not.

    `storage` may be a folder that Milvus sees under the same path. `held` is called before each
    request to Milvus and raises LeaseLost; `on_progress` is told percents of the import. Raises
    IndexRefused when a package is missing, and IndexUnavailable.
    """
    files_class, jobs_class = _imported()
    with tempfile.TemporaryDirectory(prefix="bulk-") as folder:
        if isinstance(storage, Path):
            files = files_class(generation, storage)
        else:
            files = files_class(generation, Path(folder), storage)
        try:
            with translated_errors():
                client = MilvusClient(**connection(settings))
            try:
                jobs = jobs_class(settings, held, on_progress)
                yield BulkLoad(files, jobs, client, generation, settings.milvus_timeout_s)
            finally:
                client.close()
        finally:
            files.remove()


def _imported() -> "tuple[type[Files], type[ImportJobs]]":
    """What needs packages that nothing else does. Raises IndexRefused when one is missing."""
    guard = logging.NullHandler()
    logging.getLogger().addHandler(guard)  # or pymilvus.bulk_writer sets up logging for everybody
    try:
        from indexer.index.collection.bulk_files import Files
        from indexer.index.collection.bulk_jobs import ImportJobs
    except ModuleNotFoundError as exc:
        raise IndexRefused(f"a bulk load needs more packages: {exc}") from exc
    finally:
        logging.getLogger().removeHandler(guard)
    return Files, ImportJobs
