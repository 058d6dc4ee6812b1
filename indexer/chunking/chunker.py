"""Fills chunks with the largest Markdown elements that fit. Knows text, not files or vectors."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from indexer.chunking.anchors import matched, slugs
from indexer.chunking.cutting import Cutter
from indexer.chunking.layout import Layout
from indexer.chunking.sizes import Characters, Room, Size, Tokens, load_tokenizer
from indexer.documents import Span
from indexer.index.passages import SEPARATOR, passage, text_alone

VERSION = 1
"""Part of the fingerprint: a change in what is cut or embedded makes a new generation."""
TEXT_MAX_BYTES = 65_535
"""What Milvus stores of a chunk."""
HEAD_SHARE = 1 / 3
"""The most that title and headings may take of what the encoder reads."""


class ChunkerSettings(msgspec.Struct, frozen=True):
    """What a Chunker is made of; plain, so that each worker process can make its own."""

    size: int
    """Longest chunk, in `unit`."""
    overlap_percent: int
    """What neighbouring chunks share at most, in percent of the size; 50 at most."""
    unit: Literal["characters", "tokens"] = "characters"
    tokenizer: str = ""
    """JSON of the encoder's tokenizer; empty where none is known."""
    max_tokens: int = 0
    """What the encoder reads, its prefix and special tokens included; 0 where it is not known."""
    passage_prefix: str = ""
    """What the encoder puts before each passage."""
    with_headings: bool = True
    """Whether title and headings are embedded in front of the text."""


class Chunker:
    """Cuts at the strongest place: heading, block, item, line, sentence, word.

    A block that fits into a chunk is not cut, nor is a line of code or a row of a table. A chunk
    stays within its section, which may have smaller ones in it.
    """

    def __init__(self, settings: ChunkerSettings) -> None:
        """Raises ValueError for a size in tokens without a tokenizer, or a prefix without room."""
        tokenizer = load_tokenizer(settings.tokenizer) if settings.tokenizer else None
        overlap = settings.size * settings.overlap_percent // 100
        self._size: Size = Characters(settings.size, overlap)
        if settings.unit == "tokens":
            if tokenizer is None:
                raise ValueError("a size in tokens needs the tokenizer of the encoder")
            self._size = Tokens(tokenizer, settings.size, overlap)
        self._room: Room | None = None
        if tokenizer is not None and settings.max_tokens:
            self._room = Room(tokenizer, settings.max_tokens, settings.passage_prefix)
        self._passage = passage if settings.with_headings else text_alone
        self.description = (
            f"markdown {VERSION}, {settings.size} {settings.unit}, "
            f"{settings.overlap_percent}% overlap, "
            f"{'title, headings and text' if settings.with_headings else 'text'} embedded"
        )

    def split(
        self,
        *,
        title: str,
        text: str,
        anchors: Sequence[tuple[str, str]] = (),
        has_slugs: bool = False,
    ) -> list[Span]:
        """The spans of `text` in order, each with its headings; `title` is that of the document.

        A heading belongs to the text below it; one with nothing below it is in no span. What
        leads to headings is in `anchors`, words and id of each, or follows from their words.
        """
        layout = Layout.of(text)
        cutter = Cutter(layout, self._size)
        leads_to = _anchors(layout, anchors, has_slugs)
        spans: list[Span] = []
        begin = end = 0
        while (content := layout.content(end)) is not None:
            heading = layout.top_heading(end, content)
            begin = heading.start if heading else cutter.overlap(begin, end)
            head = _Head(title, self._fitting(title, layout.path(content)))
            begin, end = self._fill(cutter, head, begin, content)
            piece = text[begin : layout.last(begin, end)]
            if piece.strip(_MARKS):
                above = layout.heading_at(content)
                anchor = leads_to.get(above.start, "") if above else ""
                spans.append(Span(begin, piece, head.path, anchor))
        return spans

    def _fill(self, cutter: Cutter, head: "_Head", begin: int, content: int) -> tuple[int, int]:
        """Where the chunk begins and ends that goes on beyond `content`."""
        layout = cutter.layout
        max_chars = len(layout.text)
        while True:
            end = cutter.end(begin, content, max_chars)
            if end is None:
                begin, max_chars = content, len(layout.text)
                continue
            last = layout.last(begin, end)
            excess = max(
                self._size.excess(layout.text, begin, last),
                self._excess_for_encoder(head, layout.text[begin:last]),
            )
            if excess <= 1 or last - begin <= 1:
                return begin, end
            max_chars = max(1, int((last - begin) / excess * _CAUTION))

    def _excess_for_encoder(self, head: "_Head", text: str) -> float:
        in_bytes = len(text.encode()) / TEXT_MAX_BYTES
        if self._room is None:
            return in_bytes
        whole, above = self._passage(*head, text), self._passage(*head, "")
        return max(in_bytes, self._room.excess(whole, above))

    def _fitting(self, title: str, path: str) -> str:
        """`path` without its outermost headings where they would take the room of the text."""
        if self._room is not None:
            while path and self._room.share(self._passage(title, path, "")) > HEAD_SHARE:
                path = path.partition(SEPARATOR)[2]
        return path


class _Head(NamedTuple):
    """What stands above the text of a passage."""

    title: str
    path: str


def _anchors(layout: Layout, stated: Sequence[tuple[str, str]], has_slugs: bool) -> dict[int, str]:
    """The anchor of each heading, by where it starts."""
    headings = layout.headings
    if has_slugs:
        found = slugs([(each.words, layout.text[each.start : each.end]) for each in headings])
    else:
        found = matched([each.words for each in headings], stated)
    return {each.start: anchor for each, anchor in zip(headings, found, strict=True)}


_CAUTION = 0.95
"""The next try is this much shorter than the count says, since tokens are not evenly spread."""
_MARKS = "-*_=~`|:>#+ \t\r\n"
"""A chunk of nothing else says nothing."""
