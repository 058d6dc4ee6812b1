"""Finds documents in folders. Knows paths and file names, not what is in the files."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from indexer.errors import DocumentUnusable, SourceUnusable
from indexer.index.records import key
from indexer.parsing import FORMATS


class SourceFile(msgspec.Struct, frozen=True):
    """A file that is to be in the index."""

    path: Path
    name: str
    """Path from the folder that holds what the user named, with "/": `docs/guide/setup.md`."""

    @property
    def document_id(self) -> str:
        """The same for the same file, whatever folder a run is started from."""
        return key(self.path.resolve().as_uri())

    def read(self) -> bytes:
        """The file's bytes. Raises DocumentUnusable."""
        try:
            return self.path.read_bytes()
        except OSError as exc:
            raise DocumentUnusable(f"cannot be read: {exc.strerror or exc}") from exc


def find_files(paths: Sequence[Path]) -> list[SourceFile]:
    """The documents among and below `paths`, each once, in a stable order.

    Hidden files and folders are passed over, and so are files of unknown formats. Raises
    SourceUnusable when a path is missing, or when all of them hold no document: an empty
    folder is more often a mount that failed than a wish to empty the index.
    """
    files: dict[Path, SourceFile] = {}
    for path in paths:
        for file in _below(path):
            files.setdefault(file.path.resolve(), file)
    if not files:
        known = " ".join(sorted(FORMATS))
        raise SourceUnusable(f"no documents in {', '.join(map(str, paths))} (formats: {known})")
    return sorted(files.values(), key=lambda file: file.name)


def _below(path: Path) -> Iterator[SourceFile]:
    parent = path.resolve().parent
    if path.is_file():
        if path.suffix.lower() not in FORMATS:
            raise SourceUnusable(f"{path} is of no known format ({' '.join(sorted(FORMATS))})")
        yield SourceFile(path, f"{parent.name}/{path.name}")
    elif path.is_dir():
        for folder, subfolders, names in os.walk(path.resolve(), onerror=_refuse):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            for name in names:
                file = Path(folder, name)
                if not name.startswith(".") and file.suffix.lower() in FORMATS and file.is_file():
                    yield SourceFile(file, file.relative_to(parent).as_posix())
    else:
        raise SourceUnusable(f"{path} is not there")


def _refuse(error: OSError) -> None:
    """A folder that cannot be listed looks empty, and its documents would be deleted."""
    raise SourceUnusable(f"{error.filename} cannot be listed: {error.strerror}") from error
