"""Declared attributes: which types there are, and what a value must be. Knows no Milvus.

A declared attribute has one type in every row of a generation, so that a filter compares like
with like whatever the backend makes of numbers that are stored as text. The limits are OpenAI's.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, get_args

from indexer.index.records import AttributeType

MOST_ATTRIBUTES = 16
NAME_MAX_CHARS = 64
STRING_MAX_CHARS = 512
INTEGER_MAX = 2**53 - 1
"""The largest integer that JSON carries exactly (RFC 8259, section 6)."""

_TYPES: tuple[AttributeType, ...] = get_args(AttributeType)
_NAME = re.compile(r"[\w.-]+")
_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_BOOLEANS = {"true": True, "false": False}
_SHOWN_CHARS = 60

Value = str | int | float | bool


def declared_types(table: Any) -> dict[str, AttributeType]:
    """The declaration `table`, in the order of names. Raises ValueError, naming what is wrong."""
    if not isinstance(table, Mapping):
        raise ValueError("it is no table of names and types")  # noqa: TRY004  # of a file
    if len(table) > MOST_ATTRIBUTES:
        raise ValueError(f"{len(table)} are declared, {MOST_ATTRIBUTES} are the most")
    for name, kind in table.items():
        if not (len(name) <= NAME_MAX_CHARS and _NAME.fullmatch(name)):
            raise ValueError(
                f"{shown(name)} is no name: letters, digits, '_', '-' and '.', "
                f"{NAME_MAX_CHARS} characters at most"
            )
        if kind not in _TYPES:
            raise ValueError(f"{name} is {shown(kind)}, which is none of {', '.join(_TYPES)}")
    return dict(sorted(table.items()))


def columns(declared: Mapping[str, AttributeType]) -> dict[str, str]:
    """The field of a collection that each declared attribute is stored in, for filters.

    A field of its own is found forty times as fast as a key of a JSON field on Milvus Lite. What
    people call an attribute need be no name of a field.
    """
    return {name: f"attribute_{place}" for place, name in enumerate(sorted(declared))}


def typed(attributes: Mapping[str, Any], declared: Mapping[str, AttributeType]) -> dict[str, Any]:
    """`attributes` with the declared ones as what they are declared.

    A value is converted where nothing is lost: "2020" to 2020, 2020 to 2020.0, "true" to true,
    7 to "7". Null is no value. What is not declared stays as it is. Raises ValueError, naming
    attribute, value and type.
    """
    kept = {
        name: value
        for name, value in attributes.items()
        if name not in declared or value is not None
    }
    for name in kept.keys() & declared.keys():
        try:
            kept[name] = exact(_read(kept[name], declared[name]), declared[name])
        except ValueError as exc:
            raise ValueError(f"attribute {name!r} is {shown(kept[name])}, {exc}") from exc
    return kept


def exact(value: Any, kind: AttributeType) -> Value:
    """`value` as a `kind`, without reading text as anything else.

    Raises ValueError, whose message goes on after the value: "which is no integer".
    """
    match kind, value:
        case "string", str():
            return _string(value)
        case "boolean", bool():
            return value
        case (("integer" | "number"), bool()):
            pass
        case "integer", int():
            return _integer(value)
        case "integer", float() if value.is_integer():
            return _integer(int(value))
        case "number", (int() | float()):
            return _number(value)
    raise ValueError(f"which is no {kind}")


def within_limits(attributes: Mapping[str, Any]) -> dict[str, Value]:
    """What OpenAI's clients can read of what a document says: no nested values, and so many."""
    scalars = {
        name: value[:STRING_MAX_CHARS] if isinstance(value, str) else value
        for name, value in attributes.items()
        if isinstance(value, str | int | float | bool) and len(name) <= NAME_MAX_CHARS
    }
    return dict(list(scalars.items())[:MOST_ATTRIBUTES])


def shown(value: Any) -> str:
    """`value` as a message may have it: on one line, and not long."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def _read(value: Any, kind: AttributeType) -> Any:
    """`value`, or what it means where it says the same in another type."""
    match kind, value:
        # A float has lost how it was written: 1.10 is 1.1. A boolean too: it may have been "no".
        case "string", int() if not isinstance(value, bool):
            return str(value)
        case (("integer" | "number"), str()) if _INTEGER.fullmatch(value):
            return int(value[:STRING_MAX_CHARS])  # Python refuses thousands of digits
        case "number", str() if _NUMBER.fullmatch(value):
            return float(value)
        case "boolean", str():
            return _BOOLEANS.get(value.lower(), value)
    return value


def _string(value: str) -> str:
    if len(value) > STRING_MAX_CHARS:
        raise ValueError(f"which is longer than {STRING_MAX_CHARS} characters")
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise ValueError("which is no valid Unicode") from exc
    return value


def _integer(value: int) -> int:
    if abs(value) > INTEGER_MAX:
        raise ValueError(f"which is beyond {INTEGER_MAX}: what is so large may be a string")
    return value


def _number(value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("which is no finite number")
    if number != value:
        raise ValueError("which a number of 64 bits does not hold exactly")
    return number + 0.0  # makes -0.0 the same as 0.0
