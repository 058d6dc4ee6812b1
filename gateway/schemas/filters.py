"""The grammar of filters, which `indexer.index.metadata_filters` reads, for documentation."""

from typing import Annotated, Any, Literal

import msgspec

from indexer.index.metadata_filters import MOST_VALUES, Connective

Scalar = str | float | bool

_FILTERS = [
    {"$ref": "#/components/schemas/ComparisonFilter"},
    {"$ref": "#/components/schemas/ListFilter"},
    {"$ref": "#/components/schemas/CompoundFilter"},
]
FILTERS: dict[str, Any] = {"anyOf": [*_FILTERS, {"type": "null"}]}
"""The schema of a field that takes a filter."""


class ComparisonFilter(msgspec.Struct, forbid_unknown_fields=True):
    """One attribute of the documents against a value."""

    type: Literal["eq", "ne", "gt", "gte", "lt", "lte"]
    key: str
    """Name of a declared attribute."""
    value: Scalar
    """Of the attribute's type."""


class ListFilter(msgspec.Struct, forbid_unknown_fields=True):
    """One attribute of the documents against a list of values."""

    type: Literal["in", "nin"]
    key: str
    """Name of a declared attribute."""
    value: Annotated[list[Scalar], msgspec.Meta(max_length=MOST_VALUES)]
    """Of the attribute's type."""


class CompoundFilter(msgspec.Struct, forbid_unknown_fields=True):
    """All of these filters, or one of them."""

    type: Connective
    filters: Annotated[
        list[Annotated[Any, msgspec.Meta(extra_json_schema={"anyOf": _FILTERS})]],
        msgspec.Meta(min_length=1),
    ]
