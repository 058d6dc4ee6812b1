"""Text whose normal forms take no longer than the text is long.

Marks that stand on one letter are brought into an order by insertion: of forty thousand that takes
seconds. Pure functions.
"""

import re
import unicodedata

MOST_MARKS = 30
"""In a row: more than any language or notation has (Unicode Standard Annex #15, section 13)."""
_JOINER = "\u034f"
"""Combining grapheme joiner, itself a mark, that no other mark is ordered across."""
# Two voiced marks of half width are letters to `re`. What is no letter may yet be no mark.
_PERHAPS = re.compile(rf"[^\w\s!-~](?:[^\w\s!-~]|[\uff9e\uff9f]){{{MOST_MARKS},}}")


def stream_safe(text: str) -> str:
    """`text` in the Stream-Safe Text Format of Unicode Standard Annex #15, UAX15-D4.

    A joiner parts marks of which more than MOST_MARKS stand in a row. Other text stays as it is.
    """
    return text if text.isascii() else _PERHAPS.sub(lambda found: _parted(found[0]), text)


def _parted(text: str) -> str:
    parts: list[str] = []
    marks = 0
    for each in text:
        marks = marks + 1 if _is_mark(each) else 0
        if marks > MOST_MARKS:
            parts.append(_JOINER)
            marks = 1
        parts.append(each)
    return "".join(parts)


def _is_mark(each: str) -> bool:
    """Whether it has a place in that order: it is a non-starter, or is made of them."""
    return unicodedata.combining(unicodedata.normalize("NFKD", each)[0]) > 0
