"""Where a Markdown text may be cut, and which headings are above each place.

Knows Markdown, not sizes: what fits into a chunk is decided elsewhere.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

import msgspec
from markdown_it import MarkdownIt
from markdown_it.token import Token

from indexer.index.passages import SEPARATOR

LOWEST_HEADING = 6
"""Rank of a cut before a heading of the sixth level. The lower the rank, the stronger the cut."""
_RULE = 7
_BLOCK = 8  # and one more for each level of nesting, of which markdown-it reads twenty
_AFTER_BLANK_LINE = 60
LINE = 61
"""Rank of a cut between two lines of code or rows of a table, the weakest."""
_SEAM = 62


class Heading(msgspec.Struct):
    """A heading, its hashes or its underlining included."""

    start: int
    end: int
    """Where the line below it begins."""
    level: int
    words: str
    """Without its emphasis and its links."""
    path: str
    """The headings above it and itself, outermost first, joined by " > "."""
    section_end: int
    """Where the next heading of its level or above begins."""


class Layout:
    """The places where a text may be cut without cutting a paragraph, a line of code or a row."""

    def __init__(self, text: str, ranks: dict[int, int], headings: list[Heading]) -> None:
        """`ranks` has the rank of each place. The end of the text need not be among them."""
        self.text = text
        ranks[len(text)] = 0
        self.cuts = sorted(place for place, rank in ranks.items() if rank <= LINE)
        self.ranks = [ranks[place] for place in self.cuts]
        self._seams = sorted(place for place, rank in ranks.items() if rank == _SEAM)
        self.headings = headings
        self._starts = [heading.start for heading in headings]

    @classmethod
    def of(cls, text: str) -> "Layout":
        """The layout of `text`; that of plain text where its nesting is too deep to be read."""
        try:
            tokens, lines = _BLOCKS.parse(text), _Lines(text)
            return cls(text, _ranks(tokens, lines), _headings(tokens, lines, len(text)))
        except RecursionError:
            return cls(text, {gap.end(): _BLOCK for gap in _BLANK_LINES.finditer(text)}, [])

    def content(self, place: int) -> int | None:
        """The first character from `place` on that is neither space nor in a heading."""
        while found := _NON_SPACE.search(self.text, place):
            heading = self.heading_at(found.start())
            if heading is None or found.start() >= heading.end:
                return found.start()
            place = heading.end
        return None

    def heading_at(self, place: int) -> Heading | None:
        """The heading that `place` is in or directly below."""
        index = bisect_right(self._starts, place) - 1
        return self.headings[index] if index >= 0 else None

    def top_heading(self, place: int, content: int) -> Heading | None:
        """The outermost of the headings from `place` on that `content` stands directly below.

        The heading of an empty section is none of them.
        """
        top = None
        first, last = bisect_left(self._starts, place), bisect_left(self._starts, content)
        for heading in reversed(self.headings[first:last]):
            if top is not None and heading.level >= top.level:
                break
            top = heading
        return top

    def path(self, place: int) -> str:
        """The headings above `place`."""
        heading = self.heading_at(place)
        return heading.path if heading else ""

    def section_end(self, place: int) -> int:
        """Where the section that `place` is in ends; sections within it belong to it."""
        heading = self.heading_at(place)
        if heading is not None:
            return heading.section_end
        return self._starts[0] if self._starts else len(self.text)

    def block_end(self, index: int) -> int:
        """Where the block ends that begins at the cut of that index."""
        rank = self.ranks[index]
        return next(
            self.cuts[place]
            for place in range(index + 1, len(self.cuts))
            if self.ranks[place] <= rank
        )

    def seams_between(self, begin: int, end: int) -> list[int]:
        """Where lines meet that belong together, and are parted only if they do not fit together.

        They are the head of a table and its first row, or a fence and a line of code.
        """
        return self._seams[bisect_right(self._seams, begin) : bisect_left(self._seams, end)]

    def first(self, place: int) -> int:
        """The next place that is not empty; at the beginning of a line, with its indentation."""
        found = _NON_SPACE.search(self.text, place)
        content = found.start() if found else len(self.text)
        line_end = self.text.rfind("\n", max(0, place - 1), content)
        if line_end < 0 < place:
            return content
        return line_end + 1

    def last(self, begin: int, end: int) -> int:
        """One past the last character from `begin` on that is neither space nor in a heading."""
        while end > begin:
            if self.text[end - 1].isspace():
                end -= 1
                continue
            heading = self.heading_at(end - 1)
            if heading is None or heading.start <= begin or heading.end < end:
                break
            end = heading.start
        return end


class _Lines:
    """Lines as the parser counts them: a lone carriage return ends one too."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._starts = [0, *(found.end() for found in _LINE_END.finditer(text)), len(text)]

    def start(self, number: int) -> int:
        return self._starts[min(number, len(self._starts) - 1)]

    def __getitem__(self, number: int) -> str:
        return self._text[self.start(number) : self.start(number + 1)].strip()


