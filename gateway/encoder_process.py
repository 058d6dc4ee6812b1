"""A process with the embedding model in it, which the workers of one gateway ask over a socket.

It answers as an embeddings server does, and tells which encoder it is. It knows no retrieval, no
vLLM and no Milvus, so that its memory is the model's.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from litestar import Litestar, MediaType, Request, Response, get, post
from litestar.di import NamedDependency, Provide

from gateway.edge import error_response
from gateway.embeddings import EmbeddingRequest, embedded_by, written
from gateway.encoding import IDENTITY_FIELD, QUERIES_PATH, Embedded, LocalEncoding
from gateway.exchanges import Exchanges
from gateway.processes import encoder_socket, end_with_parent, ignore_signals, log_to_stderr
from gateway.settings import GatewaySettings
from gateway.waiting import QueueBounds
from gateway.watching import kept_going
from indexer.index.embedding import EmbeddingModel, Encoder


class _Questions(msgspec.Struct):
    model: str
    input: list[str]


@get("/v1/models")
async def models(encoding: NamedDependency[LocalEncoding]) -> Response[bytes]:
    """The one model, with its identity."""
    identity = encoding.identity
    entry = {"id": identity.model, "object": "model", IDENTITY_FIELD: identity}
    return _json(msgspec.json.encode({"object": "list", "data": [entry]}))


@post("/v1/embeddings", status_code=200)
async def embeddings(
    request: Request[Any, Any, Any], encoding: NamedDependency[LocalEncoding]
) -> Response[bytes]:
    """The vectors of texts of clients."""
    asked = await asyncio.to_thread(EmbeddingRequest.read, await request.body())
    embedded = await embedded_by(encoding, asked)
    dimension = encoding.identity.dimension
    return _json(await asyncio.to_thread(written, asked.model, embedded, dimension, "base64"))


@post(f"/v1{QUERIES_PATH}", status_code=200)
async def queries(
    request: Request[Any, Any, Any], encoding: NamedDependency[LocalEncoding]
) -> Response[bytes]:
    """The vectors of questions, which do not wait for those texts."""
    asked = msgspec.json.decode(await request.body(), type=_Questions)
    embedded = Embedded(await encoding.queries(asked.input), tokens=0)
    return _json(written(asked.model, embedded, encoding.identity.dimension, "base64"))


def create_encoder_app(
    load: Callable[[], EmbeddingModel],
    bounds: QueueBounds = QueueBounds(),  # noqa: B008 - immutable
) -> Litestar:
    """The application; `load` takes seconds, and raises EncoderUnavailable."""
    encoding = LocalEncoding(load, bounds)

    @contextlib.asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        loading = asyncio.create_task(kept_going("the embedding model", encoding.start))
        try:
            yield
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            await encoding.close()

    return Litestar(
        route_handlers=[models, embeddings, queries],
        dependencies={"encoding": Provide(lambda: encoding, sync_to_thread=False)},
        exception_handlers={Exception: error_response},
        # Workers count their own requests.
        middleware=[Exchanges(counted=False).middleware],
        lifespan=[lifespan],
        request_max_body_size=None,  # the workers have looked at it
        openapi_config=None,
        logging_config=None,
    )


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None: workers that drain need it until the end, whoever else gets the signal."""
        yield


def serve(settings: GatewaySettings, folder: Path, lifeline: Connection) -> None:
    """Serve on a socket in `folder` until the other side of `lifeline` is closed."""
    ignore_signals()
    log_to_stderr(settings)
    config = uvicorn.Config(
        create_encoder_app(partial(Encoder.load, settings), settings.queue_bounds),
        uds=str(encoder_socket(folder)),
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)

    def end() -> None:
        server.should_exit = True

    end_with_parent(lifeline, folder, end)
    server.run()


def _json(content: bytes) -> Response[bytes]:
    return Response(content, media_type=MediaType.JSON)
