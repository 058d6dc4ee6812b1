"""What routes share: bodies that are JSON, clients that leave, answers plain and streamed."""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import msgspec
from litestar import MediaType, Request, Response
from litestar.background_tasks import BackgroundTask
from litestar.response import Stream

from gateway.answers import Answers, server_timing
from gateway.conversation import Asked, Conversation
from gateway.errors import ClientGone, InvalidRequest
from gateway.retrieval.options import HEADER
from gateway.stages import Stages

T = TypeVar("T")
EVENTS = "text/event-stream"
NOT_STORED = {"cache-control": "no-cache", "x-accel-buffering": "no"}

AnyRequest = Request[Any, Any, Any]


async def json_body(request: AnyRequest) -> bytes:
    """The body, which says that it is JSON, or nothing. Raises InvalidRequest."""
    kind, _ = request.content_type
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise InvalidRequest(
            f"The content type is {kind!r}: send JSON, as application/json.", "content-type"
        )
    return await request.body()


async def answered(
    request: AnyRequest, answers: Answers, dialect: type[Conversation], model: str | None = None
) -> Response[Any]:
    """The response to a request in one of the APIs that a model answers.

    `model` is the one that the path names. Raises what `Answers.answer` does, and ClientGone.
    """
    body = await json_body(request)
    asked = Asked(model, request.headers.get(HEADER))
    return await unless_client_leaves(request, _response(answers, dialect, body, asked))


async def unless_client_leaves(request: AnyRequest, work: Coroutine[Any, Any, T]) -> T:
    """Do `work`, and drop it when the client closes the connection. Raises ClientGone.

    The body of the request must have been read.
    """
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


def json_response(
    content: Any, status_code: int = 200, headers: Mapping[str, str] | None = None
) -> Response[bytes]:
    """`content` as JSON."""
    return Response(
        msgspec.json.encode(content),
        status_code=status_code,
        headers=dict(headers or {}),
        media_type=MediaType.JSON,
    )


async def _response(
    answers: Answers, dialect: type[Conversation], body: bytes, asked: Asked
) -> Response[Any]:
    stages = Stages()
    with stages.measure("admit"):
        conversation = dialect(body, asked)
    answer = await answers.answer(conversation, stages)
    headers = {"server-timing": server_timing(stages)}
    if answer.was_kept:
        headers["x-groundserve-cache"] = "hit"
    if not conversation.stream:
        whole = await answer.whole()
        return Response(whole, media_type=MediaType.JSON, headers=headers)
    return Stream(
        answer.events(),
        media_type=EVENTS,
        headers=headers | NOT_STORED,
        # Also where the client left before the first event, and nothing was iterated.
        background=BackgroundTask(answer.close),
    )


async def _disconnect(request: AnyRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
