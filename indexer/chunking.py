"""Cuts a document's Markdown text into chunks. Knows text, not files or vectors."""

from bisect import bisect_right

import msgspec
from semantic_text_splitter import MarkdownSplitter

from indexer.parsing import Heading, is_only_headings, outline


class Span(msgspec.Struct, frozen=True):
    """A piece of a document's text."""

    start: int
    """First character in the document's text."""
    text: str
    heading_path: str
    """Headings above it, outermost first, joined by " > "."""

    @property
    def end(self) -> int:
        """One past its last character."""
        return self.start + len(self.text)


class Chunker:
    """Splits at the largest Markdown element that fits: section, block, sentence, word."""

    def __init__(self, size: int, overlap_percent: int) -> None:
        """`size` in characters; neighbours share up to `overlap_percent` of it."""
        self._splitter = MarkdownSplitter(size, overlap=size * overlap_percent // 100)
        self.description = (
            f"semantic-text-splitter markdown {size} characters {overlap_percent}% overlap"
        )

    def split(self, text: str) -> list[Span]:
        """The spans of `text` in order, none longer than the size, each with its headings.

        A heading that the splitter left alone is no span: it says nothing that the heading
        path of the next one does not say.
        """
        headings = outline(text)
        starts = [heading.start for heading in headings]
        return [
            Span(start, piece, _path(headings[: bisect_right(starts, start)]))
            for start, piece in self._splitter.chunk_indices(text)
            if start not in starts or not is_only_headings(piece)
        ]


def _path(before: list[Heading]) -> str:
    path: list[Heading] = []
    for heading in before:
        while path and path[-1].level >= heading.level:
            path.pop()
        path.append(heading)
    return " > ".join(heading.text for heading in path)
