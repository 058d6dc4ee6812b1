"""The documents that both sides index, and what happens to them between two runs."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from pathlib import Path

from stack.errors import Unsuitable

SUFFIXES = (".html", ".htm", ".md", ".txt")
"""Formats that both sides read with what they recommend for them."""
FEWEST = 5
"""Of fewer documents one is more than the share that Groundserve deletes without being told."""

_SENTENCE = (
    "This paragraph was rewritten after the first run; whoever still finds the one that stood here "
    "before reads an old version of the document."
)
_MARKUP = ("#", "```", "|", "-", "*", ">", "    ", "\t", "<")
_PARAGRAPH_CHARS = 40


class Variant(Enum):
    """A state of the sources."""

    ORIGINAL = "original"
    CHANGED = "changed"
    REMOVED = "removed"
    RENAMED = "renamed"


@dataclass(frozen=True)
class Corpus:
    """Documents in a folder, and which of them change. Paths are relative to the folder."""

    folder: Path
    changed: Path
    new_text: str
    """Of the changed document."""
    removed: Path
    renamed: Path

    def paths(self) -> list[Path]:
        """All of them, in the original variant."""
        return _files(self.folder)

    def show(self, variant: Variant, folder: Path) -> None:
        """Make `folder` what the sources are in `variant`."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder)
        if variant is Variant.CHANGED:
            (folder / self.changed).write_text(self.new_text, encoding="utf-8")
        elif variant is Variant.REMOVED:
            (folder / self.removed).unlink()
        elif variant is Variant.RENAMED:
            old = folder / self.renamed
            old.rename(old.with_name(f"renamed-{old.name}"))


def prepare(source: Path, folder: Path, limit: int | None = None) -> Corpus:
    """Copy the documents of a folder, or of a JSONL file, to `folder`; `limit` takes the first.

    Raises Unsuitable when there are too few, or none has a paragraph that could change.
    """
    if not source.exists():
        raise Unsuitable(f"{source} does not exist")
    folder.mkdir(parents=True)
    if source.is_file():
        _write_records(source, folder, limit)
    else:
        _copy(source, folder, limit)
    documents = _files(folder)
    if len(documents) < FEWEST:
        raise Unsuitable(
            f"{source} holds {len(documents)} documents ending in {', '.join(SUFFIXES)}; "
            f"the comparison needs {FEWEST}"
        )
    changed, new_text = _first_rewritten(documents, source)
    removed, renamed = islice((path for path in documents if path != changed), 2)
    return Corpus(
        folder,
        changed.relative_to(folder),
        new_text,
        removed.relative_to(folder),
        renamed.relative_to(folder),
    )


def rewritten(text: str, suffix: str) -> str | None:
    """`text` with another paragraph in its middle; None where it has no paragraph of prose."""
    if suffix in (".html", ".htm"):
        found = [
            match.span(1)
            for match in re.finditer(r"<p\b[^>]*>(.*?)</p>", text, re.DOTALL | re.IGNORECASE)
            if len(re.sub(r"<[^>]*>", "", match[1]).strip()) >= _PARAGRAPH_CHARS
        ]
    else:
        found = [
            match.span()
            for match in re.finditer(r"\S(?:.(?!\n\s*\n))*.", text, re.DOTALL)
            if len(match[0]) >= _PARAGRAPH_CHARS and not match[0].startswith(_MARKUP)
        ]
    if not found:
        return None
    start, end = found[len(found) // 2]
    return f"{text[:start]}{_SENTENCE}{text[end:]}"


def _first_rewritten(documents: list[Path], source: Path) -> tuple[Path, str]:
    """A document of about the middle size, with a paragraph changed."""
    by_size = sorted(documents, key=lambda path: path.stat().st_size)
    middle = len(by_size) // 2
    for path in by_size[middle:] + by_size[:middle][::-1]:
        try:
            new_text = rewritten(path.read_text(encoding="utf-8"), path.suffix.lower())
        except UnicodeDecodeError:
            continue
        if new_text is not None:
            return path, new_text
    raise Unsuitable(f"no document of {source} has a paragraph that could be changed")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _copy(source: Path, folder: Path, limit: int | None) -> None:
    paths = (
        path
        for path in sorted(source.rglob("*"))
        if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    for path in islice(paths, limit):
        copy = folder / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        # Not its permissions: the copy of a read-only file is changed later.
        shutil.copyfile(path, copy)


def _write_records(source: Path, folder: Path, limit: int | None) -> None:
    for name, text in islice(_records(source), limit):
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")


def _records(source: Path) -> Iterator[tuple[str, str]]:
    """Name and text of each line, as BEIR has them: `_id`, `title`, `text`."""
    with source.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                name = re.sub(r"[^\w.-]", "_", str(record.get("_id", number)))
                yield name, f"{record.get('title', '')}\n\n{record['text']}".strip()
            except (ValueError, KeyError, AttributeError) as exc:
                raise Unsuitable(f"{source}, line {number}, is no JSON with a text") from exc
