"""Writes rows as Parquet files to where Milvus imports from, with pymilvus' own writers.

Importing it takes a second, and packages that nothing else needs: `bulk` does it when it must.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import urllib3
from minio import Minio
from minio.error import MinioException
from pymilvus import MilvusException
from pymilvus.bulk_writer import BulkFileType, LocalBulkWriter, RemoteBulkWriter

from indexer.index.collection.bulk import BulkStorage
from indexer.index.collection.generation import Generation, schema
from indexer.index.collection.rows import Rows
from indexer.index.embedding import Vectors
from indexer.index.errors import IndexRefused, IndexUnavailable
from indexer.index.records import Chunk

# It tells of every step on stderr, and of each failure before it is raised.
logging.getLogger("pymilvus.bulk_writer").setLevel(logging.CRITICAL)

FILE_BYTES = 32 << 20
"""Of rows in one file. Until it is written they take some ten times that, as Python floats."""
_NEVER = 1 << 62


class _FailuresAreKept:
    """pymilvus writes files in a thread, and whatever fails there is lost with the thread."""

    failure: Exception | None = None

    def _flush(self, call_back: Callable[[list[str]], None] | None = None) -> None:
        try:
            super()._flush(call_back)  # type: ignore[misc]  # of the class that this is mixed into
        except Exception as exc:  # noqa: BLE001  # raised in `Files`
            self.failure = exc


class _LocalWriter(_FailuresAreKept, LocalBulkWriter):  # type: ignore[misc]  # untyped
    pass


class _RemoteWriter(_FailuresAreKept, RemoteBulkWriter):  # type: ignore[misc]  # untyped
    pass


class Files:
    """Parquet files, in a bucket or in a folder that Milvus reads under the same path."""

    def __init__(
        self,
        generation: Generation,
        folder: Path,
        storage: BulkStorage | None = None,
    ) -> None:
        """`folder` holds a file until it is in the bucket. Raises IndexUnavailable."""
        self._storage = storage
        self._rows = Rows(generation)
        fields = schema(generation.fingerprint)
        with _translated("opened"):
            if storage is None:
                self._writer: Any = _LocalWriter(fields, str(folder), _NEVER, BulkFileType.PARQUET)
            else:
                self._writer = _RemoteWriter(
                    fields,
                    storage.prefix,
                    RemoteBulkWriter.S3ConnectParam(
                        bucket_name=storage.bucket,
                        endpoint=storage.endpoint,
                        access_key=storage.access_key,
                        secret_key=storage.secret_key,
                        secure=storage.is_secure,
                        region=storage.region,
                    ),
                    _NEVER,
                    BulkFileType.PARQUET,
                    local_path=str(folder),
                )

    @property
    def rows(self) -> int:
        """How many rows were added."""
        return int(self._writer.total_row_count)

    @property
    def paths(self) -> list[list[str]]:
        """What Milvus is told to import: each file, as a group of its own."""
        return [list(group) for group in self._writer.batch_files]

    def add(self, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Add rows, with vectors of shape (len(chunks), dimension). Raises as `flush` does."""
        for row in self._rows(chunks, vectors):
            try:
                self._writer.append_row(row)
            except MilvusException as exc:
                raise IndexRefused(f"a row cannot be imported: {exc.message}") from exc
            if self._writer.buffer_size >= FILE_BYTES:
                self.flush()

    def flush(self) -> None:
        """Write what waits. Raises IndexUnavailable, IndexRefused."""
        if not self._writer.buffer_row_count:
            return
        files = len(self._writer.batch_files)
        # Not when the writer sees fit: it then goes on in the thread, and divides by zero rows.
        self._writer.commit()
        if self._writer.failure is not None or len(self._writer.batch_files) == files:
            raise IndexUnavailable(
                f"a file for Milvus could not be written: {_reason(self._writer.failure)}"
            ) from self._writer.failure

    def remove(self) -> None:
        """Remove the files. What cannot be removed stays: it is no reason to fail."""
        with contextlib.suppress(OSError, MinioException, urllib3.exceptions.HTTPError):
            for path in (path for group in self.paths for path in group):
                self._remove(path)
        self._writer.__exit__(None, None, None)

    def _remove(self, path: str) -> None:
        if self._storage is None:
            Path(path).unlink(missing_ok=True)
            return
        client = Minio(
            self._storage.endpoint,
            access_key=self._storage.access_key,
            secret_key=self._storage.secret_key,
            secure=self._storage.is_secure,
            region=self._storage.region,
        )
        client.remove_object(self._storage.bucket, path)


@contextlib.contextmanager
def _translated(done: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, MinioException, MilvusException) as exc:
        raise IndexUnavailable(f"the files for Milvus could not be {done}: {_reason(exc)}") from exc


def _reason(exc: Exception | None) -> str:
    told = getattr(exc, "message", None) or str(exc or "")
    return " ".join(told.split()) or type(exc).__name__
