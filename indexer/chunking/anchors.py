"""What leads to each heading of a document. Knows headings, not where a text is cut."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence


def slugs(headings: Sequence[tuple[str, str]]) -> list[str]:
    """The anchors that GitHub gives to the headings of a Markdown file, in order.

    Each is its words and its Markdown, where it may state an id of its own: `## Title {#id}`.
    The rules are those of github-slugger, which was compared with GitHub itself.
    """
    found: list[str] = []
    seen: Counter[str] = Counter()
    for words, markdown in headings:
        stated = _STATED.search(markdown)
        if stated:
            slug = stated[1]
        else:
            slug = first = _slug(words)
            while slug in seen:
                slug = f"{first}-{seen[first]}"
                seen[first] += 1
        seen[slug] += 1
        found.append(slug)
    return found


def matched(headings: Sequence[str], stated: Sequence[tuple[str, str]]) -> list[str]:
    """For the words of each heading the id that was stated with them; empty where none is sure.

    `stated` has words and id of each heading before the text was made of the page. Some may have
    been left out since: where one of several with the same words is gone, none of them is sure.
    """
    if len(headings) == len(stated):
        return [
            anchor if _is_same(words, other) else ""
            for words, (other, anchor) in zip(headings, stated, strict=True)
        ]
    anchors: defaultdict[str, list[str]] = defaultdict(list)
    for words, anchor in stated:
        anchors[_letters(words)].append(anchor)
    wanted = Counter(map(_letters, headings))
    left: dict[str, Iterator[str]] = {
        letters: iter(found) for letters, found in anchors.items() if wanted[letters] == len(found)
    }
    return [next(left.get(_letters(words), iter(())), "") for words in headings]


def _slug(words: str) -> str:
    return "".join(
        "-" if letter == " " else letter
        for letter in words.strip().lower()
        if letter in " -" or unicodedata.category(letter)[0] in "LM" or _is_of_a_word(letter)
    )


def _is_of_a_word(letter: str) -> bool:
    return unicodedata.category(letter) in ("Nd", "Nl", "Pc")


def _is_same(words: str, other: str) -> bool:
    """Whether one is the other, or a part of it: Markdown takes `List<T>` for `List`."""
    one, two = _letters(words), _letters(other)
    return one in two or two in one


def _letters(words: str) -> str:
    return "".join(filter(str.isalnum, words.casefold())) or words.strip()


_STATED = re.compile(r"\{:?[ \t]*#([^\s{}]+)[^{}]*\}[ \t]*(?:#+|\n[ \t>]*(?:=+|-+))?\s*\Z")
