"""What routes share: bodies that are JSON, clients that leave, answers plain and streamed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import msgspec
from litestar import MediaType, Request, Response
from litestar.types import ASGIApp, Receive, Scope, Send

from gateway.answers import Answers, server_timing
from gateway.conversation import Asked, Conversation
from gateway.errors import ClientGone, InvalidRequest
from gateway.retrieval.options import HEADER
from gateway.stages import Stages

T = TypeVar("T")
EVENTS = "text/event-stream"
NOT_STORED = {"cache-control": "no-cache", "x-accel-buffering": "no"}

AnyRequest = Request[Any, Any, Any]


class EventStream(Response[None]):
    """Events as they come: nothing stands between them and the server."""

    def __init__(
        self,
        events: AsyncIterator[bytes],
        close: Callable[[], Awaitable[None]],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`close` is called however it ends, also where nothing was iterated."""
        super().__init__(None, headers={**(headers or {}), **NOT_STORED}, media_type=EVENTS)
        self._events = events
        self._close = close

    def to_asgi_response(self, **_: Any) -> ASGIApp:  # type: ignore[override]
        """What Litestar calls; the events are no content that it should encode."""
        return self._serve

    async def _serve(self, _: Scope, receive: Receive, send: Send) -> None:
        head = {**self.headers, "content-type": f"{EVENTS}; charset=utf-8"}
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code or 200,
                "headers": [(name.encode(), value.encode()) for name, value in head.items()],
            }
        )
        try:
            with suppress(ClientGone):
                await _unless_gone(receive, self._relay(send))
        finally:
            await self._close()

    async def _relay(self, send: Send) -> None:
        async for piece in self._events:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def json_body(request: AnyRequest) -> bytes:
    """The body, which says that it is JSON, or nothing. Raises InvalidRequest."""
    kind = header(request, b"content-type").partition(";")[0].strip()
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
    asked = Asked(model, header(request, HEADER.encode()) or None)
    return await unless_client_leaves(request, _response(answers, dialect, body, asked))


async def unless_client_leaves(request: AnyRequest, work: Coroutine[Any, Any, T]) -> T:
    """Do `work`, and drop it when the client closes the connection. Raises ClientGone.

    The body of the request must have been read.
    """
    return await _unless_gone(request.receive, work)


def header(request: AnyRequest, name: bytes) -> str:
    """The header of that name, in small letters; empty where there is none.

    Litestar's own headers are read whole before one of them can be asked for.
    """
    found = (value for known, value in request.scope["headers"] if known == name)
    return next(found, b"").decode("latin-1")


async def _unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_disconnect(receive))
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
    return EventStream(answer.events(), answer.close, headers)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
