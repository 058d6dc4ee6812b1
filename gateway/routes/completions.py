"""OpenAI's completions."""

from typing import Any

from litestar import Response, post
from litestar.di import NamedDependency

from gateway.answers import Answers
from gateway.completions.request import CompletionRequest
from gateway.routes.documentation import documented
from gateway.routes.serving import AnyRequest, answered
from gateway.schemas.completions import CREATE_COMPLETION


@post("/v1/completions", status_code=200, **documented(CREATE_COMPLETION))
async def completions(request: AnyRequest, answers: NamedDependency[Answers]) -> Response[Any]:
    """OpenAI's completions; from the documents in the index where the request asks for that."""
    return await answered(request, answers, CompletionRequest)


ROUTES = [completions]
