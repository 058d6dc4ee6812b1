"""Which parts of an answer are code or thoughts, where no brackets cite. Knows Markdown's outlines.

A parser of Markdown would know more, and take ten times as long.
"""

import re
from bisect import bisect_right
from collections import defaultdict
from itertools import accumulate


class CodeParts:
    """The fenced, indented and inline code of a text, and what the model thought before it."""

    def __init__(self, text: str) -> None:
        thought = _thought_end(text)
        parts = [(0, thought)] if thought else []
        parts += _blocks(text, thought)
        parts += _inline(text, parts)
        parts.sort()
        self._starts = [start for start, _ in parts]
        self._ends = list(accumulate((end for _, end in parts), max))

    def __contains__(self, place: int) -> bool:
        """Whether the character at `place` is in one of them."""
        index = bisect_right(self._starts, place) - 1
        return index >= 0 and place < self._ends[index]


def _thought_end(text: str) -> int:
    """Where the answer begins when the model's thoughts stand before it; 0 when none do."""
    end = text.rfind(_END_OF_THOUGHT)
    if end >= 0:
        return end + len(_END_OF_THOUGHT)
    return len(text) if text.lstrip().startswith(_THOUGHT) else 0


def _blocks(text: str, start: int) -> list[tuple[int, int]]:
    """Fenced and indented blocks of code. A fence that is never closed goes on to the end."""
    blocks: list[tuple[int, int]] = []
    fence, begun = "", 0
    in_list = False
    after_blank = True
    for line in _LINE.finditer(text, start):
        opening = _FENCE.match(line[0])
        if fence:
            if opening and opening[1].startswith(fence) and not line[0][opening.end() :].strip():
                blocks.append((begun, line.end()))
                fence = ""
            continue
        if opening:
            fence, begun = opening[1], line.start()
        elif not line[0].strip():
            after_blank = True
            continue
        elif _INDENTED.match(line[0]):
            if not in_list and (after_blank or (blocks and blocks[-1][1] == line.start())):
                blocks.append(line.span())
        else:
            in_list = bool(_ITEM.match(line[0])) or (in_list and line[0][0] in " \t")
        after_blank = False
    if fence:
        blocks.append((begun, len(text)))
    return blocks


def _inline(text: str, others: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Code between as many backticks on both sides, within one paragraph and outside of blocks."""
    borders = [*others, *(line.span() for line in _BLANK_LINE.finditer(text))]
    found: list[tuple[int, int]] = []
    place = 0
    for start, end in [*sorted(borders), (len(text), len(text))]:
        found += _spans(text, place, start)
        place = max(place, end)
    return found


def _spans(text: str, start: int, end: int) -> list[tuple[int, int]]:
    runs = [run.span() for run in _BACKTICKS.finditer(text, start, end)]
    later: defaultdict[int, list[int]] = defaultdict(list)
    for index in range(len(runs) - 1, -1, -1):
        later[runs[index][1] - runs[index][0]].append(index)
    spans: list[tuple[int, int]] = []
    index = 0
    while index < len(runs):
        run_start, run_end = runs[index]
        same = later[run_end - run_start]
        while same and same[-1] <= index:
            same.pop()
        if same and text[run_start - 1 : run_start] != "\\":
            index = same[-1]
            spans.append((run_start, runs[index][1]))
        index += 1
    return spans


_THOUGHT = "<think>"
_END_OF_THOUGHT = "</think>"
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_FENCE = re.compile(r"[ \t>]*(?:(?:[-*+]|\d{1,3}[.)])[ \t]+)?(`{3,}(?=[^`]*$)|~{3,})")
_INDENTED = re.compile(r"(?: {4}| {0,3}\t)[ \t]*\S")
_ITEM = re.compile(r" {0,3}(?:[-*+]|\d{1,9}[.)])[ \t]")
_BLANK_LINE = re.compile(r"\n[^\S\n]*+(?=\n)")
_BACKTICKS = re.compile(r"`+")
