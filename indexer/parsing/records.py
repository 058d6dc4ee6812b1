"""Writes the rows of a table as text. Knows rows, not the files they come from."""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from indexer.errors import DocumentUnusable
from indexer.parsing import MAX_CHARACTERS


def to_text(rows: Iterable[Sequence[str]]) -> str:
    """Each row as a paragraph that is understood by itself, its values named by the header.

    A long table is cut into chunks, and a chunk from its middle says nothing without the names
    of the columns. Where the first row names no columns, a row is one line of its values.
    Raises DocumentUnusable when the text becomes longer than MAX_CHARACTERS.
    """
    written = 0
    paragraphs = []
    for paragraph in _paragraphs(rows):
        written += len(paragraph) + 2
        if written > MAX_CHARACTERS:
            raise DocumentUnusable(f"its text is longer than {MAX_CHARACTERS:,} characters")
        paragraphs.append(paragraph)
    return "\n\n".join(paragraphs)


def _paragraphs(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    filled = (row for row in map(_cells, rows) if any(row))
    first = next(filled, None)
    if first is None:
        return
    second = next(filled, None)
    if second is None or not _names_columns(first):
        for row in itertools.chain([first], [second] if second else [], filled):
            yield _plain_line(" | ".join(filter(None, row)))
        return
    for row in itertools.chain([second], filled):
        names = itertools.chain(first, itertools.repeat(""))
        yield "\n".join(
            _plain_line(f"{name}: {value}" if name else value)
            for name, value in zip(names, row, strict=False)
            if value
        )


def _cells(row: Sequence[str]) -> list[str]:
    cells = [" ".join(cell.split()) for cell in row]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _names_columns(row: Sequence[str]) -> bool:
    return (
        all(row)
        and len(set(row)) == len(row)
        and not any(_NUMBER.fullmatch(cell) for cell in row)
        and max(map(len, row)) <= _LONGEST_NAME
    )


def _plain_line(line: str) -> str:
    """A value that begins with a number sign is no heading."""
    return f"\\{line}" if line.startswith("#") else line


_LONGEST_NAME = 100
_NUMBER = re.compile(r"[-+]?[\d.,]*\d\s*%?")
