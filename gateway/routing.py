"""Several vLLM servers: which of them a request goes to, and what happens when one fails.

Requests of one conversation go to the same server while it is healthy, since that has read their
beginning before. Before the first byte of an answer nothing is lost by asking another.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    wait_random_exponential,
)

from gateway.breaker import Breakers
from gateway.deadline import had_its_time, left_s
from gateway.errors import (
    UpstreamBroken,
    UpstreamFailure,
    UpstreamRejected,
    UpstreamUnavailable,
)
from gateway.retry_budget import RetryBudget
from gateway.upstream import Count, Upstream
from gateway.upstream_answer import UpstreamAnswer

PATIENCE_S = 10.0
"""Longest wait for the first byte before a client gets the headers of its answer."""

T = TypeVar("T")


class Care(msgspec.Struct, frozen=True):
    """What is known of servers that answer the same requests, and what is done when they fail."""

    attempts: int = 1
    breakers: Breakers = msgspec.field(default_factory=Breakers)
    budget: RetryBudget = msgspec.field(default_factory=lambda: RetryBudget("model"))
    on_failure: Callable[[Upstream], None] = lambda _: None
    """Told of each server that does not answer."""


class Route(msgspec.Struct, frozen=True):
    """The servers that may answer a request, the one to ask first first."""

    servers: Sequence[Upstream]
    care: Care = msgspec.field(default_factory=Care)

    async def post(
        self, path: str, content: bytes, *, is_stream: bool = False, may_repeat: bool = True
    ) -> UpstreamAnswer:
        """The answer to `content`, JSON, whose first piece is there; the caller closes it.

        `may_repeat` says whether it does no harm when two servers answer the same request. It is
        sent again where no server has taken it, and to another one where a server that may have
        taken it fails before the first piece. Raises UpstreamFailure.
        """

        async def begun(server: Upstream) -> UpstreamAnswer:
            breaker = self.care.breakers.of(server)
            breaker.asked()
            try:
                answer = await self._begun(server, path, content, is_stream=is_stream)
            except UpstreamFailure as exc:
                breaker.failed(exc)
                raise
            except asyncio.CancelledError:
                if had_its_time():
                    breaker.failed()
                else:
                    breaker.given_up()
                raise
            breaker.answers()
            answer.witness = breaker
            return answer

        return await self._first_that_answers(begun, may_repeat=may_repeat)

    async def tokenize(self, content: bytes) -> Count:
        """How long a chat is, as vLLM counts; asked as an answer is. Raises UpstreamFailure."""

        # An answer needs no count, so a server that cannot count is not in trouble.
        async def counted(server: Upstream) -> Count:
            return await server.tokenize(content)

        return await self._first_that_answers(counted)

    async def _begun(
        self, server: Upstream, path: str, content: bytes, *, is_stream: bool
    ) -> UpstreamAnswer:
        answer = await server.post(path, content)
        try:
            if is_stream:
                await answer.check_is_stream()
            await answer.begin(PATIENCE_S)
        except BaseException:
            await answer.close()
            raise
        return answer

    async def _first_that_answers(
        self, ask: Callable[[Upstream], Awaitable[T]], *, may_repeat: bool = True
    ) -> T:
        asked = 0
        self.care.budget.deposit()

        async def attempted() -> T:
            nonlocal asked
            server, asked = self._next(asked)
            try:
                return await ask(server)
            except UpstreamUnavailable:
                self.care.on_failure(server)
                raise

        def again(failure: BaseException) -> bool:
            return self._may_be_tried_again(failure, asked, may_repeat=may_repeat)

        try:
            return await attempted()
        except UpstreamFailure as exc:
            if not again(exc):
                raise
            first: UpstreamFailure | None = exc
        # Few requests come here: making it costs as much as sending the request.
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(again),
            stop=self._is_enough,
            wait=wait_random_exponential(multiplier=0.1, max=2),
            reraise=True,
        ):
            with attempt:
                if first is not None:
                    failure, first = first, None
                    raise failure
                return await attempted()
        raise AssertionError("unreachable: tenacity returns or raises")

    def _next(self, asked: int) -> tuple[Upstream, int]:
        """The next server that may be asked, and how far down the list that is.

        Raises UpstreamUnavailable where there is none.
        """
        for place in range(asked, asked + len(self.servers)):
            server = self.servers[place % len(self.servers)]
            if self.care.breakers.of(server).may_be_asked:
                return server, place + 1
        raise self.care.breakers.refusal(self.servers)

    def _is_enough(self, state: RetryCallState) -> bool:
        """Whether a request that may be tried again is not."""
        if state.attempt_number >= max(self.care.attempts, len(self.servers)):
            return True
        if state.upcoming_sleep >= left_s():
            return True
        failure = state.outcome.exception() if state.outcome else None
        return not (_is_elsewhere(failure) or self.care.budget.withdraw())

    def _may_be_tried_again(self, failure: BaseException, asked: int, *, may_repeat: bool) -> bool:
        if not any(self.care.breakers.of(server).may_be_asked for server in self.servers):
            return False
        has_another = asked < len(self.servers)
        if _is_elsewhere(failure):
            return has_another
        if isinstance(failure, UpstreamUnavailable) and not failure.may_run:
            return True
        if not may_repeat:
            return False
        if isinstance(failure, UpstreamUnavailable):
            return has_another or failure.was_unheard
        failed = isinstance(failure, UpstreamBroken) and not failure.was_silent
        crashed = isinstance(failure, UpstreamRejected) and failure.status >= 500
        return has_another and (failed or crashed)


def _is_elsewhere(failure: BaseException | None) -> bool:
    """Whether another server may have what this one has not: an earlier response, a model."""
    return isinstance(failure, UpstreamRejected) and failure.status == 404


def by_affinity(servers: Sequence[Upstream], opening: bytes) -> list[Upstream]:
    """`servers` in the order in which a conversation that begins with `opening` asks them.

    By rendezvous hashing (Thaler and Ravishankar, 1998): where a server goes or comes, no
    conversation moves but those that it had or gets.
    """

    def weight(server: Upstream) -> bytes:
        return hashlib.blake2b(opening, key=server.name.encode()[:64], digest_size=8).digest()

    return sorted(servers, key=weight)
