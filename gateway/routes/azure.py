"""Where clients of Azure OpenAI look: a path for each deployment, which names the model.

Their `api-version` is not looked at.
"""

from typing import Any

from litestar import Response, post
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from gateway.answers import Answers
from gateway.chat.request import ChatRequest
from gateway.completions.request import CompletionRequest
from gateway.conversation import Conversation
from gateway.embeddings import Embeddings
from gateway.routes.documentation import documented
from gateway.routes.embeddings import embedded
from gateway.routes.serving import AnyRequest, answered
from gateway.schemas.azure import CALL_DEPLOYMENT

_DIALECTS: dict[str, type[Conversation] | None] = {
    # The longer one first: it ends like the other.
    "/chat/completions": ChatRequest,
    "/completions": CompletionRequest,
    "/embeddings": None,
}


@post("/openai/deployments/{deployment:path}", status_code=200, **documented(CALL_DEPLOYMENT))
async def deployment(
    request: AnyRequest,
    answers: NamedDependency[Answers],
    embeddings: NamedDependency[Embeddings],
    deployment: FromPath[str],
) -> Response[Any]:
    """Azure's chat completions, completions and embeddings; names may hold slashes."""
    for ending, dialect in _DIALECTS.items():
        model = deployment.removesuffix(ending).strip("/")
        if deployment.endswith(ending) and model:
            if dialect is None:
                return await embedded(request, embeddings, model)
            return await answered(request, answers, dialect, model)
    raise NotFoundException


ROUTES = [deployment]
