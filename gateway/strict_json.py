"""JSON that every reader reads in the same way, and that costs none of them much.

What a client sends is read here and, in parts byte for byte, by vLLM. Where a key stands twice in
an object one of the two may take the first value and the other the last: what was checked here
would not be what is done there.
"""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from gateway.body import UNREADABLE
from gateway.errors import InvalidRequest

_NAMED_BELOW_BYTES = 100_000
"""Looking for the key that stands twice takes many times as long as seeing that there is one."""
_MOST_EXPONENTS = 5_000
"""Numbers that have one: 1e308 and its like take 20 µs each to be read, 600 times as long as 1."""
_MOST_DIGITS = 200
"""In a row: the time that a number takes to be read grows with the square of them."""
_FEW_BYTES = 1_000_000
"""Numbers in so few are read in a tenth of a second, whatever digits they have."""
_OPENING, _CLOSING = b"[{", b"]}"
_STRUCTURE = _OPENING + _CLOSING + b':"' + b"eErs"
_NOT_STRUCTURE = bytes(each for each in range(256) if each not in _STRUCTURE)
_STEPS = bytes(1 if each in _OPENING else 255 if each in _CLOSING else 0 for each in range(256))
"""What each bracket does to the depth, as a signed byte."""


def strict(
    content: bytes, *, most_nested: int, most_whitespace_bytes: int, most_objects: int
) -> dict[str, Any]:
    """The object in `content`.

    Raises InvalidRequest for what is no JSON object in UTF-8, for NaN, numbers that a double does
    not hold or that are long to read, halves of surrogate pairs, keys that stand twice in an
    object, more levels of nesting, more whitespace in a row, and more lists and objects, or keys
    in objects, than that.
    """
    if _has_in_a_row(content, most_whitespace_bytes, bytes.isspace):
        raise InvalidRequest(
            f"The request body has {most_whitespace_bytes} bytes of whitespace in a row."
        )
    keys = content.count(b":")
    # Where there are so few bytes of these, texts need not be told from what is around them.
    is_plain = (
        _openings(content) <= min(most_nested, most_objects)
        and keys <= most_objects
        and content.count(b",") < _MOST_EXPONENTS
    )
    structure = b"" if is_plain else _structure(content)
    if structure:
        _refuse_what_takes_long(structure, most_objects)
    _refuse_long_numbers(content)
    try:
        found = msgspec.json.decode(content)
    except UNREADABLE as exc:
        raise InvalidRequest(f"The request body is not a JSON object: {exc}") from exc
    if not isinstance(found, dict):
        raise InvalidRequest("The request body is not a JSON object: it is another value.")
    if structure and _depth(structure) > most_nested:
        raise InvalidRequest(f"The request body is nested deeper than {most_nested} levels.")
    again = msgspec.json.encode(found)
    # Each pair of an object has one colon. What was read once and stands twice is missing here.
    if keys + _escaped_colons(content) != again.count(b":"):
        raise _twice(content)
    return found


def _refuse_what_takes_long(structure: bytes, most_objects: int) -> None:
    """Ten megabytes of small lists take two seconds to be decoded, of large numbers thirty."""
    if max(_openings(structure), structure.count(b":")) > most_objects:
        raise InvalidRequest(
            f"The request body has more than {most_objects} lists and objects, or keys in them."
        )
    if _exponents(structure) > _MOST_EXPONENTS:
        raise InvalidRequest(
            f"The request body has more than {_MOST_EXPONENTS} numbers with an exponent."
        )


def _refuse_long_numbers(content: bytes) -> None:
    if (
        len(content) > _FEW_BYTES
        and _has_in_a_row(content, _MOST_DIGITS, bytes.isdigit)
        and _has_in_a_row(_outside_of_texts(content), _MOST_DIGITS, bytes.isdigit)
    ):
        raise InvalidRequest(f"The request body has a number of {_MOST_DIGITS} digits.")


def _has_in_a_row(content: bytes, most: int, kind: Callable[[bytes], bool]) -> bool:
    """Whether so many bytes of one kind stand in a row somewhere; half as many may do."""
    step = max(most // 2, 1)
    return len(content) >= most and any(
        kind(content[at : at + step]) for at in range(0, len(content) - step + 1, step)
    )


def _escaped_colons(content: bytes) -> int:
    """How many colons are written as escapes in `content`, which is JSON."""
    if b"\\" not in content or b"\\u003" not in content:  # the first is looked up much faster
        return 0
    # A backslash that is escaped itself begins nothing.
    escapes = content.replace(b"\\\\", b"")
    return escapes.count(b"\\u003a") + escapes.count(b"\\u003A")


def _openings(structure: bytes) -> int:
    return structure.count(b"[") + structure.count(b"{")


def _structure(content: bytes) -> bytes:
    """Of `content` what _STRUCTURE has and stands outside of texts, as far as it is JSON.

    Looks at bytes: walking through ten megabytes of values takes a second.
    """
    structure = _without_escapes(content).translate(None, _NOT_STRUCTURE)
    # Two quotes in a row are a text, or the end of one and the beginning of the next.
    return _outside_of_texts(structure.replace(b'""', b""))


def _outside_of_texts(content: bytes) -> bytes:
    return b"".join(_without_escapes(content).split(b'"')[::2])


def _without_escapes(content: bytes) -> bytes:
    """`content`, in which every quote begins or ends a text."""
    if b"\\" not in content:
        return content
    return content.replace(b"\\\\", b"").replace(b'\\"', b"")


def _exponents(structure: bytes) -> int:
    # The letter of an exponent ends true and false, too, and no other word has an r or an s.
    words = structure.count(b"re") + structure.count(b"se")
    return structure.count(b"e") + structure.count(b"E") - words


def _depth(structure: bytes) -> int:
    """How many lists and objects stand in each other."""
    steps = np.frombuffer(structure.translate(_STEPS), dtype=np.int8)
    return int(np.cumsum(steps, dtype=np.int32).max())


def _twice(content: bytes) -> InvalidRequest:
    name: str | None = None

    def look(pairs: list[tuple[str, Any]]) -> None:
        nonlocal name
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                name = name or key
            seen.add(key)

    if len(content) <= _NAMED_BELOW_BYTES:
        json.loads(content, object_pairs_hook=look)
    said = "A key" if name is None else repr(name[:100])
    return InvalidRequest(f"{said} stands twice in one object of the request body.", name)
