"""What routes share: bodies that are JSON, answers plain and streamed."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec
from litestar import MediaType, Request, Response
from litestar.types import ASGIApp, Receive, Scope, Send

from gateway.answers import Answers, server_timing
from gateway.conversation import Asked, Conversation
from gateway.degraded import HEADER as DEGRADED
from gateway.errors import InvalidRequest, Refused
from gateway.exchanges import exchange_of
from gateway.heartbeats import Heartbeat
from gateway.retrieval.options import HEADER
from gateway.stages import Stages

EVENTS = "text/event-stream"
AS_THEY_COME = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}
"""Keep what stands between from storing events, compressing them, and waiting for more of them."""

AnyRequest = Request[Any, Any, Any]


class ByteStream(Response[None]):
    """Bytes as they come: nothing stands between them and the server."""

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        close: Callable[[], Awaitable[None]],
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`close` is called however it ends, also where nothing was iterated."""
        super().__init__(None, headers=dict(headers or {}), media_type=media_type)
        self._pieces = pieces
        self._close = close

    def to_asgi_response(self, **_: Any) -> ASGIApp:  # type: ignore[override]
        """What Litestar calls; the pieces are no content that it should encode."""
        return self._serve

    async def _serve(self, scope: Scope, _: Receive, send: Send) -> None:
        head = {**self.headers, "content-type": str(self.media_type)}
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code or 200,
                    "headers": [(name.encode(), value.encode()) for name, value in head.items()],
                }
            )
            await self._relay(scope, send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await self._close()

    async def _relay(self, _: Scope, send: Send) -> None:
        async for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})


class Streamed(Protocol):
    """An answer that comes as events."""

    def events(self) -> AsyncIterator[bytes]:
        """Pieces of whole events."""

    def failed(self, failure: Exception) -> bytes:
        """The event that ends them where they break off."""

    async def close(self) -> None:
        """Let go of what they come from."""


class EventStream(ByteStream):
    """Events as they come, and a sign of life where none comes for long."""

    def __init__(self, answer: Streamed, headers: Mapping[str, str] | None = None) -> None:
        kind = f"{EVENTS}; charset=utf-8"
        super().__init__(answer.events(), answer.close, kind, {**(headers or {}), **AS_THEY_COME})
        self._failed = answer.failed

    async def _relay(self, scope: Scope, send: Send) -> None:
        exchange = exchange_of(scope)
        exchange.tell = self._failed
        alive = Heartbeat(send, exchange.heartbeat_s)
        try:
            async for piece in self._pieces:
                await alive.send(piece)
        finally:
            alive.stop()


async def json_body(request: AnyRequest) -> bytes:
    """The body, which says that it is JSON, or nothing, and is within the bounds of all bodies.

    Raises InvalidRequest and Refused.
    """
    refuse_compressed(request)
    kind = header(request, b"content-type").partition(";")[0].strip()
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise InvalidRequest(
            f"The content type is {kind!r}: send JSON, as application/json.", "content-type"
        )
    content = await request.body()
    if content:
        request.app.state.bounds.check(content)
    return content


def refuse_compressed(request: AnyRequest) -> None:
    """Raises Refused for a body that would have to be unpacked: a few bytes may be gigabytes."""
    coding = header(request, b"content-encoding").strip().lower()
    if coding not in ("", "identity"):
        raise Refused(
            f"The content encoding is {coding[:100]!r}: send the body as it is.",
            400,
            "unsupported_content_encoding",
        )


async def answered(
    request: AnyRequest, answers: Answers, dialect: type[Conversation], model: str | None = None
) -> Response[Any]:
    """The response to a request in one of the APIs that a model answers.

    `model` is the one that the path names. Raises what `Answers.answer` does.
    """
    body = await json_body(request)
    asked = Asked(model, header(request, HEADER.encode()) or None)
    return await _response(answers, dialect, body, asked)


def header(request: AnyRequest, name: bytes) -> str:
    """The header of that name, in small letters; empty where there is none.

    Litestar's own headers are read whole before one of them can be asked for.
    """
    found = (value for known, value in request.scope["headers"] if known == name)
    return next(found, b"").decode("latin-1")


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
    if answer.away:
        headers[DEGRADED] = ", ".join(answer.away)
    if not conversation.stream:
        whole = await answer.whole()
        return Response(whole, media_type=MediaType.JSON, headers=headers)
    return EventStream(answer, headers)
