"""Makes Markdown of lines on pages. Knows where lines stand and how large they are, no PDF."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import msgspec


class Line(msgspec.Struct, frozen=True):
    """A line of a page; lengths in points, from the lower left corner of the page."""

    text: str
    size: float
    fixed_width: bool
    left: float
    right: float
    bottom: float


def to_markdown(pages: Iterable[Sequence[Line]]) -> str:
    """Headings, paragraphs and code blocks of the pages.

    Left out are running heads, page numbers, and a table of contents, whose entries end in dots
    and a number. A heading is larger than most of the text, code is in letters of one width.
    """
    kept = _without_running_heads([list(page) for page in pages])
    lines = [line for page in kept for line in page if not _LEADERS.search(line.text)]
    if not lines:
        return ""
    body = _body_size(lines)
    levels = _heading_levels(lines, body)
    return "\n\n".join(
        _written(block, levels.get(_rounded(block[0].size), 0)) for block in _blocks(lines, levels)
    )


def _without_running_heads(pages: list[list[Line]]) -> list[list[Line]]:
    """Without the first and last lines that stand on several pages in the same place.

    Their digits do not count: they are page numbers, and where there is one, two pages suffice.
    """
    edges = [(page, place) for page in pages if page for place in {*_edge_places(page)}]
    counts = Counter(_edge_key(page[place]) for page, place in edges)
    repeated = {
        key
        for key, count in counts.items()
        if count >= _RUNNING or (count == _RUNNING - 1 and _PAGE_NUMBER.search(key[0]))
    }
    return [
        [
            line
            for place, line in enumerate(page)
            if place not in _edge_places(page) or _edge_key(line) not in repeated
        ]
        for page in pages
    ]


def _edge_places(page: list[Line]) -> tuple[int, ...]:
    """Where in `page` its two highest and its two lowest lines are."""
    order = sorted(range(len(page)), key=lambda place: page[place].bottom)
    return (*order[:2], *order[-2:])


def _edge_key(line: Line) -> tuple[str, int]:
    return _DIGITS.sub("0", line.text), round(line.bottom / _SAME_PLACE)


def _body_size(lines: list[Line]) -> float:
    weights: Counter[float] = Counter()
    for line in lines:
        if not line.fixed_width:
            weights[_rounded(line.size)] += len(line.text)
    return weights.most_common(1)[0][0] if weights else 0.0


def _heading_levels(lines: list[Line], body: float) -> dict[float, int]:
    """The level of each size of letters that headings have."""
    sizes = {
        _rounded(line.size)
        for line in lines
        if _rounded(line.size) > _LARGER * body > 0
        and not line.fixed_width
        and len(line.text) <= _LONGEST_HEADING
        and _LETTER.search(line.text)
    }
    return {
        size: min(level, _DEEPEST_LEVEL)
        for level, size in enumerate(sorted(sizes, reverse=True), 1)
    }


def _blocks(lines: list[Line], levels: dict[float, int]) -> Iterator[list[Line]]:
    """The lines of one paragraph, heading or code block at a time."""
    leading = _leading(lines)
    block: list[Line] = []
    for line in lines:
        if block and not _goes_on(block, line, levels, leading):
            yield block
            block = []
        block.append(line)
    if block:
        yield block


def _goes_on(block: list[Line], line: Line, levels: dict[float, int], leading: float) -> bool:
    last = block[-1]
    level, last_level = (levels.get(_rounded(each.size), 0) for each in (line, last))
    if (level, line.fixed_width) != (last_level, last.fixed_width):
        # A word in another font does not end a paragraph, and neither does a larger initial.
        return False
    down = last.bottom - line.bottom
    if line.fixed_width:
        return True
    if level:
        return 0 < down <= _HEADING_LEADING * line.size
    if _ITEM.match(line.text):
        return False
    if down > 0:
        ends = last.right < block[0].right - _INDENT * line.size and _END.search(last.text)
        indented = line.left > last.left + line.size and len(block) > 1
        return down <= _PARAGRAPH_LEADING * max(leading, line.size) and not ends and not indented
    # Further up: the next column or page.
    return not _END.search(last.text) and not line.text[:1].isupper()


def _leading(lines: list[Line]) -> float:
    """The usual distance from line to line."""
    distances = Counter(
        round(last.bottom - line.bottom, 1)
        for last, line in itertools.pairwise(lines)
        if 0 < last.bottom - line.bottom < _FAR * line.size
    )
    return distances.most_common(1)[0][0] if distances else 0.0


def _written(block: list[Line], level: int) -> str:
    if block[0].fixed_width:
        left = min(line.left for line in block)
        code = "\n".join(_indented(line, left) for line in block)
        return f"```\n{code}\n```"
    text = " ".join(line.text for line in block)
    if level:
        return f"{'#' * level} {text}"
    return _ITEM.sub("- ", text) if _BULLET.match(text) else _MARKED.sub(r"\\\1", text)


def _indented(line: Line, left: float) -> str:
    width = (line.right - line.left) / len(line.text)
    return " " * min(_DEEPEST_INDENT, round((line.left - left) / max(width, 1.0))) + line.text


def _rounded(size: float) -> float:
    return round(size * 2) / 2


_RUNNING = 3
_SAME_PLACE = 4.0
_LARGER = 1.1
_LONGEST_HEADING = 200
_DEEPEST_LEVEL = 4
_HEADING_LEADING = 1.6  # of the size of its letters
_PARAGRAPH_LEADING = 1.3  # of the usual distance
_FAR = 3.0
_INDENT = 3.0
_DEEPEST_INDENT = 40
_DIGITS = re.compile(r"\d+")
_PAGE_NUMBER = re.compile(r"^0\b|\b0$")
_LEADERS = re.compile(r"(?: ?\.){5,} ?\w+$")
_LETTER = re.compile(r"[^\W\d_]")
_BULLET = re.compile(r"[•‣▪●◦∙·\u2013*-] ")
_ITEM = re.compile(r"(?:[•‣▪●◦∙·\u2013*-]|\(?\d{1,2}[.)]) ")
_END = re.compile(r"[.!?:;…。\uff01\uff1f]['\"”\u2019)\]]*$")
_MARKED = re.compile(r"^([#>+])")
