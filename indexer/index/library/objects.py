"""Objects below one URL, written as a whole or not at all. The contract's one user of fsspec.

Knows bytes and names, not what they mean.
"""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeVar, cast

from indexer.index.errors import LibraryFailure, LibraryUnavailable

T = TypeVar("T")
R = TypeVar("R")

COPIED_AT_ONCE = 1 << 20
_THREADS = 16
_WRITES_IN_PLACE = {"file", "local", "ftp", "sftp", "ssh", "smb", "hdfs", "arrow_hdfs", "webhdfs"}
"""File systems where others see a file grow: it is written under another name, and renamed."""


class Objects:
    """What is stored below a URL. Each method raises LibraryUnavailable. Safe for threads."""

    def __init__(self, root_url: str, storage_options: Mapping[str, Any]) -> None:
        import fsspec  # noqa: PLC0415  # takes a while, and only who has a library needs it

        try:
            self._files, root = fsspec.url_to_fs(
                root_url, **{"use_listings_cache": False, **storage_options}
            )
        except Exception as exc:  # drivers raise whatever the libraries below raise
            raise LibraryUnavailable(f"{root_url} cannot be used: {_reason(exc)}") from exc
        self._root = root.rstrip("/")
        protocols = self._files.protocol
        protocols = {protocols} if isinstance(protocols, str) else {*protocols}
        self._renames = not protocols.isdisjoint(_WRITES_IN_PLACE)

    def read(self, path: str) -> bytes | None:
        """The bytes at `path`; None where there is nothing."""
        with _translated(path):
            try:
                return cast("bytes", self._files.cat_file(self._at(path)))
            except FileNotFoundError:
                return None

    def exists(self, path: str) -> bool:
        """Whether there is an object at `path`."""
        with _translated(path):
            self._files.invalidate_cache(self._at(path).rpartition("/")[0])
            try:
                return bool(self._files.info(self._at(path))["type"] == "file")
            except FileNotFoundError:
                return False

    def write(self, path: str, data: bytes) -> None:
        """Make `data` what is at `path`."""
        if self._renames:
            self._written_aside(path, [data])
            return
        with _translated(path):
            self._files.pipe_file(self._at(path), data)

    def write_stream(self, path: str, data: BinaryIO) -> int:
        """Make what `data` gives what is at `path`, and count it; memory holds little of it.

        What reading `data` raises is raised as it is. On an object store, a part of it may be
        there after that, where nothing was.
        """
        if self._renames:
            return self._written_aside(path, _pieces(data))
        try:
            return self._streamed(self._at(path), _pieces(data))
        except BaseException:
            with contextlib.suppress(LibraryFailure):
                self.delete(path)
            raise

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO | None]:
        """The object at `path`, to be read; None where there is nothing."""
        with _translated(path):
            try:
                file = self._files.open(self._at(path), "rb")
            except FileNotFoundError:
                file = None
        if file is None:
            yield None
            return
        with file:
            yield cast("BinaryIO", file)

    def names(self, folder: str) -> list[str]:
        """What is in `folder`, in no particular order; nothing where there is no such folder."""
        with _translated(folder):
            self._files.invalidate_cache(self._at(folder))
            try:
                found = self._files.ls(self._at(folder), detail=False)
            except (FileNotFoundError, NotADirectoryError):
                return []
        # Some stores list a folder in itself; what is hidden is being written.
        itself = self._at(folder).strip("/")
        paths = [path for each in found if (path := str(each).strip("/")) != itself]
        names = [path.rpartition("/")[2] for path in paths]
        return [name for name in names if not name.startswith(".")]

    def modified(self, path: str) -> float | None:
        """When the object at `path` was written, in seconds since the epoch; None if unknown."""
        with _translated(path):
            try:
                return float(self._files.modified(self._at(path)).timestamp())
            except (FileNotFoundError, NotImplementedError):
                return None

    def delete(self, path: str) -> None:
        """See that nothing is at `path`."""
        with _translated(path), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._at(path))

    def delete_folder(self, folder: str) -> None:
        """See that nothing is in `folder`."""
        with _translated(folder), contextlib.suppress(FileNotFoundError):
            self._files.rm(self._at(folder), recursive=True)

    def _written_aside(self, path: str, pieces: Iterable[bytes]) -> int:
        folder, _, name = self._at(path).rpartition("/")
        aside = f"{folder}/.{name[:100]}.{secrets.token_hex(8)}"
        with _translated(path):
            self._files.makedirs(folder, exist_ok=True)
        try:
            size = self._streamed(aside, pieces)
            with _translated(path):
                self._files.mv(aside, f"{folder}/{name}")
        except BaseException:
            with contextlib.suppress(Exception):
                self._files.rm_file(aside)
            raise
        return size

    def _streamed(self, at: str, pieces: Iterable[bytes]) -> int:
        size = 0
        with _translated(at):
            file = self._files.open(at, "wb")
        try:
            for piece in pieces:
                with _translated(at):
                    file.write(piece)
                size += len(piece)
        finally:
            with _translated(at):
                if self._renames:
                    _settle(file)
                file.close()
        return size

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"


def in_parallel(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`function` of each item, in order, asked for in several threads."""
    asked = list(items)
    if len(asked) < 2:
        return [function(item) for item in asked]
    with ThreadPoolExecutor(min(_THREADS, len(asked)), thread_name_prefix="library") as threads:
        return list(threads.map(function, asked))


def _pieces(data: BinaryIO) -> Iterator[bytes]:
    while piece := data.read(COPIED_AT_ONCE):
        yield piece


def _settle(file: Any) -> None:
    """Have a file on this machine's disk before it gets its name: power may fail."""
    file.flush()
    with contextlib.suppress(OSError, AttributeError, ValueError):
        os.fsync(file.fileno())


@contextmanager
def _translated(path: str) -> Iterator[None]:
    try:
        yield
    except LibraryFailure:
        raise
    except FileNotFoundError as exc:
        raise LibraryUnavailable(f"the library lost {path}") from exc
    except Exception as exc:  # drivers raise whatever the libraries below raise
        raise LibraryUnavailable(f"the library cannot reach {path}: {_reason(exc)}") from exc


def _reason(exc: Exception) -> str:
    """One line; a driver's message may be a page of XML."""
    told = " ".join((getattr(exc, "strerror", None) or str(exc)).split())
    return f"{told or type(exc).__name__}"[:300]
