"""OpenAI's embeddings, from the gateway's own encoder."""

from litestar import MediaType, Response, post
from litestar.di import NamedDependency

from gateway.answers import server_timing
from gateway.embeddings import Embeddings
from gateway.routes.documentation import documented
from gateway.routes.serving import AnyRequest, json_body
from gateway.schemas.embeddings import CREATE_EMBEDDINGS
from gateway.stages import Stages


@post("/v1/embeddings", status_code=200, **documented(CREATE_EMBEDDINGS))
async def create_embeddings(
    request: AnyRequest, embeddings: NamedDependency[Embeddings]
) -> Response[bytes]:
    """The vectors of texts, or of token ids of the encoder's own tokenizer."""
    return await embedded(request, embeddings)


async def embedded(
    request: AnyRequest, embeddings: Embeddings, model: str | None = None
) -> Response[bytes]:
    """The response to a request for embeddings; `model` is the one that the path names."""
    stages = Stages()
    body = await json_body(request)
    answer = await embeddings.answer(body, stages, model)
    return Response(
        answer, media_type=MediaType.JSON, headers={"server-timing": server_timing(stages)}
    )


ROUTES = [create_embeddings]
