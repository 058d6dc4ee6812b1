"""Finds the markers with which a model cites passages, in all the forms that models write.

Knows text, not passages: a marker may name one that does not exist. What could as well be
something else, such as an array or a list of steps, is no marker: a claim that nobody made is
worse than one that is missed.
"""

import re
from collections.abc import Iterator

import msgspec

from gateway.code_parts import CodeParts


class Marker(msgspec.Struct, frozen=True):
    """A place in a text that cites."""

    start: int
    end: int
    """One past its last character."""
    ranges: tuple[tuple[int, int], ...]
    """First and last of each range of numbers; a number by itself is both. Empty where it cites
    in the manner of another service, with numbers that mean nothing here."""

    def named(self, count: int) -> list[int]:
        """Its numbers from 1 to `count` in the order in which they stand, each once."""
        numbers = (
            number
            for first, last in self.ranges
            for number in range(max(1, first), min(last, count) + 1)
        )
        return list(dict.fromkeys(numbers))

    def stray(self, count: int) -> int:
        """How many numbers are written in it that are not from 1 to `count`."""
        written = {number for ends in self.ranges for number in ends}
        return sum(not 1 <= number <= count for number in written) if written else 1


def markers(text: str) -> list[Marker]:
    """The markers in a Markdown text, in their order. They do not overlap."""
    found: list[Marker] = []
    code: CodeParts | None = None
    for candidate in _candidates(text):
        code = code or CodeParts(text)
        last_end = found[-1].end if found else -1
        if candidate.start() not in code and _cites(candidate, last_end):
            found.append(Marker(*candidate.span(), _ranges(candidate)))
    return found


def markers_in_json(text: str) -> list[Marker]:
    """The markers in the strings of a JSON text; an array of numbers is none, nor is a key.

    The text may be cut off. Places are those in `text`, escapes included.
    """
    found: list[Marker] = []
    for string in _JSON_STRING.finditer(text):
        if string["key"] is None and _MAY_OPEN.search(string["inner"]):
            letters = [*_JSON_LETTER.finditer(text, *string.span("inner"))]
            inner = "".join(_unescaped(letter[0]) for letter in letters)
            found += [
                Marker(letters[each.start].start(), letters[each.end - 1].end(), each.ranges)
                for each in markers(inner)
            ]
    return found


def _candidates(text: str) -> Iterator[re.Match[str]]:
    """What has the form of a marker. Looking for its first character first is 8 times faster."""
    place = 0
    while opening := _OPENING.search(text, place):
        candidate = _FORM.match(text, opening.start())
        place = candidate.end() if candidate else opening.end()
        if candidate:
            yield candidate


def _cites(candidate: re.Match[str], last_end: int) -> bool:
    """Whether what stands around a candidate leaves it a marker. `last_end` is the last one's."""
    text, start, end = candidate.string, candidate.start(), candidate.end()
    is_link = text[end - 1] == "]" and text.startswith("(", end)
    if is_link or _is_definition(candidate):
        return False
    if candidate["bare"] is None or start == last_end:
        return True
    if text.startswith(("]", "$"), end) or _NO_MARKER_BEHIND.search(text, max(0, start - 2), start):
        return False
    return not _is_behind_call(text, start)


def _is_definition(candidate: re.Match[str]) -> bool:
    """Whether it says where a link leads, as `[1]: https://…` does, or begins a footnote."""
    text, start, end = candidate.string, candidate.start(), candidate.end()
    if not text.startswith(":", end) or not _LINE_START.search(text, max(0, start - 3), start):
        return False
    return bool(candidate["note"] or (candidate["bare"] and _LINK_TARGET.match(text, end)))


def _is_behind_call(text: str, place: int) -> bool:
    """Whether `name(…)` stands right before `place`, so that an element of its result is meant."""
    if text[place - 1 : place] != ")":
        return False
    opening = text.rfind("(", max(0, place - _LONGEST_CALL), place)
    return opening > 0 and _WORD.match(text, opening - 1) is not None


def _ranges(candidate: re.Match[str]) -> tuple[tuple[int, int], ...]:
    if candidate["foreign"]:
        return ()
    numbers = candidate["echo"] or candidate[0].partition("†")[0]
    ranges: list[tuple[int, int]] = []
    for found in _RANGE.finditer(numbers):
        first, last = int(found[1]), int(found[2] or found[1])
        ranges += [(first, last)] if first <= last else [(first, first), (last, last)]
    return tuple(ranges)


def _unescaped(letter: str) -> str:
    """One character for a character of a JSON string, which may be escaped."""
    if letter.startswith("\\u"):
        return chr(int(letter.replace("\\u", "0x"), 0))
    return _ESCAPES.get(letter, letter[-1])


