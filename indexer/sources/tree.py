"""Walks folders in a stable order and tells documents from the rest. Knows no file system."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from indexer.sources.formats import described_by, format_of, sidecars_of
from indexer.sources.patterns import Patterns


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What a folder holds: a file, or a folder."""

    name: str
    is_folder: bool
    detail: Any = None
    """Whatever the file system needs to know of it later."""


class Found(msgspec.Struct, frozen=True, gc=False):
    """A document of a known format."""

    path: str
    """From the top of the walk, with "/"."""
    entry: Entry
    sidecar: Entry | None


def walk(
    scan: Callable[[str], Iterable[Entry]], patterns: Patterns, prefix: str = ""
) -> Iterator[Found]:
    """The documents below the top, in the order of their paths.

    `scan` gives the entries of a folder by its path from the top, which is "". What is hidden is
    passed over. Patterns see `prefix` in front of each path. At most one folder of each level is
    in memory.
    """
    levels = [_chosen("", scan, patterns, prefix)]
    while levels:
        step = next(levels[-1], None)
        match step:
            case None:
                levels.pop()
            case str():
                levels.append(_chosen(f"{step}/", scan, patterns, prefix))
            case Found():
                yield step


def _chosen(
    folder: str, scan: Callable[[str], Iterable[Entry]], patterns: Patterns, prefix: str
) -> Iterator[Found | str]:
    """The documents of `folder`, "" or "guide/", and the paths of its folders."""
    entries: dict[str, Entry] = {}
    sidecars: dict[str, Entry] = {}
    for entry in scan(folder.rstrip("/")):
        if entry.name.startswith("."):
            continue
        if entry.is_folder:
            # Sorted as the paths of the files in it are: "guide.md" stands before "guide/a.md".
            entries[f"{entry.name}/"] = entry
        elif described_by(entry.name):
            sidecars[entry.name] = entry
        elif format_of(entry.name):
            entries[entry.name] = entry
    for name in sorted(entries):
        entry = entries[name]
        path = f"{folder}{entry.name}"
        if entry.is_folder:
            if patterns.want_folder(prefix + path):
                yield path
        elif patterns.want_file(prefix + path):
            beside = (sidecars[each] for each in sidecars_of(name) if each in sidecars)
            yield Found(path, entry, next(beside, None))
