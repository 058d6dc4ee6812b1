"""Anthropic's messages."""

from typing import Any

from litestar import Response, post
from litestar.di import NamedDependency

from gateway.answers import Answers
from gateway.messages.request import MessagesRequest, TokenCountRequest
from gateway.routes.documentation import documented
from gateway.routes.serving import AnyRequest, answered
from gateway.schemas.messages import COUNT_TOKENS, CREATE_MESSAGE


@post("/v1/messages", status_code=200, **documented(CREATE_MESSAGE))
async def create_message(request: AnyRequest, answers: NamedDependency[Answers]) -> Response[Any]:
    """Anthropic's messages; from the documents in the index where the request asks for that."""
    return await answered(request, answers, MessagesRequest)


@post("/v1/messages/count_tokens", status_code=200, **documented(COUNT_TOKENS))
async def count_tokens(request: AnyRequest, answers: NamedDependency[Answers]) -> Response[Any]:
    """How many tokens such a request has; with retrieval, its documents included."""
    return await answered(request, answers, TokenCountRequest)


ROUTES = [create_message, count_tokens]
