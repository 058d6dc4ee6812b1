"""What a client may say of a file in a store, and of which type that is."""

from collections.abc import Mapping
from typing import Any

from indexer.index.attributes import declared_types, exact
from indexer.index.library.records import Attributes
from indexer.index.records import AttributeType


def checked_attributes(table: Mapping[str, Any]) -> Attributes:
    """`table` with its numbers as floats. Raises ValueError, naming what no attribute may be.

    There are 16 at most; a name has 64 characters at most, a string 512.
    """
    types = {name: attribute_type(name, value) for name, value in table.items()}
    declared_types(types)
    checked: Attributes = {}
    for name, kind in types.items():
        try:
            checked[name] = exact(table[name], kind)
        except ValueError as exc:
            raise ValueError(f"attribute {name!r} has a value {exc}") from exc
    return checked


def attribute_type(name: str, value: Any) -> AttributeType:
    """The type of a value that a client gave. Raises ValueError where it has none."""
    match value:
        case bool():
            return "boolean"
        case str():
            return "string"
        case int() | float():
            return "number"
    raise ValueError(f"attribute {name!r} is no string, number or boolean")
