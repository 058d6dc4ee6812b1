"""Several vLLM servers: which of them a request goes to, and what happens when one fails.

Requests of one conversation go to the same server while it is healthy, since that has read their
beginning before. Before the first byte of an answer nothing is lost by asking another.
"""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec
from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from gateway.errors import (
    UpstreamBroken,
    UpstreamFailure,
    UpstreamRejected,
    UpstreamUnavailable,
)
from gateway.upstream import Count, Upstream, UpstreamAnswer

PATIENCE_S = 10.0
"""Longest wait for the first byte before a client gets the headers of its answer."""

T = TypeVar("T")


class Route(msgspec.Struct, frozen=True):
    """The servers that may answer a request, the one to ask first first."""

    servers: Sequence[Upstream]
    attempts: int = 1
    on_failure: Callable[[Upstream], None] = lambda _: None
    """Told of each server that does not answer."""

    async def post(self, path: str, content: bytes) -> UpstreamAnswer:
        """The answer to `content`, JSON, whose first piece is there; the caller closes it.

        It is sent again while a server cannot be reached, and to another one where a server fails
        before the first piece. Raises UpstreamFailure.
        """

        async def begun(server: Upstream) -> UpstreamAnswer:
            answer = await server.post(path, content)
            try:
                await answer.begin(PATIENCE_S)
            except BaseException:
                await answer.close()
                raise
            return answer

        return await self._first_that_answers(begun)

    async def tokenize(self, content: bytes) -> Count:
        """How long a chat is, as vLLM counts; asked as an answer is. Raises UpstreamFailure."""

        async def counted(server: Upstream) -> Count:
            return await server.tokenize(content)

        return await self._first_that_answers(counted)

    async def _first_that_answers(self, ask: Callable[[Upstream], Awaitable[T]]) -> T:
        asked = 0

        async def attempted() -> T:
            nonlocal asked
            server = self.servers[asked % len(self.servers)]
            asked += 1
            try:
                return await ask(server)
            except UpstreamUnavailable:
                self.on_failure(server)
                raise

        def again(failure: BaseException) -> bool:
            return self._may_be_tried_again(failure, asked)

        try:
            return await attempted()
        except UpstreamFailure as exc:
            first: UpstreamFailure | None = exc
        # Few requests come here: making it costs as much as sending the request.
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(again),
            stop=stop_after_attempt(max(self.attempts, len(self.servers))),
            wait=wait_random_exponential(multiplier=0.1, max=2),
            reraise=True,
        ):
            with attempt:
                if first is not None:
                    failure, first = first, None
                    raise failure
                return await attempted()
        raise AssertionError("unreachable: tenacity returns or raises")

    def _may_be_tried_again(self, failure: BaseException, asked: int) -> bool:
        if isinstance(failure, UpstreamUnavailable):
            return True
        if isinstance(failure, UpstreamRejected) and failure.status == 404:
            # Of several servers only one has kept an earlier response.
            return asked < len(self.servers)
        failed = isinstance(failure, UpstreamBroken) and not failure.was_silent
        crashed = isinstance(failure, UpstreamRejected) and failure.status >= 500
        return len(self.servers) > 1 and (failed or crashed)


def by_affinity(servers: Sequence[Upstream], opening: bytes) -> list[Upstream]:
    """`servers` in the order in which a conversation that begins with `opening` asks them.

    By rendezvous hashing (Thaler and Ravishankar, 1998): where a server goes or comes, no
    conversation moves but those that it had or gets.
    """

    def weight(server: Upstream) -> bytes:
        return hashlib.blake2b(opening, key=server.name.encode()[:64], digest_size=8).digest()

    return sorted(servers, key=weight)
