"""Azure OpenAI's deployments, as they are documented. Their path names the model."""

from gateway.schemas import failures
from gateway.schemas.chat import (
    CREATE_CHAT_COMPLETION,
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionRequest,
)
from gateway.schemas.completions import Completion, CompletionRequest
from gateway.schemas.documented import RETRIEVAL_HEADER, Documented, Parameter
from gateway.schemas.embeddings import CreateEmbeddingRequest, EmbeddingList


class DeploymentChatRequest(ChatCompletionRequest, kw_only=True):
    """A request to `/openai/deployments/{name}/chat/completions`."""

    model: str = ""
    """Does not count."""


class DeploymentCompletionRequest(CompletionRequest, kw_only=True):
    """A request to `/openai/deployments/{name}/completions`."""

    model: str = ""
    """Does not count."""


class DeploymentEmbeddingRequest(CreateEmbeddingRequest, kw_only=True):
    """A request to `/openai/deployments/{name}/embeddings`."""

    model: str = ""
    """Does not count."""


CALL_DEPLOYMENT = Documented(
    id="callDeployment",
    tag="Azure",
    summary="Call a deployment: chat completions, completions or embeddings",
    requests=(
        DeploymentChatRequest,
        DeploymentCompletionRequest,
        DeploymentEmbeddingRequest,
    ),
    example=CREATE_CHAT_COMPLETION.example,
    answers=(ChatCompletion, Completion, EmbeddingList),
    events=(ChatCompletionChunk, Completion),
    parameters=(
        RETRIEVAL_HEADER,
        Parameter(name="api-version", description="Azure's; it is not looked at."),
    ),
    failures=failures.ANSWER,
)
