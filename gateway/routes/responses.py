"""OpenAI's Responses API."""

from typing import Any

from litestar import MediaType, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from gateway.answers import Answers
from gateway.errors import InvalidRequest
from gateway.models import Models
from gateway.responses.request import ResponsesRequest
from gateway.responses.stored import Stored
from gateway.routes.documentation import documented
from gateway.routes.serving import AnyRequest, EventStream, answered, json_body
from gateway.schemas.responses import CANCEL_RESPONSE, CREATE_RESPONSE, RETRIEVE_RESPONSE

_TRUE = ("true", "1")
_FALSE = ("false", "0", "")


@post("/v1/responses", status_code=200, **documented(CREATE_RESPONSE))
async def create_response(request: AnyRequest, answers: NamedDependency[Answers]) -> Response[Any]:
    """OpenAI's Responses API, answered from the documents in the index."""
    return await answered(request, answers, ResponsesRequest)


@get("/v1/responses/{response_id:str}", **documented(RETRIEVE_RESPONSE))
async def retrieve_response(
    request: AnyRequest, response_id: FromPath[str], models: NamedDependency[Models]
) -> Response[Any]:
    """A response that vLLM has kept, whole or as the events that made it."""
    stored = Stored(models)
    wanted = request.query_params.get("stream", "").lower()
    if wanted not in _TRUE + _FALSE:
        raise InvalidRequest(f"Invalid value for 'stream': {wanted!r}.", "stream")
    if wanted in _FALSE:
        return Response(await stored.retrieved(response_id), media_type=MediaType.JSON)
    return EventStream(await stored.streamed(response_id, _after(request)))


@post("/v1/responses/{response_id:str}/cancel", status_code=200, **documented(CANCEL_RESPONSE))
async def cancel_response(
    request: AnyRequest, response_id: FromPath[str], models: NamedDependency[Models]
) -> Response[bytes]:
    """Stop a response that is made in the background."""
    await json_body(request)
    return Response(await Stored(models).cancelled(response_id), media_type=MediaType.JSON)


def _after(request: AnyRequest) -> int:
    """The number of the last event that the client has had. Raises InvalidRequest."""
    said = request.query_params.get("starting_after", "-1")
    try:
        return int(said)
    except ValueError as exc:
        raise InvalidRequest(
            f"Invalid value for 'starting_after': {said!r} is no whole number.", "starting_after"
        ) from exc


ROUTES = [create_response, retrieve_response, cancel_response]