def _headings(tokens: Sequence[Token], lines: _Lines, length: int) -> list[Heading]:
    headings: list[Heading] = []
    above: list[tuple[Heading, str]] = []
    for place, token in enumerate(tokens):
        if token.type != "heading_open" or not token.map:
            continue
        start, end = (lines.start(number) for number in token.map)
        level = int(token.tag[1])
        while above and above[-1][0].level >= level:
            above.pop()[0].section_end = start
        words = _plain(tokens[place + 1].content)
        short = words[:_MAX_HEADING_CHARS].rstrip()
        path = SEPARATOR.join(part for part in [*(part for _, part in above), short] if part)
        headings.append(Heading(start, end, level, words, path, length))
        above.append((headings[-1], short))
    return headings


def _plain(markdown: str) -> str:
    """The words of a heading, without its emphasis and its links."""
    (inline,) = _INLINE.parseInline(markdown)
    words = "".join(
        token.content for token in inline.children or [] if token.type in ("text", "code_inline")
    )
    return words.strip()


def _ranks(tokens: Sequence[Token], lines: _Lines) -> dict[int, int]:
    ranks: dict[int, int] = {}
    for token in tokens:
        if token.map and token.type != "inline":
            first, last = token.map
            for number, rank in _cuts(token, first, last, lines):
                start = lines.start(number)
                ranks[start] = min(rank, ranks.get(start, rank))
    return ranks


def _cuts(token: Token, first: int, last: int, lines: _Lines) -> Iterator[tuple[int, int]]:
    """Lines of a block before which one may cut, with their ranks."""
    match token.type:
        case "heading_open":
            yield first, int(token.tag[1])
        case "hr":
            yield first, _RULE
        case _:
            yield first, _BLOCK + token.level
    match token.type:
        case "fence":
            is_closed = lines[last - 1].lstrip("> ").startswith(token.markup)
            yield first + 1, _SEAM
            yield from _code_lines(first + 2, last - is_closed, lines)
            if is_closed:
                yield last - 1, _SEAM
        case "code_block" | "html_block":
            yield from _code_lines(first + 1, last, lines)
        case "paragraph_open":
            yield from _table_rows(first, last, token.level, lines)


def _code_lines(first: int, last: int, lines: _Lines) -> Iterator[tuple[int, int]]:
    for number in range(first, last):
        if lines[number]:
            yield number, LINE if lines[number - 1] else _AFTER_BLANK_LINE


def _table_rows(first: int, last: int, level: int, lines: _Lines) -> Iterator[tuple[int, int]]:
    """The rows of a table; it is a paragraph here, since the parser's own are slow."""
    for number in range(first + 1, last):
        line = lines[number]
        if "|" in line and "-" in line and not line.strip("|:- >\t"):
            yield number - 1, _BLOCK + level + 1
            yield number, _SEAM
            yield number + 1, _SEAM
            yield from ((row, LINE) for row in range(number + 2, last))
            return


_MAX_HEADING_CHARS = 160
"""So that a path of six levels is no longer than what is stored of it, 4,096 bytes."""
_BLOCKS = MarkdownIt("commonmark")
_BLOCKS.core.ruler.enableOnly(["normalize", "block"])  # the text within blocks is not parsed
_INLINE = MarkdownIt("commonmark")
_NON_SPACE = re.compile(r"\S")
_LINE_END = re.compile(r"\r\n?|\n")
_BLANK_LINES = re.compile(r"\n[ \t]*\n")
