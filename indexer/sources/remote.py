"""Finds and reads files wherever fsspec reaches: S3, GCS, archives. Knows no local paths."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, BinaryIO, cast

import fsspec
import msgspec

from indexer.documents import Content
from indexer.errors import DocumentGone, DocumentUnusable, SourceUnusable
from indexer.index.records import key
from indexer.sources.attributes import SIDECAR_MAX_BYTES, Described, described
from indexer.sources.configuration import Source, scheme_of
from indexer.sources.formats import format_of, sidecars_of
from indexer.sources.patterns import split_glob
from indexer.sources.tree import Entry, walk

_STATES_CHANGE = (
    *("ETag", "etag", "md5Hash", "content_md5", "CRC", "checksum", "sha", "blob_id"),
    *("LastModified", "last_modified", "mtime", "modified", "updated", "date_time", "created"),
)
"""What file systems call the fields of a listing that differ after a change."""


class RemoteFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file in a store that fsspec reaches."""

    uri: str
    location: str
    """What its file system is made from."""
    path: str
    """Its path in that file system."""
    tenant: str
    attributes: dict[str, Any]
    storage_options: dict[str, Any]
    max_bytes: int
    size: int
    version: str
    """Differs when its bytes, its sidecar or its attributes may differ; empty: not known."""
    sidecar: str = ""
    """Path of the file that describes it; empty where there is none."""

    @property
    def name(self) -> str:
        """What people are shown: its URL."""
        return self.uri

    @property
    def format(self) -> str:
        """Suffix that tells the format."""
        return format_of(self.path)

    def read(self, known_version: str = "") -> Content | None:
        """Its content; None when it was listed with `known_version`: nothing is asked then.

        Raises DocumentGone, DocumentUnusable.
        """
        if self.version and known_version == self.version:
            return None
        data = self._bytes(self.path, self.max_bytes)
        said = self.described()
        return Content(
            data=data,
            format=self.format,
            version=self.version,
            attributes=said.attributes,
            title=said.title,
        )

    def open(self) -> AbstractContextManager[BinaryIO]:
        """Its bytes, as a file. What fails inside is DocumentGone or DocumentUnusable."""
        return self._opened(self.path)

    def described(self) -> Described:
        """What configuration and sidecar say of it. Raises DocumentUnusable."""
        if not self.sidecar:
            return Described(self.attributes)
        name = self.sidecar.rpartition("/")[2]
        try:
            data = self._bytes(self.sidecar, SIDECAR_MAX_BYTES)
        except DocumentGone:
            return Described(self.attributes)
        except DocumentUnusable as exc:
            raise DocumentUnusable(f"{name} {exc}") from exc
        return described(self.attributes, name, data)

    def _bytes(self, path: str, max_bytes: int) -> bytes:
        if path != self.path or self.size <= max_bytes:
            with self._opened(path) as file:
                data = file.read(max_bytes + 1)
            if len(data) <= max_bytes:
                return data
        raise DocumentUnusable(f"is larger than {max_bytes:,} bytes")

    @contextmanager
    def _opened(self, path: str) -> Iterator[BinaryIO]:
        try:
            file_system, _ = fsspec.url_to_fs(self.location, **self.storage_options)
            with file_system.open(path, "rb") as file:
                yield cast(BinaryIO, file)
        except DocumentUnusable:
            raise
        except FileNotFoundError as exc:
            raise DocumentGone("is not there any more") from exc
        except Exception as exc:  # drivers raise whatever the libraries below raise
            raise DocumentUnusable(f"cannot be read: {_reason(exc)}") from exc


def find_files(source: Source, problem: Callable[[str], None]) -> Iterator[RemoteFile]:
    """The documents at and below a location, in the order of their paths.

    `problem` is told of each folder that cannot be listed. Raises SourceUnusable when the
    location itself cannot be used.
    """
    first, chained, inner = source.location.partition("::")
    scheme, _, path = first.partition("://")
    path, glob = split_glob(path.rstrip("/"))
    store = _Store(source, f"{scheme}://{path}", f"{chained}{inner}", problem)
    if store.top_info["type"] == "directory":
        yield from store.below(glob)
    elif format_of(path):
        yield store.single()
    else:
        raise SourceUnusable(f"{store.location} is of no known format")


