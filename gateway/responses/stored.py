"""Responses that a vLLM server has kept: found, and written as they were the first time.

vLLM keeps them in its memory, if it was started with VLLM_ENABLE_RESPONSES_API_STORE=1, and each
server only its own. The gateway keeps nothing: what it changes travels with the response.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import msgspec

from gateway.errors import (
    InvalidRequest,
    ResponseNotFound,
    UpstreamBroken,
    UpstreamRejected,
    UpstreamUnavailable,
)
from gateway.events import NO_SENSE, relayed
from gateway.models import Models
from gateway.responses.answer import edited
from gateway.responses.edits import PARTS, Edits, kept_edits, status_of
from gateway.responses.ids import is_own
from gateway.responses.stream import Editor
from gateway.routing import PATIENCE_S
from gateway.upstream import Upstream
from gateway.upstream_answer import UpstreamAnswer

T = TypeVar("T")
_STREAMED = {"stream": "true"}
_TRUE = msgspec.Raw(b"true")


class KeptStream:
    """The events of a response that goes on in the background, or is over."""

    def __init__(self, answer: UpstreamAnswer, editor: Editor) -> None:
        self._answer = answer
        self._editor = editor

    def events(self) -> AsyncIterator[bytes]:
        """The stream; one that breaks off ends with an error event."""
        return relayed(self._answer.chunks(), self._editor, self.failed)

    def failed(self, failure: Exception) -> bytes:
        """The event that ends it where it breaks off."""
        return self._editor.failed(failure)

    async def close(self) -> None:
        """Let go of vLLM, wherever the stream is."""
        await self._answer.close()


class Stored:
    """The responses that any server has kept, of the caller's tenant."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def retrieved(self, response_id: str) -> bytes:
        """The response as it is now. Raises ResponseNotFound, UpstreamFailure."""
        _, body = await self._found(response_id)
        return edited(body, _edits(body), is_new=False)

    async def streamed(self, response_id: str, after: int) -> KeptStream:
        """Its events behind number `after`; the caller closes the stream.

        Raises what `retrieved` does, and InvalidRequest for a response that was not made as a
        stream in the background, or was cancelled: vLLM keeps no events of others, or no end.
        """
        server, body = await self._found(response_id)
        refusal = InvalidRequest(
            "This response cannot be streamed: it was not created with background and stream, or "
            "it was cancelled.",
            "stream",
        )
        told = PARTS.decode(body)
        if told.get("background") != _TRUE or status_of(told) == "cancelled":
            raise refusal
        # From the beginning: vLLM numbers its events without those that were added.
        answer = await server.get(_path(response_id), _STREAMED)
        try:
            await answer.begin(PATIENCE_S)
        except UpstreamBroken as exc:
            await answer.close()
            raise refusal from exc
        except BaseException:
            await answer.close()
            raise
        return KeptStream(answer, Editor(_edits(body), after=after, is_new=False))

    async def cancelled(self, response_id: str) -> bytes:
        """The response, which is made no further. Raises ResponseNotFound, UpstreamFailure."""

        async def cancel(server: Upstream) -> UpstreamAnswer:
            return await server.post(f"{_path(response_id)}/cancel", b"")

        _, body = await self._first(response_id, cancel)
        return edited(body, _edits(body), is_new=False)

    async def _found(self, response_id: str) -> tuple[Upstream, bytes]:
        async def get(server: Upstream) -> UpstreamAnswer:
            return await server.get(_path(response_id), {})

        return await self._first(response_id, get)

    async def _first(
        self, response_id: str, ask: Callable[[Upstream], Awaitable[UpstreamAnswer]]
    ) -> tuple[Upstream, bytes]:
        """The server that knows the response, and what it says.

        Raises ResponseNotFound; UpstreamUnavailable where one that may know it cannot be asked.
        """
        if not is_own(response_id):
            raise ResponseNotFound(response_id)
        away: UpstreamUnavailable | None = None
        for server in self._models.everywhere():
            try:
                return server, await _read(await ask(server))
            except UpstreamUnavailable as exc:
                away = exc
            except UpstreamRejected as exc:
                if exc.status != 404:
                    raise
        raise away or ResponseNotFound(response_id)


def _path(response_id: str) -> str:
    return f"/responses/{response_id}"


def _edits(body: bytes) -> Edits:
    """Raises UpstreamBroken."""
    try:
        return kept_edits(PARTS.decode(body))
    except NO_SENSE as exc:
        raise UpstreamBroken(f"the model server's answer is no response: {exc}") from exc


async def _read(answer: UpstreamAnswer) -> bytes:
    try:
        return await answer.read()
    finally:
        await answer.close()
