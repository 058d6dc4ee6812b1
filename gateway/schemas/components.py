"""Structs as the schemas of an OpenAPI document, with the sentences below their fields."""

import ast
import inspect
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import msgspec

from gateway.schemas.filters import FILTERS, ComparisonFilter, CompoundFilter, ListFilter
from gateway.schemas.sampling import Modelled

_PLACE = "#/components/schemas/"


def ref(struct: type) -> dict[str, Any]:
    """Where the schema of `struct` stands in the document."""
    return {"$ref": _PLACE + struct.__name__.lstrip("_")}


def schema_of(type_: Any) -> dict[str, Any]:
    """The schema of a type that is no struct, but may have some in it."""
    [schema], _ = msgspec.json.schema_components([type_], ref_template=_PLACE + "{name}")
    return schema


def either(*types: Any) -> msgspec.Meta:
    """What says of a field of any type that it has one of `types`, several lists among them."""
    return msgspec.Meta(extra_json_schema={"anyOf": [*map(msgspec.json.schema, types)]})


def components(structs: Iterable[type]) -> dict[str, Any]:
    """The schemas of `structs` and of all that they are made of, by name."""
    wanted = dict.fromkeys([*structs, ComparisonFilter, ListFilter, CompoundFilter])
    _, schemas = msgspec.json.schema_components(wanted, ref_template=_PLACE + "{name}")
    known = {each.__name__: each for each in _reachable(wanted)}
    for name, schema in schemas.items():
        _describe(schema, known[name])
    # A name that is private in its module is none of the document.
    written = msgspec.json.encode(schemas).replace(f'"{_PLACE}_'.encode(), f'"{_PLACE}'.encode())
    return {name.lstrip("_"): schema for name, schema in msgspec.json.decode(written).items()}


def _describe(schema: dict[str, Any], struct: type) -> None:
    """Say what msgspec leaves out of the schema of `struct`."""
    said = _sentences(struct)
    sentences = {each.encode_name: said.get(each.name) for each in msgspec.structs.fields(struct)}
    schema["title"] = schema["title"].lstrip("_")
    if issubclass(struct, Modelled):
        # What is not named here goes to vLLM as it came.
        schema["additionalProperties"] = True
        schema |= struct.more
    for name, field in schema["properties"].items():
        if field.get("default", ...) is None:
            del field["default"]
        if name == "filters" and not field:
            field.update(FILTERS)
        if sentence := sentences.get(name):
            field["description"] = sentence


def _reachable(structs: Iterable[type]) -> Iterator[type]:
    """`structs` and every struct that their fields may hold."""
    found: dict[type, None] = {}
    waiting: list[Any] = [*msgspec.inspect.multi_type_info(structs)]
    while waiting:
        info = waiting.pop()
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in found:
                continue
            found[info.cls] = None
            waiting += [field.type for field in info.fields]
        for name in ("types", "item_types"):
            waiting += getattr(info, name, ())
        for name in ("type", "item_type", "key_type", "value_type"):
            inner = getattr(info, name, None)
            if isinstance(inner, msgspec.inspect.Type):
                waiting.append(inner)
    return iter(found)


def _sentences(struct: type) -> dict[str, str]:
    """What is said below each field of `struct`, by name."""
    found: dict[str, str] = {}
    for base in reversed(struct.__mro__):
        if base is not msgspec.Struct and issubclass(base, msgspec.Struct):
            found |= _said_in(base.__module__).get(base.__name__, {})
    return found


@cache
def _said_in(module: str) -> dict[str, dict[str, str]]:
    """The same of every class of a module."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: dict(_below(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _below(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, after in pairwise(node.body):
        match field, after:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(said))),
            ):
                yield name, inspect.cleandoc(said)
