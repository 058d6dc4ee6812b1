"""Puts the gateway together: the one place in it where clients are constructed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from litestar import Litestar
from litestar.di import Provide

from gateway.budget import Budget
from gateway.chat import Chat
from gateway.edge import add_request_id, error_response
from gateway.grounding import Grounder
from gateway.health import Health
from gateway.models import Models
from gateway.prompt import PromptTemplate
from gateway.retrieval.cross_encoder import CrossEncoder
from gateway.retrieval.reranking import LocalReranker, RemoteReranker, Reranker
from gateway.retrieval.retriever import Retriever
from gateway.routes import ROUTES
from gateway.settings import GatewaySettings
from gateway.understanding import Understanding
from gateway.upstream import Upstream
from indexer.index.collection import ForeignReader, IndexReader
from indexer.index.embedding import Encoder, TextEncoder
from indexer.index.foreign_fields import parsed_fields


def create_app(
    settings: GatewaySettings,
    *,
    upstream: Upstream | None = None,
    reader: IndexReader | None = None,
    load_encoder: Callable[[], TextEncoder] | None = None,
    reranker: Reranker | None = None,
) -> Litestar:
    """The application; a test passes its own parts as keywords. Raises BadTemplate."""
    upstream = upstream or Upstream.connect(settings)
    reader = reader or _reader(settings)
    retriever = Retriever(
        reader,
        load_encoder or partial(Encoder.load, settings),
        settings.tenant,
        settings.poll_interval_s,
        reranker or _reranker(settings),
    )
    models = Models(upstream, settings.poll_interval_s)
    budget = Budget(
        upstream,
        PromptTemplate(settings.prompt_template),
        answer_tokens=settings.answer_tokens,
        trim_history=settings.trim_history,
    )
    understanding = Understanding(upstream, settings.rewrite_timeout_s)
    grounder = Grounder(settings, retriever, understanding, budget)
    parts = {
        "chat": Chat(settings, upstream, models, grounder),
        "models": models,
        "health": Health(models, retriever),
    }

    @contextlib.asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        tasks = [
            asyncio.create_task(work)
            for work in (retriever.start(), retriever.published.watch(), models.watch())
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await retriever.close()
            await upstream.close()

    return Litestar(
        route_handlers=ROUTES,
        dependencies={name: _provided(part) for name, part in parts.items()},
        exception_handlers={Exception: error_response},
        before_send=[add_request_id],
        lifespan=[lifespan],
        request_max_body_size=settings.max_body_bytes,
        openapi_config=None,
        logging_config=None,
    )


def _reader(settings: GatewaySettings) -> IndexReader:
    if settings.foreign_fields is None:
        return IndexReader(settings)
    return ForeignReader(settings, parsed_fields(settings.foreign_fields))


def _reranker(settings: GatewaySettings) -> Reranker | None:
    if settings.reranker_model is None:
        return None
    if settings.reranker_url is None:
        return LocalReranker(
            partial(CrossEncoder, settings.reranker_model, settings.encoder_device)
        )
    server = Upstream.connect(settings, settings.reranker_url, settings.reranker_api_key)
    return RemoteReranker(server, settings.reranker_model)


def _provided(part: Any) -> Provide:
    def provider() -> Any:
        return part

    return Provide(provider, sync_to_thread=False)
