"""Documents ranked by the reranking model, at the paths of Jina and of Cohere."""

from litestar import MediaType, Response, post
from litestar.di import NamedDependency

from gateway.answers import server_timing
from gateway.rerank import Ranking
from gateway.routes.documentation import documented
from gateway.routes.serving import AnyRequest, json_body
from gateway.schemas.rerank import RERANK
from gateway.stages import Stages


@post(["/v1/rerank", "/v2/rerank"], status_code=200, **documented(RERANK))
async def rerank(request: AnyRequest, ranking: NamedDependency[Ranking]) -> Response[bytes]:
    """The documents that fit the query best, best first."""
    stages = Stages()
    body = await json_body(request)
    answer = await ranking.answer(body, stages)
    return Response(
        answer, media_type=MediaType.JSON, headers={"server-timing": server_timing(stages)}
    )


ROUTES = [rerank]
