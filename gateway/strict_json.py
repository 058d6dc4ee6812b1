"""JSON that every reader reads in the same way, and that costs none of them much.

What a client sends is read here and, in parts byte for byte, by vLLM. Where a key stands twice in
an object one of the two may take the first value and the other the last: what was checked here
would not be what is done there.
"""

import json
from typing import Any

import msgspec
import numpy as np

from gateway.body import UNREADABLE
from gateway.errors import InvalidRequest

_NAMED_BELOW_BYTES = 100_000
"""Looking for the key that stands twice takes many times as long as seeing that there is one."""
_OPENING, _CLOSING = b"[{", b"]}"
_NOT_STRUCTURE = bytes(each for each in range(256) if each not in _OPENING + _CLOSING + b'"')
_STEPS = bytes(1 if each in _OPENING else 255 if each in _CLOSING else 0 for each in range(256))
"""What each bracket does to the depth, as a signed byte."""


def strict(content: bytes, *, most_nested: int, most_whitespace_bytes: int) -> dict[str, Any]:
    """The object in `content`.

    Raises InvalidRequest for what is no JSON object in UTF-8, for NaN, numbers that a double does
    not hold, halves of surrogate pairs, keys that stand twice in an object, more levels of nesting
    and more whitespace in a row than that.
    """
    if _is_blank(content, most_whitespace_bytes):
        raise InvalidRequest(
            f"The request body has {most_whitespace_bytes} bytes of whitespace in a row."
        )
    try:
        found = msgspec.json.decode(content)
    except UNREADABLE as exc:
        raise InvalidRequest(f"The request body is not a JSON object: {exc}") from exc
    if not isinstance(found, dict):
        raise InvalidRequest("The request body is not a JSON object: it is another value.")
    if _is_nested(content, most_nested):
        raise InvalidRequest(f"The request body is nested deeper than {most_nested} levels.")
    again = msgspec.json.encode(found)
    # Each pair of an object has one colon. What was read once and stands twice is missing here.
    if content.count(b":") + _escaped_colons(content) != again.count(b":"):
        raise _twice(content)
    return found


def _is_blank(content: bytes, most: int) -> bool:
    """Whether so much whitespace stands in a row somewhere; half as much may do."""
    step = max(most // 2, 1)
    return len(content) >= most and any(
        content[at : at + step].isspace() for at in range(0, len(content) - step + 1, step)
    )


def _escaped_colons(content: bytes) -> int:
    """How many colons are written as escapes in `content`, which is JSON."""
    if b"\\" not in content or b"\\u003" not in content:  # the first is looked up much faster
        return 0
    # A backslash that is escaped itself begins nothing.
    escapes = content.replace(b"\\\\", b"")
    return escapes.count(b"\\u003a") + escapes.count(b"\\u003A")


def _is_nested(content: bytes, most: int) -> bool:
    """Whether lists and objects in `content`, which is JSON, stand deeper in each other than that.

    Looks at bytes: walking through ten megabytes of values takes a second.
    """
    if content.count(b"{") + content.count(b"[") <= most:
        return False
    if b"\\" in content:
        content = content.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Two quotes in a row are a text, or the end of one and the beginning of the next.
    structure = content.translate(None, _NOT_STRUCTURE).replace(b'""', b"")
    structure = b"".join(structure.split(b'"')[::2])
    steps = np.frombuffer(structure.translate(_STEPS), dtype=np.int8)
    return bool(np.cumsum(steps, dtype=np.int32).max() > most)


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
