"""Which generation is searched now, and whether its vectors are those of our encoder."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from indexer.index.collection import Generation, IndexReader
from indexer.index.errors import FingerprintMismatch, IndexFailure
from indexer.index.records import EncoderIdentity

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Published:
    """The generation that readers use, looked up again and again."""

    def __init__(
        self, reader: IndexReader, identity: Callable[[], EncoderIdentity], poll_interval_s: float
    ) -> None:
        """`identity` tells our encoder, and raises EncoderUnavailable."""
        self._reader = reader
        self._identity = identity
        self._poll_interval_s = poll_interval_s
        self._generation: Generation | None = None

    async def watch(self) -> None:
        """Notice a newly published generation, for as long as the task lives."""
        while True:
            with contextlib.suppress(IndexFailure):
                await self.refresh()
            await asyncio.sleep(self._poll_interval_s)

    async def refresh(self) -> Generation:
        """Resolve the knowledge base now and compare its fingerprint with the encoder.

        Raises IndexFailure: nothing is published, Milvus is away, the encoder is not loaded or
        is another one than the collection was made with.
        """
        try:
            generation = await self._reader.published()
            _check_fingerprint(generation, self._identity())
        except IndexFailure:
            self._remember(None)
            raise
        self._remember(generation)
        return generation

    async def generation(self) -> Generation:
        """The generation as last seen. Raises IndexFailure."""
        return self._generation or await self.refresh()

    async def ask(self, question: Callable[[Generation], Awaitable[T]]) -> T:
        """The answer of the published generation. Raises IndexFailure."""
        generation = await self.generation()
        try:
            return await question(generation)
        except IndexFailure:
            # The generation was replaced and dropped, or Milvus came back with it unloaded.
            return await question(await self.refresh())

    def _remember(self, generation: Generation | None) -> None:
        if generation != self._generation:
            _log.info("searching in: %s", generation.collection if generation else "nothing")
        self._generation = generation


def _check_fingerprint(generation: Generation, ours: EncoderIdentity) -> None:
    stored = generation.fingerprint.encoder
    if differences := stored.differences(ours):
        raise FingerprintMismatch(
            f"collection {generation.collection!r} was built with {stored.model!r}, this gateway "
            f"embeds with {ours.model!r}: {'; '.join(differences)}"
        )
