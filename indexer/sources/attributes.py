"""Attributes as people write them: flat tables of JSON values. Knows sidecar files, not documents.

A sidecar describes the file it stands beside: `guide.pdf.meta.toml`, `.meta.yaml`, `.meta.yml`
or `.meta.json`. Its key `title` is the document's title, all others are attributes.
"""

import datetime as dt
import math
import tomllib
from collections.abc import Mapping
from typing import Any

import msgspec

from indexer.errors import DocumentUnusable

SIDECAR_MAX_BYTES = 64 << 10
"""What whoever reads a sidecar reads of it at most."""
_FLAT_DEPTH = 2  # a list in a table


def json_attributes(table: Mapping[str, Any]) -> dict[str, Any]:
    """`table` with dates as ISO 8601 strings. Raises ValueError, naming a key that is not flat."""
    return {str(key): _json_value(str(key), value) for key, value in table.items()}


def _json_value(key: str, value: Any) -> Any:
    match value:
        case list():
            return [_json_scalar(key, item) for item in value]
        case _:
            return _json_scalar(key, value)


def _json_scalar(key: str, value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            raise ValueError(f"{key} is {value}, which is no JSON number")
        case None | bool() | int() | float() | str():
            return value
        case dt.date() | dt.time():
            return value.isoformat()
    raise ValueError(f"{key} is no text, number, truth value, date or list of these")


class Described(msgspec.Struct, frozen=True):
    """What configuration and sidecar say of a document together."""

    attributes: dict[str, Any]
    title: str = ""


def described(attributes: dict[str, Any], sidecar: str, data: bytes) -> Described:
    """`attributes`, and over them what the sidecar file named `sidecar` says.

    A null in the sidecar takes an attribute away. Raises DocumentUnusable, naming the sidecar.
    """
    try:
        said = json_attributes(_table(sidecar, data))
    except RecursionError as exc:
        raise DocumentUnusable(f"{sidecar} is nested too deeply") from exc
    except ValueError as exc:
        raise DocumentUnusable(f"{sidecar} cannot be used: {' '.join(str(exc).split())}") from exc
    title = said.pop("title", None)
    merged = {key: value for key, value in (attributes | said).items() if value is not None}
    return Described(merged, "" if title is None else str(title))


def _table(sidecar: str, data: bytes) -> dict[str, Any]:
    text = data.removeprefix(b"\xef\xbb\xbf").decode()
    match sidecar.rpartition(".")[2].lower():
        case "toml":
            table = tomllib.loads(text)
        case "json":
            table = msgspec.json.decode(text)
        case _:
            table = _yaml(text)
    if not isinstance(table, dict):
        raise ValueError("it is no table of keys and values")  # noqa: TRY004  # as what it holds
    return table


def _yaml(text: str) -> Any:
    import yaml

    try:
        # Deep nesting takes PyYAML minutes, and kills the process with its parser in C.
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _FLAT_DEPTH:
                raise ValueError("it is nested")
        table = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ValueError(str(exc)) from exc
    return {} if table is None else table