class _Store:
    """The file system of one source, opened at its location."""

    def __init__(self, source: Source, top: str, tail: str, problem: Callable[[str], None]) -> None:
        """`tail` is what `top` is in: "::s3://bucket/docs.zip" for an archive, else empty."""
        self.location = f"{top}{tail}"
        self._source = source
        self._top = top
        self._tail = tail
        self._problem = problem
        try:
            self._files, root = fsspec.url_to_fs(self.location, **source.storage_options)
            self._root: str = root.rstrip("/")
            self._files.invalidate_cache()
            self.top_info: dict[str, Any] = self._files.info(root)
        except FileNotFoundError as exc:
            raise SourceUnusable(f"{self.location} is not there") from exc
        except ImportError as exc:
            raise SourceUnusable(_missing(scheme_of(self.location), exc)) from exc
        except Exception as exc:  # drivers raise whatever the libraries below raise
            raise SourceUnusable(f"{self.location} cannot be listed: {_reason(exc)}") from exc

    def single(self) -> RemoteFile:
        """The location itself, which is a file."""
        for name in sidecars_of(self._root):
            info = self._info(name)
            if info is not None:
                return self._document(self.location, self.top_info, info)
        return self._document(self.location, self.top_info, None)

    def below(self, glob: str) -> Iterator[RemoteFile]:
        """The documents in the folder that the location is."""
        folder = self._top if self._top.endswith("://") else f"{self._top}/"
        for found in walk(self._scan, self._source.patterns(glob)):
            sidecar = found.sidecar.detail if found.sidecar else None
            uri = f"{folder}{found.path}{self._tail}"
            yield self._document(uri, found.entry.detail, sidecar)

    def _scan(self, below: str) -> list[Entry]:
        folder = "/".join(part for part in (self._root, below) if part)
        try:
            entries = self._files.ls(folder, detail=True)
            self._files.invalidate_cache(folder)  # or it would grow with the store
        except Exception as exc:  # noqa: BLE001  # drivers raise whatever the libraries below raise
            self._problem(f"{self._top}/{below}{self._tail} cannot be listed: {_reason(exc)}")
            return []
        names = [info["name"].rstrip("/") for info in entries]
        return [
            Entry(name.rpartition("/")[2], info["type"] == "directory", info)
            for name, info in zip(names, entries, strict=True)
            if name.strip("/") != folder.strip("/")  # object stores may list a folder in itself
        ]

    def _info(self, path: str) -> dict[str, Any] | None:
        try:
            return cast("dict[str, Any]", self._files.info(path))
        except FileNotFoundError:
            return None
        except Exception as exc:  # drivers raise whatever the libraries below raise
            raise SourceUnusable(f"{path} cannot be read: {_reason(exc)}") from exc

    def _document(
        self, uri: str, info: dict[str, Any], sidecar: dict[str, Any] | None
    ) -> RemoteFile:
        return RemoteFile(
            uri=uri,
            location=self.location,
            path=info["name"],
            tenant=self._source.tenant,
            attributes=self._source.attributes,
            storage_options=self._source.storage_options,
            max_bytes=self._source.max_bytes,
            size=info.get("size") or 0,
            version=_version(self._source.attributes, info, sidecar),
            sidecar=sidecar["name"] if sidecar else "",
        )


def _version(
    attributes: dict[str, Any], info: dict[str, Any], sidecar: dict[str, Any] | None
) -> str:
    parts = [msgspec.json.encode(attributes, order="sorted").decode()]
    for stated in (info, sidecar):
        if stated is None:
            continue
        known = [f"{name}={stated[name]}" for name in _STATES_CHANGE if stated.get(name)]
        if not known:
            return ""
        parts += [*known, f"size={stated.get('size')}"]
    return key(*parts)


def _missing(scheme: str, exc: ImportError) -> str:
    package = (getattr(exc.__cause__, "name", None) or exc.name or "").partition(".")[0]
    if not package:
        return f"{scheme}:// needs a package that is not installed: {exc}"
    return f"{scheme}:// needs the package {package}: pip install {package}"


def _reason(exc: Exception) -> str:
    """One line; a driver's message may be a page of XML."""
    told = " ".join((getattr(exc, "strerror", None) or str(exc)).split())
    return f"{told or type(exc).__name__}"[:300]