# What repeats is bounded or possessive, so that no text takes more time than its length warrants.
_GAP = r"[^\S\n]{0,3}"
_NUMBER = r"\d{1,3}"  # in the digits of any script
_DASH = rf"{_GAP}[-\u2010-\u2014\u2212~]{_GAP}"
_AND = rf"{_GAP}(?:[,;\u3001\uff0c]{_GAP}(?:and\s)?|\band\b|&){_GAP}"
_SOURCE = rf"{_GAP}†[^\[\]\u3010\u3011\n]{{0,120}}"
_ECHO = rf"""\s{{1,3}}(?:number|id|index)={_GAP}["']?(?P<echo>{_NUMBER})["']?"""
_ATTRIBUTES = r"""(?:\s{1,3}\w{1,30}=(?:"[^"\n]{0,2000}"|'[^'\n]{0,2000}'))*+"""


def _name(*names: str) -> str:
    """What may stand before a number to say what it numbers."""
    return rf"(?:{'|'.join(names)})s?{_GAP}(?:(?:number|no\.?|\#){_GAP})?[:=_-]?{_GAP}"


def _list(first: str, other: str) -> str:
    """Numbers and ranges of them, one or more."""
    return rf"{first}(?:{_DASH}{other})?(?:{_AND}{other}(?:{_DASH}{other})?)*+"


def _named(name: str, how: str = "") -> str:
    """A list with names before its numbers; before the first in any case, or perhaps: "?"."""
    number = rf"""["']?{_NUMBER}["']?"""
    return _list(rf"(?:{name}){how}{number}", rf"(?:{name})?{number}")


_ANY = _name("passage", "source", "document", "doc", "reference", "ref", "citation", "context")
_SURE = _name("passage", "source", "citation")
_NUMBERS = _list(_NUMBER, _NUMBER)
_OPENING = re.compile(r"[\[(<\\\u3010\uff3b]")
_FORM = re.compile(
    "|".join(
        [
            # [1] [2, 3] [4-6] [[7]], and with the backslashes of escaped Markdown
            rf"(?P<bare>\[\[{_NUMBERS}\]\]|\\?\[{_GAP}{_NUMBERS}{_GAP}\\?\])",
            # [^1]
            rf"(?P<note>\[\^{_NUMBERS}\])",
            # [Passage 1] [Source: 1, 2] [doc1]
            rf"\[{_GAP}{_named(_ANY)}(?:{_SOURCE})?{_GAP}\]",
            # 【1】 【1†source】 【Passage 1], and the same in full-width brackets
            rf"[\u3010\uff3b]{_GAP}{_named(_ANY, '?')}(?:{_SOURCE})?{_GAP}[\]\u3011\uff3d]",
            # [1】 [1†source]
            rf"\[{_GAP}{_NUMBERS}(?:{_GAP}[\u3011\uff3d]|{_SOURCE}[\]\u3011\uff3d])",
            # 【4:0†source】, in the manner of OpenAI's assistants
            rf"(?P<foreign>[\[\u3010]\d{{1,3}}:\d{{1,3}}{_SOURCE}[\]\u3011])",
            # (Passage 1) (see sources 2 and 3)
            rf"\((?:see\s)?{_named(_SURE)}\)",
            # <passage number="1" source="…">, as the prompt has it, and the same in brackets
            rf"[<\[](?:passage|source|document){_ECHO}{_ATTRIBUTES}{_GAP}/?[>\]]",
        ]
    ),
    re.IGNORECASE,
)
_RANGE = re.compile(rf"""({_NUMBER})(?:["']?{_DASH}(?:{_ANY})?["']?({_NUMBER}))?""", re.IGNORECASE)
# It would be an index, a link by reference, a formula, a value that is assigned.
_NO_MARKER_BEHIND = re.compile(r"(?:[A-Za-z0-9_$\[\]]|= ?|\\\()\Z")
_WORD = re.compile(r"[A-Za-z0-9_]")
_LONGEST_CALL = 200
_LINE_START = re.compile(r"^ {0,3}\Z", re.MULTILINE)
_LINK_TARGET = re.compile(
    r""":[ \t]*+\n?[ \t]*+\S++[ \t]*+(?:"[^"\n]*+"|'[^'\n]*+'|\([^)\n]*+\))?[ \t]*+$""",
    re.MULTILINE,
)
_JSON_STRING = re.compile(
    r'"(?P<inner>[^"\\]*+(?:\\.[^"\\]*+)*+)(?:"(?P<key>\s*+:)?|\\?\Z)', re.DOTALL
)
_MAY_OPEN = re.compile(r"[\[(<\u3010\uff3b]|\\u")
_JSON_LETTER = re.compile(r"\\u[0-9a-fA-F]{4}|\\.|.", re.DOTALL)
_ESCAPES = {r"\n": "\n", r"\t": "\t", r"\r": "\r", r"\b": "\b", r"\f": "\f"}
