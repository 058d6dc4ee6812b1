"""Which generations are searched now, and whether their vectors are those of our encoder.

Nobody waits for a Milvus that hangs but the first few: then requests fail at once, and the watch
alone asks, until it is answered.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextvars import Context
from functools import partial
from typing import TypeVar

import msgspec

from gateway.breaker import Breaker
from gateway.encoding import Encoding
from gateway.watching import Surviving
from indexer.index.collection import Generation, IndexReader
from indexer.index.errors import (
    EncoderFailure,
    FingerprintMismatch,
    IndexFailure,
    IndexUnavailable,
)

T = TypeVar("T")
REMEMBERED_S = 60.0
"""How long a knowledge base is looked up after it was asked."""
MOST_FAILURES = 3
"""So many requests in a row that Milvus did not answer, and no other asks it."""
FRESH_S = 1.0
"""How long an answer proves that Milvus is there."""

_log = logging.getLogger(__name__)


class _Seen(msgspec.Struct):
    generation: Generation
    asked_at: float
    """On the monotonic clock, in seconds."""


class Published:
    """The generations that readers use, by knowledge base, looked up again and again."""

    def __init__(
        self,
        reader: IndexReader,
        encoding: Encoding,
        poll_interval_s: float,
        default: str,
        timeout_s: float = 10.0,
    ) -> None:
        """`default` is looked up all the time, others for a while after they were asked.

        A request waits for `timeout_s` in all, whatever it asks and however often.
        """
        self.default = default
        """The knowledge base that is meant where none is named."""
        self._reader = reader
        self._encoding = encoding
        self._poll_interval_s = poll_interval_s
        self._timeout_s = timeout_s
        self._seen: dict[str, _Seen] = {}
        self._looking: dict[str, asyncio.Task[Generation]] = {}
        self._breaker = Breaker("Milvus", MOST_FAILURES, poll_interval_s)
        self._answered_at = -FRESH_S
        """When a request was answered last."""
        self._heard_at = -math.inf
        """When Milvus said anything."""

    async def watch(self) -> None:
        """Notice newly published generations, for as long as the task lives."""
        while True:
            for name in self._watched():
                with Surviving(f"the look at {name}"), contextlib.suppress(IndexUnavailable):
                    await self._probe(name)
            await asyncio.sleep(self._poll_interval_s)

    async def refresh(self, name: str) -> Generation:
        """Resolve the knowledge base now and compare its fingerprint with the encoder.

        However many want that at the same time, it is done once. Raises IndexFailure: nothing is
        published, Milvus is away, the encoder is not loaded or is another one than the collection
        was made with.
        """
        looking = self._looking.get(name)
        if looking is None or looking.done():
            # In a context of its own: it is done for all who want it.
            looking = asyncio.create_task(self._look(name), context=Context())
            looking.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._looking[name] = looking
        return await asyncio.shield(looking)

    async def check(self) -> None:
        """Raises IndexFailure where the default one cannot be asked, or is not published."""
        self._refuse_if_away()
        if self.default not in self._seen or time.monotonic() - self._answered_at > FRESH_S:
            await self.refresh(self.default)

    async def generation(self, name: str) -> Generation:
        """The generation as last seen. Raises IndexFailure."""
        if (seen := self._seen.get(name)) is None:
            return await self.refresh(name)
        seen.asked_at = time.monotonic()
        return seen.generation

    async def ask(self, name: str, question: Callable[[Generation], Awaitable[T]]) -> T:
        """The answer of the published generation. Raises IndexFailure, and what `question` does."""
        self._refuse_if_away()
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._asked(name, question)
        except TimeoutError as exc:
            raise self._timed_out(began) from exc
        except IndexUnavailable as exc:
            self._failed(exc)
            raise
        self._breaker.succeeded()
        self._answered_at = self._heard_at = time.monotonic()
        return answer

    def version(self, name: str) -> str:
        """Which state of it was last seen: another one after each run that changes something."""
        if (seen := self._seen.get(name)) is None:
            return name
        last = seen.generation.last_run
        return f"{seen.generation.collection}@{last.run if last else 0}"

    def forget(self, name: str) -> None:
        """Look up the knowledge base the next time it is asked: it is known to have changed."""
        self._seen.pop(name, None)

    async def _asked(self, name: str, question: Callable[[Generation], Awaitable[T]]) -> T:
        generation = await self.generation(name)
        try:
            return await question(generation)
        except EncoderFailure:
            raise
        except IndexFailure:
            # The generation was replaced and dropped, or Milvus came back with it unloaded.
            return await question(await self.refresh(name))

    def _timed_out(self, began: float) -> IndexUnavailable:
        if self._heard_at >= began:
            # It answers meanwhile: the time went by in a queue, or at the encoder.
            return IndexUnavailable(f"nothing was found within {self._timeout_s:g} s")
        self._failed()
        return IndexUnavailable(f"Milvus did not answer within {self._timeout_s:g} s")

    def _failed(self, failure: IndexUnavailable | None = None) -> None:
        # In nobody's name: where Milvus is away, it is so for all tenants.
        Context().run(self._breaker.failed, failure)

    def _refuse_if_away(self) -> None:
        if trouble := self._breaker.trouble:
            raise IndexUnavailable(trouble)

    async def _probe(self, name: str) -> None:
        """Look, and say whether Milvus may be asked. Raises IndexUnavailable."""
        try:
            await self.refresh(name)
        except IndexUnavailable as exc:
            self._failed(exc)
            raise
        except IndexFailure:
            pass  # it answers, whatever else may be wrong
        self._breaker.asked()
        self._breaker.succeeded()

    async def _look(self, name: str) -> Generation:
        try:
            generation = await self._reader.published(name)
            self._heard_at = time.monotonic()
            await self._check_encoder(generation)
        except IndexFailure:
            self._remember(name, None)
            raise
        self._remember(name, generation)
        return generation

    async def _check_encoder(self, generation: Generation) -> None:
        stored = generation.fingerprint.encoder
        differences = await self._encoding.differences(
            generation.collection, stored, partial(self._reader.passages, generation)
        )
        if differences:
            raise FingerprintMismatch(
                f"collection {generation.collection!r} was built with {stored.model!r}, this "
                f"gateway embeds with {self._encoding.identity.model!r}: {'; '.join(differences)}"
            )

    def _watched(self) -> list[str]:
        forgotten = time.monotonic() - REMEMBERED_S
        for name, seen in list(self._seen.items()):
            if name != self.default and seen.asked_at < forgotten:
                del self._seen[name]
        return list(dict.fromkeys([self.default, *self._seen]))

    def _remember(self, name: str, generation: Generation | None) -> None:
        seen = self._seen.pop(name, None)
        if generation != (seen.generation if seen else None):
            _log.info("searching in: %s", generation.collection if generation else "nothing")
        if generation is not None:
            self._seen[name] = _Seen(generation, seen.asked_at if seen else time.monotonic())
