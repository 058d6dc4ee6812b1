"""The routes, thin: each reads its request, calls what does the work, and shapes the response."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec
from litestar import MediaType, Request, Response, get, post
from litestar.background_tasks import BackgroundTask
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Stream
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from gateway.chat import Chat
from gateway.edge import error_event
from gateway.errors import ClientGone, ModelNotFound
from gateway.health import Health
from gateway.models import DEFAULT_MODEL, Models
from gateway.relay import Grounding, grounded, relayed
from gateway.replies import Reply
from gateway.upstream import UpstreamAnswer

T = TypeVar("T")
EVENTS = "text/event-stream"
NOT_STORED = {"cache-control": "no-cache", "x-accel-buffering": "no"}


@post("/v1/chat/completions", status_code=200)
async def chat_completions(
    request: Request[Any, Any, Any], chat: NamedDependency[Chat]
) -> Response[Any]:
    """OpenAI's chat completions, answered from the documents in the index."""
    body = await request.body()
    return await _unless_client_leaves(request, _chat_response(chat, body))


@get("/v1/models", media_type=MediaType.JSON)
async def list_models(models: NamedDependency[Models]) -> Response[bytes]:
    """What vLLM serves now, and `default`, which always means that."""
    served = [model.fields for model in await models.refresh()]
    default = [{**served[0], "id": DEFAULT_MODEL}] if served else []
    return _json({"object": "list", "data": served + default})


@get("/v1/models/{name:path}", media_type=MediaType.JSON)
async def retrieve_model(models: NamedDependency[Models], name: FromPath[str]) -> Response[bytes]:
    """One model by name; names may hold slashes."""
    wanted = name.removeprefix("/")
    served = await models.refresh()
    known = await models.resolve(wanted)
    for model in served:
        if model.id == known:
            return _json({**model.fields, "id": wanted})
    raise ModelNotFound(f"The model {wanted!r} does not exist.")


@get("/health/live", media_type=MediaType.JSON)
async def live() -> Response[bytes]:
    """The process answers."""
    return _json({"status": "live"})


@get("/health/ready", media_type=MediaType.JSON)
async def ready(health: NamedDependency[Health]) -> Response[bytes]:
    """Every part that an answer needs is there; 503 names those that are not, and why."""
    missing = await health.missing()
    if missing:
        return _json({"status": "not ready", "missing": missing}, status_code=503)
    return _json({"status": "ready"})


@get("/metrics", media_type=CONTENT_TYPE_LATEST)
async def metrics() -> Response[bytes]:
    """What Prometheus scrapes."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


async def _chat_response(chat: Chat, body: bytes) -> Response[Any]:
    answer = await chat.answer(body)
    headers = {"server-timing": _server_timing(answer.stages_s)} if answer.stages_s else {}
    if isinstance(answer.body, Reply):
        if answer.stream:
            return Stream(answer.body.events(), media_type=EVENTS, headers=headers | NOT_STORED)
        return Response(answer.body.whole(), media_type=MediaType.JSON, headers=headers)
    if answer.stream:
        return Stream(
            relayed(answer.body.chunks(), answer.grounding, error_event),
            media_type=EVENTS,
            headers=headers | NOT_STORED,
            # Also where the client left before the first event, and nothing was iterated.
            background=BackgroundTask(answer.body.close),
        )
    whole = await _whole(answer.body, answer.grounding)
    return Response(whole, media_type=MediaType.JSON, headers=headers)


async def _whole(answer: UpstreamAnswer, grounding: Grounding | None) -> bytes:
    try:
        body = await answer.read()
    finally:
        await answer.close()
    return body if grounding is None else grounded(body, grounding)


async def _unless_client_leaves(request: Request[Any, Any, Any], work: Coroutine[Any, Any, T]) -> T:
    """Do `work`, and drop it when the client closes the connection. Raises ClientGone."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_disconnect(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGone("the client closed the connection")
    finally:
        working.cancel()
        leaving.cancel()


async def _disconnect(request: Request[Any, Any, Any]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _server_timing(stages_s: dict[str, float]) -> str:
    return ", ".join(f"{stage};dur={seconds * 1000:.1f}" for stage, seconds in stages_s.items())


def _json(content: Any, status_code: int = 200) -> Response[bytes]:
    return Response(
        msgspec.json.encode(content), status_code=status_code, media_type=MediaType.JSON
    )


ROUTES = [chat_completions, list_models, retrieve_model, live, ready, metrics]
