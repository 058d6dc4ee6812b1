"""Puts the gateway together: the one place in it where clients are constructed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from litestar import Litestar
from litestar.di import Provide

from gateway.chat import Chat
from gateway.edge import add_request_id, error_response
from gateway.health import Health
from gateway.models import Models
from gateway.retrieval import Retriever
from gateway.routes import ROUTES
from gateway.settings import GatewaySettings
from gateway.upstream import Upstream
from indexer.index.collection import IndexReader
from indexer.index.embedding import Encoder, TextEncoder


def create_app(
    settings: GatewaySettings,
    *,
    upstream: Upstream | None = None,
    reader: IndexReader | None = None,
    load_encoder: Callable[[], TextEncoder] | None = None,
) -> Litestar:
    """The application; a test passes its own parts as keywords. Raises BadTemplate."""
    upstream = upstream or Upstream.connect(settings)
    reader = reader or IndexReader(settings)
    retriever = Retriever(
        reader,
        load_encoder or partial(Encoder.load, settings),
        settings.tenant,
        settings.poll_interval_s,
    )
    models = Models(upstream, settings.poll_interval_s)
    parts = {
        "chat": Chat(settings, upstream, models, retriever),
        "models": models,
        "health": Health(models, retriever),
    }

    @contextlib.asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        tasks = [
            asyncio.create_task(work)
            for work in (retriever.start(), retriever.watch(), models.watch())
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


def _provided(part: Any) -> Provide:
    def provider() -> Any:
        return part

    return Provide(provider, sync_to_thread=False)
