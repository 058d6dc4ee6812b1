"""Finds files on this machine and reads them. Knows paths and file names, not what is in files."""

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import msgspec

from indexer.documents import Content
from indexer.errors import DocumentGone, DocumentUnusable, SourceUnusable
from indexer.sources.attributes import SIDECAR_MAX_BYTES, Described, described
from indexer.sources.configuration import Source, scheme_of
from indexer.sources.formats import format_of, sidecars_of
from indexer.sources.patterns import split_glob
from indexer.sources.tree import Entry, walk


class LocalFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is to be in the index."""

    path: Path
    uri: str
    """Of the file itself, whatever links lead to it."""
    name: str
    """Path from the folder that holds what the user named, with "/": `docs/guide/setup.md`."""
    tenant: str
    attributes: dict[str, Any]
    max_bytes: int
    sidecar: Path | None = None
    """The file that describes it."""

    @property
    def format(self) -> str:
        """Suffix that tells the format; a link's own, not that of the file it leads to."""
        return format_of(self.path.name)

    def read(self, known_version: str = "") -> Content | None:  # noqa: ARG002
        """Its content, always: times and sizes do not tell reliably that a file is the same.

        Raises DocumentGone, DocumentUnusable.
        """
        with self.open() as file:
            data = _read(file, self.max_bytes)
        said = self.described()
        return Content(
            data=data,
            format=self.format,
            attributes=said.attributes,
            title=said.title,
        )

    def open(self) -> AbstractContextManager[BinaryIO]:
        """Its bytes, as a file. What fails inside is DocumentGone or DocumentUnusable."""
        return _regular_file(self.path)

    def described(self) -> Described:
        """What configuration and sidecar say of it. Raises DocumentUnusable."""
        if self.sidecar is None:
            return Described(self.attributes)
        name = _shown(self.sidecar.name)
        try:
            with _regular_file(self.sidecar) as file:
                data = _read(file, SIDECAR_MAX_BYTES)
        except DocumentGone:
            return Described(self.attributes)
        except DocumentUnusable as exc:
            raise DocumentUnusable(f"{name} {exc}") from exc
        return described(self.attributes, name, data)


def find_files(source: Source, problem: Callable[[str], None]) -> Iterator[LocalFile]:
    """The documents at and below a location, in the order of their paths.

    Links are followed, links to folders last, and each real folder is listed once, so that loops
    end. `problem` is told of each folder that cannot be listed: it looks empty, and its documents
    would be deleted. Raises SourceUnusable when the location itself cannot be used.
    """
    location, glob = _path(source.location), ""
    if not (Path(location).exists() or Path(location).is_symlink()):
        location, glob = split_glob(location)
    path = Path(location or "/")
    try:
        top = path.resolve(strict=True)
        mode = top.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise SourceUnusable(f"{_shown(path)} is not there") from exc
    except OSError as exc:
        raise SourceUnusable(f"{_shown(path)} cannot be read: {exc.strerror}") from exc
    except RuntimeError as exc:  # what pathlib makes of ELOOP
        raise SourceUnusable(f"{_shown(path)} is a link that leads to itself") from exc
    if stat.S_ISREG(mode):
        if not format_of(path.name):
            raise SourceUnusable(f"{_shown(path)} is of no known format")
        beside = (path.with_name(name) for name in sidecars_of(path.name))
        sidecar = next((each for each in beside if each.exists()), None)
        name = f"{top.parent.name}/{path.name}"
        yield _document(source, path, name, sidecar, is_link=True)
    elif stat.S_ISDIR(mode):
        yield from _Walk(source, top, glob, problem)
    else:
        raise SourceUnusable(f"{_shown(path)} is neither a file nor a folder")


