"""Filters by attributes, in OpenAI's grammar, and what they are in Milvus' language.

::

    {"type": "and", "filters": [
        {"type": "eq", "key": "product", "value": "router"},
        {"type": "in", "key": "year", "value": [2023, 2024]}]}

What a filter means does not depend on the backend:

- A row that has no such attribute matches `ne` and `nin`, and nothing else.
- Numbers compare as numbers: 2020 equals 2020.0.
- Strings compare character by character, by code points: upper case before lower case, and ISO
  dates by time. `gt` and its like know numbers and strings, not booleans.
- `in` with an empty list matches no row, `nin` with one matches every row.
"""

from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

import msgspec

from indexer.index.attributes import Value, columns, exact, shown
from indexer.index.errors import FilterInvalid
from indexer.index.filters import differs, equals, literal
from indexer.index.records import AttributeType

MOST_COMPARISONS = 100
MOST_VALUES = 1_000
"""In all lists of one filter together."""
MOST_DEPTH = 10
"""Of `and` and `or` inside each other."""
MOST_CHARS = 100_000
"""In all names and texts of one filter together."""

Operator = Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
Connective = Literal["and", "or"]

_OPERATORS: tuple[Operator, ...] = get_args(Operator)
_CONNECTIVES: tuple[Connective, ...] = get_args(Connective)
_SYMBOLS = {"eq": "==", "ne": "!=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_ORDERING = ("gt", "gte", "lt", "lte")
_LISTS = ("in", "nin")
_EVERY_ROW = differs("chunk_id", "")
_NO_ROW = equals("chunk_id", "")
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Comparison(msgspec.Struct, frozen=True):
    """One attribute against a value, or against a list of them for `in` and `nin`."""

    type: Operator
    key: str
    value: Value | list[Value]


class Compound(msgspec.Struct, frozen=True):
    """All of these filters, or one of them."""

    type: Connective
    filters: "list[Filter]"


Filter = Comparison | Compound


def parse_filter(said: Any, param: str = "filters") -> Filter:
    """The filter that `said` is: JSON that was decoded, or is to be.

    `param` names it in the request. Which attributes there are is not looked at. Raises
    FilterInvalid, which names the part that is wrong.
    """
    if isinstance(said, msgspec.Raw):
        try:
            said = msgspec.json.decode(said)
        except _UNREADABLE as exc:
            raise FilterInvalid(f"{param} cannot be read: {exc}", param) from exc
    return _Parser().read(said, param, depth=0)


def compile_filter(
    wanted: Filter, declared: Mapping[str, AttributeType], param: str = "filters"
) -> str:
    """`wanted` as an expression over the rows of a generation, in parentheses.

    `declared` are the attributes of that generation's fingerprint. Every name and value in the
    expression is a literal of `filters`. Raises FilterInvalid, naming what is not declared or is
    not of its type, and where it stands in the request.
    """
    if isinstance(wanted, Compound):
        parts = [
            compile_filter(part, declared, f"{param}.filters[{place}]")
            for place, part in enumerate(wanted.filters)
        ]
        return f"({f' {wanted.type} '.join(parts)})"
    return _compared(wanted, declared, param)


class _Parser:
    """Reads one filter, and counts what is limited in the whole of it."""

    def __init__(self) -> None:
        self._comparisons = 0
        self._values = 0
        self._chars = 0

    def read(self, said: Any, param: str, depth: int) -> Filter:
        kind = said.get("type") if isinstance(said, dict) else None
        if kind in _CONNECTIVES:
            return self._compound(said, param, depth + 1)
        if kind in _OPERATORS:
            return self._comparison(said, param)
        if not isinstance(said, dict):
            raise FilterInvalid(f"{param} is no object with a type.", param)
        known = ", ".join(_CONNECTIVES + _OPERATORS)
        raise FilterInvalid(f"{param}.type is none of {known}.", f"{param}.type")

    def _compound(self, said: dict[str, Any], param: str, depth: int) -> Compound:
        if depth > MOST_DEPTH:
            raise FilterInvalid(f"{param} is nested deeper than {MOST_DEPTH} levels.", param)
        _refuse_unknown(said, ("type", "filters"), param)
        parts = said.get("filters")
        where = f"{param}.filters"
        if not isinstance(parts, list) or not parts:
            raise FilterInvalid(f"{where} is no list of at least one filter.", where)
        filters = [self.read(part, f"{where}[{place}]", depth) for place, part in enumerate(parts)]
        return Compound(said["type"], filters)

    def _comparison(self, said: dict[str, Any], param: str) -> Comparison:
        self._comparisons += 1
        if self._comparisons > MOST_COMPARISONS:
            raise FilterInvalid(f"{param} is one of more than {MOST_COMPARISONS}.", param)
        _refuse_unknown(said, ("type", "key", "value"), param)
        if not isinstance(said.get("key"), str):
            raise FilterInvalid(f"{param}.key is no name of an attribute.", f"{param}.key")
        self._count(said["key"], f"{param}.key")
        value, where = said.get("value"), f"{param}.value"
        if said["type"] in _LISTS:
            return Comparison(said["type"], said["key"], self._list(value, where))
        return Comparison(said["type"], said["key"], self._scalar(value, where))

    def _list(self, values: Any, param: str) -> list[Value]:
        if not isinstance(values, list):
            raise FilterInvalid(f"{param} is no list.", param)
        self._values += len(values)
        if self._values > MOST_VALUES:
            raise FilterInvalid(f"{param} has one of more than {MOST_VALUES} values.", param)
        return [self._scalar(value, f"{param}[{place}]") for place, value in enumerate(values)]

    def _scalar(self, value: Any, param: str) -> Value:
        if not isinstance(value, str | int | float | bool):
            raise FilterInvalid(f"{param} is no string, number or boolean.", param)
        if isinstance(value, str):
            self._count(value, param)
        return value

    def _count(self, text: str, param: str) -> None:
        self._chars += len(text)
        if self._chars > MOST_CHARS:
            raise FilterInvalid(f"{param} is one of more than {MOST_CHARS} characters.", param)


def _refuse_unknown(said: dict[str, Any], known: tuple[str, ...], param: str) -> None:
    for name in said:
        if name not in known:
            raise FilterInvalid(f"{param} has no field {shown(name)}.", param)


def _compared(wanted: Comparison, declared: Mapping[str, AttributeType], param: str) -> str:
    kind = declared.get(wanted.key)
    if kind is None:
        there = f"there are: {', '.join(sorted(declared))}" if declared else "none is declared"
        raise FilterInvalid(
            f"{param}.key is {shown(wanted.key)}, which is no declared attribute; {there}.",
            f"{param}.key",
        )
    if kind == "boolean" and wanted.type in _ORDERING:
        raise FilterInvalid(
            f"{param}.type is {wanted.type!r}, but {wanted.key!r} is a boolean: it has no order.",
            f"{param}.type",
        )
    field = columns(declared)[wanted.key]
    value = f"{param}.value"
    if wanted.type not in _LISTS:
        said = cast("Value", wanted.value)
        found = (
            f"({field} {_SYMBOLS[wanted.type]} {literal(_checked(said, wanted.key, kind, value))})"
        )
    else:
        listed = cast("list[Value]", wanted.value)
        values = [
            _checked(said, wanted.key, kind, f"{value}[{place}]")
            for place, said in enumerate(listed)
        ]
        found = _among(field, wanted.type, values)
    if wanted.type in ("ne", "nin"):
        # A comparison with nothing is neither true nor false.
        return f"(({field} is null) or {found})"
    return found


def _among(field: str, operator: str, values: list[Value]) -> str:
    if not values:
        return _NO_ROW if operator == "in" else _EVERY_ROW
    found = f"({field} in [{', '.join(map(literal, values))}])"
    return found if operator == "in" else f"(not {found})"


def _checked(value: Value, key: str, kind: AttributeType, param: str) -> Value:
    try:
        return exact(value, kind)
    except ValueError as exc:
        raise FilterInvalid(
            f"{param} is {shown(value)}, {exc}; {key!r} is declared as {kind}.", param
        ) from exc
