"""The description of a route, and what it is in an OpenAPI document. Knows no server."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Literal

import msgspec

from gateway.errors import DeadlineExceeded, Overloaded, RateLimited, Unauthenticated
from gateway.retrieval.options import HEADER, RetrievalOptions
from gateway.schemas.components import ref, schema_of
from gateway.verdicts import ErrorBody, codes

JSON = "application/json"
EVENTS = "text/event-stream"
FORM = "multipart/form-data"
_OF_ALL = (Unauthenticated, RateLimited, Overloaded, DeadlineExceeded)
"""What any request may meet that needs a key."""

_HEADERS = {
    "x-request-id": {
        "description": "The client's own, where it sent one.",
        "schema": {"type": "string"},
    }
}


class ErrorResponse(msgspec.Struct):
    """What every error answer is."""

    error: ErrorBody


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a request may say beside path and body."""

    name: str
    description: str
    type: Any = str
    """As it would be in a struct."""
    place: Literal["query", "header"] = "query"
    is_json: bool = False
    """Whether it is written as JSON."""


class Documented(msgspec.Struct, frozen=True, kw_only=True):
    """What is told about a route, beside the docstring of its handler."""

    id: str
    """What OpenAI calls the operation, where it has it."""
    tag: str
    summary: str
    requests: tuple[type, ...] = ()
    """What a body may be; it takes none, if empty."""
    request_type: str = JSON
    example: Mapping[str, Any] | None = None
    """A body that works as it stands."""
    answers: tuple[type, ...] = ()
    """What a JSON answer may be; the answer is no JSON, if empty."""
    answer_type: str = JSON
    events: tuple[type, ...] = ()
    """What the data of an event may be; the answer is never a stream, if empty."""
    parameters: tuple[Parameter, ...] = ()
    is_open: bool = False
    """Whether it is answered without a key."""
    failures: tuple[type[Exception], ...] = ()
    """What may go wrong: these kinds of failures, and those below them."""
    error: type = ErrorResponse
    """What an error answer is."""
    unready: type | None = None
    """What a 503 is that is no error."""

    @property
    def types(self) -> list[type]:
        """Every shape that the description names."""
        named = (*self.requests, *self.answers, *self.events, self.error, self.unready)
        return [each for each in named if each is not None]


RETRIEVAL_HEADER = Parameter(
    name=HEADER,
    place="header",
    description="The field `retrieval` as JSON, for clients that cannot add a field to a body.",
    type=bool | RetrievalOptions | None,
    is_json=True,
)


def operation(said: Documented) -> dict[str, Any]:
    """Its request body and responses, as they are in the document."""
    found: dict[str, Any] = {"responses": _responses(said)}
    if said.is_open:
        found["security"] = []
    if said.requests:
        content: dict[str, Any] = {"schema": _any_of(said.requests)}
        if said.example is not None:
            content["example"] = dict(said.example)
        demanded = [f.required for each in said.requests for f in msgspec.structs.fields(each)]
        found["requestBody"] = {
            "required": any(demanded),
            "content": {said.request_type: content},
        }
    return found


def parameters(said: Documented) -> list[dict[str, Any]]:
    """Its parameters beside those of its path."""
    return [*map(_parameter, said.parameters)]


def _parameter(said: Parameter) -> dict[str, Any]:
    schema = {"schema": schema_of(said.type)}
    return {
        "name": said.name,
        "in": said.place,
        "description": said.description,
        "required": False,
        **({"content": {JSON: schema}} if said.is_json else schema),
    }


def _responses(said: Documented) -> dict[str, Any]:
    found = {"200": _response("The answer.", _content(said))}
    known = codes(*said.failures, *(() if said.is_open else _OF_ALL))
    if said.requests:
        known.setdefault(400, [])
        known[413] = ["request_too_large"]
    for status, named in sorted(known.items()):
        description = HTTPStatus(status).phrase
        if named:
            description += f": {', '.join(f'`{code}`' for code in named)}"
        found[str(status)] = _response(description, {JSON: {"schema": ref(said.error)}})
    if said.unready is not None:
        found["503"] = _response("Not ready", {JSON: {"schema": ref(said.unready)}})
    return found


def _response(description: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "headers": _HEADERS, "content": content}


def _content(said: Documented) -> dict[str, Any]:
    answer = _any_of(said.answers) if said.answers else {"type": "string"}
    content: dict[str, Any] = {said.answer_type: {"schema": answer}}
    if said.events:
        content[EVENTS] = {"schema": _event((*said.events, said.error))}
    return content


def _event(shapes: tuple[type, ...]) -> dict[str, Any]:
    """Each of the server-sent events, in the way of OpenAPI 3.2: 3.1 has none of its own."""
    json = {"type": "string", "contentMediaType": JSON, "contentSchema": _any_of(shapes)}
    return {
        "type": "object",
        "description": "Each event of the stream.",
        "properties": {
            "event": {"type": "string"},
            "data": {"anyOf": [json, {"const": "[DONE]", "description": "The end, if any."}]},
        },
        "required": ["data"],
    }


def _any_of(shapes: tuple[type, ...]) -> dict[str, Any]:
    return ref(shapes[0]) if len(shapes) == 1 else {"anyOf": [*map(ref, shapes)]}