class _Walk:
    """One walk over a folder and whatever its links lead to."""

    def __init__(
        self, source: Source, top: Path, glob: str, problem: Callable[[str], None]
    ) -> None:
        self._source = source
        self._top = top
        self._patterns = source.patterns(glob)
        self._problem = problem
        self._listed: set[tuple[int, int]] = set()
        self._links: deque[str] = deque()
        """Paths of links to folders, from the top."""

    def __iter__(self) -> Iterator[LocalFile]:
        yield from self._below("")
        while self._links:
            link = self._links.popleft()
            if self._patterns.want_folder(link):
                yield from self._below(f"{link}/")

    def _below(self, prefix: str) -> Iterator[LocalFile]:
        """The documents in the folder at `prefix`, from the top: "" or "link/"."""
        base = (self._top / prefix).resolve()
        name = f"{self._top.name}/{prefix}"
        for found in walk(partial(self._scan, base, prefix), self._patterns, prefix):
            path = base / found.path
            sidecar = path.with_name(found.sidecar.name) if found.sidecar else None
            is_link = found.entry.detail
            yield _document(self._source, path, name + found.path, sidecar, is_link=is_link)

    def _scan(self, base: Path, prefix: str, below: str) -> Iterator[Entry]:
        folder = base / below
        links = []
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in self._listed:
                return
            self._listed.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        yield Entry(entry.name, is_folder=True)
                    elif _is_folder_link(entry):
                        links.append(entry.name)
                    elif _may_be_file(entry):
                        yield Entry(entry.name, is_folder=False, detail=entry.is_symlink())
        except OSError as exc:
            self._problem(f"{_shown(folder)} cannot be listed: {exc.strerror}")
        above = prefix + (f"{below}/" if below else "")
        self._links.extend(above + link for link in sorted(links) if not link.startswith("."))


def _is_folder_link(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_symlink() and entry.is_dir()
    except OSError:
        return False


def _may_be_file(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a file, or a link that may lead to one: reading it tells what hinders."""
    try:
        return entry.is_file()
    except OSError as exc:
        return exc.errno == errno.EACCES


def _document(
    source: Source, path: Path, name: str, sidecar: Path | None, *, is_link: bool
) -> LocalFile:
    return LocalFile(
        path=path,
        uri=(path.resolve() if is_link else path).as_uri(),
        name=_shown(name),
        tenant=source.tenant,
        attributes=source.attributes,
        max_bytes=source.max_bytes,
        sidecar=sidecar,
    )


def _path(location: str) -> str:
    if scheme_of(location) != "file":
        return location
    parts = urlsplit(location)
    if parts.netloc not in ("", "localhost"):
        raise SourceUnusable(f"{location} names another machine, where file:///path is meant")
    return unquote(parts.path, errors="surrogateescape")


def _shown(path: Path | str) -> str:
    """`path` as text that can be stored: names that are not UTF-8 have U+FFFD in them."""
    return os.fsencode(path).decode(errors="replace")


@contextmanager
def _regular_file(path: Path) -> Iterator[BinaryIO]:
    try:
        # A file that was replaced by a FIFO after it was listed would block here for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise DocumentUnusable("is no regular file")
            yield file
    except FileNotFoundError as exc:
        if _is_empty(path.parent):
            raise DocumentUnusable("is not there any more, nor is anything beside it") from exc
        raise DocumentGone("is not there any more") from exc
    except OSError as exc:
        raise DocumentUnusable(f"cannot be read: {exc.strerror or exc}") from exc


def _is_empty(folder: Path) -> bool:
    """Whether a folder that held something may have been unmounted since."""
    try:
        return not any(folder.iterdir())
    except OSError:
        return True


def _read(file: BinaryIO, max_bytes: int) -> bytes:
    """All of `file`; of one that still grows, what is there when its end is reached."""
    size = os.fstat(file.fileno()).st_size
    if size <= max_bytes:
        data = file.read(size + 1)
        if len(data) > size:
            data += file.read(max_bytes + 1 - len(data))
        if len(data) <= max_bytes:
            return data
    raise DocumentUnusable(f"is larger than {max_bytes:,} bytes")
