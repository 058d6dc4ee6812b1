"""OpenAI's chat completions."""

from typing import Any

from litestar import Response, post
from litestar.di import NamedDependency

from gateway.answers import Answers
from gateway.chat.request import ChatRequest
from gateway.routes.documentation import documented
from gateway.routes.serving import AnyRequest, answered
from gateway.schemas.chat import CREATE_CHAT_COMPLETION


@post("/v1/chat/completions", status_code=200, **documented(CREATE_CHAT_COMPLETION))
async def chat_completions(request: AnyRequest, answers: NamedDependency[Answers]) -> Response[Any]:
    """OpenAI's chat completions, answered from the documents in the index."""
    return await answered(request, answers, ChatRequest)


ROUTES = [chat_completions]
