"""Finds the chunks that belong to a question. Knows the index contract, not chat or HTTP."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.batching import Batcher
from indexer.index.collection import Generation, IndexReader
from indexer.index.embedding import TextEncoder
from indexer.index.errors import EncoderUnavailable, FingerprintMismatch, IndexFailure
from indexer.index.records import EncoderIdentity, Hit

QUERIES_AT_ONCE = 32
"""Most questions that are embedded in one call."""

_log = logging.getLogger(__name__)


class Retrieved(msgspec.Struct, frozen=True):
    """What a search for one question gave."""

    hits: list[Hit]
    """Best first."""
    embed_s: float
    search_s: float


class Retriever:
    """Embeds questions off the event loop and searches the published generation."""

    def __init__(
        self,
        reader: IndexReader,
        load_encoder: Callable[[], TextEncoder],
        tenant: str,
        poll_interval_s: float,
    ) -> None:
        self._reader = reader
        self._load_encoder = load_encoder
        self._tenant = tenant
        self._poll_interval_s = poll_interval_s
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encoder")
        self._encoder: TextEncoder | None = None
        self._queries: Batcher[str, NDArray[np.float32]] | None = None
        self._encoder_trouble = EncoderUnavailable("the embedding model is still loading")
        self._generation: Generation | None = None

    async def start(self) -> None:
        """Load the encoder; until then `retrieve` raises EncoderUnavailable."""
        loop = asyncio.get_running_loop()
        try:
            encoder = await loop.run_in_executor(self._thread, self._load_encoder)
        except EncoderUnavailable as exc:
            _log.error("%s", exc)
            self._encoder_trouble = exc
            return
        self._encoder = encoder
        self._queries = Batcher(
            lambda texts: list(encoder.encode_queries(texts)), self._thread, QUERIES_AT_ONCE
        )
        _log.info("embedding model %s is loaded", encoder.identity.model)

    async def watch(self) -> None:
        """Notice a newly published generation, for as long as the task lives."""
        while True:
            with contextlib.suppress(IndexFailure):
                await self.refresh()
            await asyncio.sleep(self._poll_interval_s)

    def check_encoder(self) -> TextEncoder:
        """The encoder. Raises EncoderUnavailable."""
        if self._encoder is None:
            raise self._encoder_trouble
        return self._encoder

    async def refresh(self) -> Generation:
        """Resolve the knowledge base now and compare its fingerprint with the encoder.

        Raises IndexFailure: nothing is published, Milvus is away, the encoder is not loaded or
        is another one than the collection was made with.
        """
        try:
            generation = await self._reader.published()
            _check_fingerprint(generation, self.check_encoder().identity)
        except IndexFailure:
            self._remember(None)
            raise
        self._remember(generation)
        return generation

    async def retrieve(self, question: str, limit: int) -> Retrieved:
        """The `limit` chunks nearest to `question`. Raises IndexFailure."""
        if self._queries is None:
            raise self._encoder_trouble
        started = time.perf_counter()
        vector = await self._queries.submit(question)
        embedded = time.perf_counter()
        hits = await self._search(vector[np.newaxis, :], limit)
        return Retrieved(hits, embedded - started, time.perf_counter() - embedded)

    async def close(self) -> None:
        """Let go of the thread and of Milvus."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        await self._reader.close()

    async def _search(self, vectors: NDArray[np.float32], limit: int) -> list[Hit]:
        generation = self._generation or await self.refresh()
        try:
            found = await self._reader.search(generation, vectors, tenant=self._tenant, limit=limit)
        except IndexFailure:
            # The generation was replaced and dropped, or Milvus came back with it unloaded.
            generation = await self.refresh()
            found = await self._reader.search(generation, vectors, tenant=self._tenant, limit=limit)
        return found[0]

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
