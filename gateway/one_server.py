"""A server that is the only one of its kind, for embeddings or ranking: whole answers, in time."""

import asyncio

from gateway.errors import UpstreamUnavailable
from gateway.routing import Care, Route
from gateway.upstream import Upstream


class OneServer:
    """Asks it, once more where it cannot be reached, or not at all for a while."""

    def __init__(self, server: Upstream, care: Care) -> None:
        self._server = server
        self._route = Route([server], care)
        self.breaker = care.breakers.of(server)

    async def answer(self, path: str, content: bytes, limit_s: float | None = None) -> bytes:
        """The whole answer to `content`, JSON. One that takes longer than `limit_s` is a failure.

        Raises UpstreamFailure.
        """
        try:
            async with asyncio.timeout(limit_s):
                answer = await self._route.post(path, content)
                try:
                    return await answer.read()
                finally:
                    await answer.close()
        except TimeoutError as exc:
            self.breaker.failed()
            raise UpstreamUnavailable(
                f"it did not answer within {limit_s:g} s", is_connected=True, may_run=True
            ) from exc

    async def close(self) -> None:
        """Close every connection."""
        await self._server.close()
