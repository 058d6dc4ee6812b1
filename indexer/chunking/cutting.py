"""Chooses where a chunk ends and where the next one begins. Knows a layout and a size."""

import re
from bisect import bisect_left, bisect_right

from semantic_text_splitter import TextSplitter

from indexer.chunking.layout import LINE, LOWEST_HEADING, Layout
from indexer.chunking.sizes import Size

_LOOK_AHEAD = 64
"""Characters beyond the longest chunk that tell whether a word ends there."""
# Full stops of the Latin, Arabic, Urdu, Hindi, Armenian and Amharic scripts, with what may close
# a sentence behind them; and those of Chinese and Japanese, which no space follows.
_STOPS = r"[.!?\u2026\u061f\u06d4\u0964\u0589\u1362]"
_WIDE_STOPS = r"[\u3002\uff01\uff1f\uff61]"
_CLOSING = r"[\"')\]*_\u201d\u2019\u00bb\u300d\u300f\uff09]"
_SENTENCE_END = re.compile(
    rf"(?<!{_STOPS}){_STOPS}++{_CLOSING}*+(?=\s)|{_WIDE_STOPS}++{_CLOSING}*+"
)
_LINE_END = re.compile(r"\n(?=.)")
_WORD_END = re.compile(r"\s(?=\S)|[\u3001\uff0c\uff1a\uff1b]")


class Cutter:
    """Cuts one text."""

    def __init__(self, layout: Layout, size: Size) -> None:
        self.layout = layout
        self._size = size

    def end(self, begin: int, content: int, max_chars: int) -> int | None:
        """Where a chunk ends that begins at `begin`; beyond `content`, at most `max_chars` on.

        From `begin` to `content` are headings, or the end of the chunk before. None when this
        chunk should do without them: nothing more fits, or the next block would, without them.
        """
        reach = self._reach(begin, max_chars)
        if reach <= content:
            return None
        section_end = self.layout.section_end(content)
        if section_end <= reach:
            return section_end
        return self._end_in_section(begin, content, reach, max_chars)

    def _end_in_section(self, begin: int, content: int, reach: int, max_chars: int) -> int | None:
        cuts = self.layout.cuts
        last = bisect_right(cuts, reach)
        half = begin + (reach - begin) // 2
        between = self._between_blocks(bisect_right(cuts, content), last, half, max_chars)
        if between is not None:
            return between
        begun, until = max(content, cuts[last - 1]), cuts[last]
        if not self._fits(begun, until, max_chars):
            seams = self.layout.seams_between(begun, until)
            if seams and seams[0] <= reach:
                return max(seam for seam in seams if seam <= reach)
            until = seams[0] if seams else until
            if not self._fits(begun, until, max_chars):
                return self._end_in_block(max(half, content), reach)
        if begun > content:
            return begun
        return None if begin < content else until

    def _between_blocks(self, first: int, last: int, half: int, max_chars: int) -> int | None:
        """The strongest of the cuts from index `first` to `last`, if it is a good one.

        One before `half` would leave a short chunk; it is none unless a section begins there, or
        a block that fits. A block that has to be cut anyway may begin in this chunk.
        """
        cuts, ranks = self.layout.cuts, self.layout.ranks
        while first < last:
            rank = min(ranks[first:last])
            strongest = max(place for place in range(first, last) if ranks[place] == rank)
            if rank <= LOWEST_HEADING or cuts[strongest] >= half:
                return cuts[strongest]
            if self._fits(cuts[strongest], self.layout.block_end(strongest), max_chars):
                return cuts[strongest]
            first = strongest + 1
        return None

    def overlap(self, begin: int, end: int) -> int:
        """Where the chunk after the one from `begin` to `end` begins: at `end`, or before it.

        What is repeated is whole: blocks after a block, lines after a line, sentences or words.
        """
        text, cuts, ranks = self.layout.text, self.layout.cuts, self.layout.ranks
        heading = self.layout.heading_at(end)
        earliest = max(heading.start if heading else 0, self._size.overlap(text, begin + 1, end))
        first, last = bisect_left(cuts, earliest), bisect_left(cuts, end)
        weakest = ranks[last] if cuts[last] == end else LINE
        block = next((cuts[place] for place in range(first, last) if ranks[place] <= weakest), end)
        if block == end and cuts[last] != end:
            block = self._overlap_in_block(earliest, end)
        return self.layout.first(block)

    def _overlap_in_block(self, earliest: int, end: int) -> int:
        """Where the first sentence begins from `earliest` on; else the first line, or word."""
        text = self.layout.text
        for found in _SENTENCE_END.finditer(text, max(0, earliest - 2), end):
            if self.layout.first(found.end()) >= earliest:
                return found.end()
        is_line_end = "\n" in text[end - 1 : end + 1]
        boundary = _LINE_END if is_line_end else _WORD_END
        other = boundary.search(text, earliest - 1, end)
        return other.end() if other else end

    def _reach(self, begin: int, max_chars: int) -> int:
        text = self.layout.text
        reach = min(self._size.reach(text, begin), begin + max_chars)
        while reach < len(text) and text[reach].isspace():  # it will be stripped
            reach += 1
        return reach

    def _fits(self, begin: int, end: int, max_chars: int) -> bool:
        end = self.layout.last(begin, end)
        return end - begin <= max_chars and self._size.excess(self.layout.text, begin, end) <= 1

    def _end_in_block(self, low: int, high: int) -> int:
        """The best place after `low`, and at `high` or before it, in a block that has to be cut."""
        text = self.layout.text
        ends = [found.end() for found in _SENTENCE_END.finditer(text, low, high + 1)]
        sentence_end = next((end for end in reversed(ends) if low < end <= high), None)
        if sentence_end is not None:
            return sentence_end
        line_end = text.rfind("\n", low, high)
        if line_end > low:
            return line_end
        pieces = TextSplitter(high - low, trim=False).chunks(text[low : high + _LOOK_AHEAD])
        return low + len(pieces[0])
