"""Which generations are searched now, and whether their vectors are those of our encoder."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import msgspec

from gateway.encoding import Encoding
from indexer.index.collection import Generation, IndexReader
from indexer.index.errors import FingerprintMismatch, IndexFailure

T = TypeVar("T")
REMEMBERED_S = 60.0
"""How long a knowledge base is looked up after it was asked."""

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
    ) -> None:
        """`default` is looked up all the time, others for a while after they were asked."""
        self.default = default
        """The knowledge base that is meant where none is named."""
        self._reader = reader
        self._encoding = encoding
        self._poll_interval_s = poll_interval_s
        self._seen: dict[str, _Seen] = {}

    async def watch(self) -> None:
        """Notice newly published generations, for as long as the task lives."""
        while True:
            for name in self._watched():
                with contextlib.suppress(IndexFailure):
                    await self.refresh(name)
            await asyncio.sleep(self._poll_interval_s)

    async def refresh(self, name: str) -> Generation:
        """Resolve the knowledge base now and compare its fingerprint with the encoder.

        Raises IndexFailure: nothing is published, Milvus is away, the encoder is not loaded or
        is another one than the collection was made with.
        """
        try:
            generation = await self._reader.published(name)
            await self._check_encoder(generation)
        except IndexFailure:
            self._remember(name, None)
            raise
        self._remember(name, generation)
        return generation

    async def generation(self, name: str) -> Generation:
        """The generation as last seen. Raises IndexFailure."""
        if (seen := self._seen.get(name)) is None:
            return await self.refresh(name)
        seen.asked_at = time.monotonic()
        return seen.generation

    async def ask(self, name: str, question: Callable[[Generation], Awaitable[T]]) -> T:
        """The answer of the published generation. Raises IndexFailure."""
        generation = await self.generation(name)
        try:
            return await question(generation)
        except IndexFailure:
            # The generation was replaced and dropped, or Milvus came back with it unloaded.
            return await question(await self.refresh(name))

    def version(self, name: str) -> str:
        """Which state of it was last seen: another one after each run that changes something."""
        if (seen := self._seen.get(name)) is None:
            return name
        last = seen.generation.last_run
        return f"{seen.generation.collection}@{last.run if last else 0}"

    def forget(self, name: str) -> None:
        """Look up the knowledge base the next time it is asked: it is known to have changed."""
        self._seen.pop(name, None)

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
