"""The routes, thin: each reads its request, calls what does the work, and shapes the response."""

from litestar import Router
from litestar.handlers import HTTPRouteHandler

from gateway.routes import (
    azure,
    chat,
    completions,
    documentation,
    embeddings,
    files,
    health,
    messages,
    models,
    rerank,
    responses,
    vector_store_files,
    vector_stores,
)

_OPENAI: list[HTTPRouteHandler] = [
    *chat.ROUTES,
    *responses.ROUTES,
    *completions.ROUTES,
    *models.ROUTES,
    *embeddings.ROUTES,
    *rerank.ROUTES,
    *vector_stores.ROUTES,
    *vector_store_files.ROUTES,
    *files.ROUTES,
]
ROUTES: list[HTTPRouteHandler | Router] = [
    *_OPENAI,
    *messages.ROUTES,
    *health.ROUTES,
    *azure.ROUTES,
    *documentation.ROUTES,
    # Azure has them there for the plain OpenAI client.
    Router("/openai", route_handlers=_OPENAI, include_in_schema=False),
]
