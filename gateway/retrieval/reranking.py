"""Scores passages against a question once more, with a model that reads both together."""

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Protocol

import msgspec

from gateway.batching import AsyncBatcher, Batcher, take_short_turns
from gateway.body import UNREADABLE
from gateway.errors import UpstreamBroken, UpstreamFailure, UpstreamUnavailable
from gateway.loading import loaded
from gateway.one_server import OneServer
from gateway.routing import Care
from gateway.upstream import Upstream
from gateway.waiting import QueueBounds
from indexer.index.errors import EncoderUnavailable, EncodingFailed

QUESTIONS_AT_ONCE = 8
"""Most questions whose passages go to the model in one call."""
PASSAGES_AT_ONCE = 50
"""Most passages of one question in one call: others get in between."""
REQUESTS_AT_ONCE = 16
"""Most requests to a rerank server that are under way."""


class PairScorer(Protocol):
    """A model on this machine."""

    def scores(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """One score in 0..1 for each pair of question and passage. Raises EncodingFailed."""


class Reranker(Protocol):
    """Scores passages."""

    async def start(self) -> None:
        """Load what it needs, tried again until it is there."""

    def check(self) -> None:
        """Raises EncoderUnavailable where it cannot be asked."""

    async def scores(
        self, question: str, passages: Sequence[str], limit_s: float | None = None, /
    ) -> list[float]:
        """One score in 0..1 for each passage; a model that takes longer than `limit_s` is away.

        Raises EncoderFailure, UpstreamFailure, Overloaded.
        """

    async def close(self) -> None:
        """Let go of threads and connections."""


class LocalReranker:
    """A cross-encoder in a thread of its own; what waits at the same time goes in one call."""

    def __init__(
        self,
        load: Callable[[], PairScorer],
        bounds: QueueBounds = QueueBounds(),  # noqa: B008 - immutable
    ) -> None:
        """`load` takes seconds, and raises EncoderUnavailable; `bounds` are those of the queue."""
        self._load = load
        self._bounds = bounds
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reranker")
        self._batches: Batcher[tuple[str, Sequence[str]], list[float]] | None = None
        self._trouble = EncoderUnavailable("the reranking model is still loading")

    async def start(self) -> None:
        """Load the model; until then `scores` raises EncoderUnavailable."""
        model = await loaded(self._load, self._thread, self._lacks)
        take_short_turns()
        self._batches = Batcher(
            "rerankings",
            partial(_scored, model),
            self._thread,
            QUESTIONS_AT_ONCE,
            bounds=self._bounds,
        )

    async def scores(
        self, question: str, passages: Sequence[str], limit_s: float | None = None
    ) -> list[float]:
        """One score in 0..1 for each passage.

        Raises EncoderUnavailable, EncodingFailed, Overloaded.
        """
        if self._batches is None:
            raise self._trouble
        scores: list[float] = []
        try:
            async with asyncio.timeout(limit_s):
                for start in range(0, len(passages), PASSAGES_AT_ONCE):
                    slice_ = passages[start : start + PASSAGES_AT_ONCE]
                    scores += await self._batches.submit((question, slice_))
        except TimeoutError as exc:
            raise EncoderUnavailable(
                f"the reranking model did not answer within {limit_s:g} s"
            ) from exc
        return scores

    def check(self) -> None:
        """Raises EncoderUnavailable while the model is not there."""
        if self._batches is None:
            raise self._trouble

    async def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _lacks(self, trouble: EncoderUnavailable) -> None:
        self._trouble = trouble


def _scored(model: PairScorer, asked: list[tuple[str, Sequence[str]]]) -> list[list[float]]:
    """The scores of several questions, by one call of the model. Raises EncodingFailed."""
    pairs = [(question, passage) for question, passages in asked for passage in passages]
    scores = model.scores(pairs)
    if len(scores) != len(pairs):
        raise EncodingFailed(
            f"the reranking model gave {len(scores)} scores for {len(pairs)} passages"
        )
    each = iter(scores)
    return [list(islice(each, len(passages))) for _, passages in asked]


class _Asked(msgspec.Struct, frozen=True, eq=False):
    body: bytes
    limit_s: float | None


class _Ranked(msgspec.Struct):
    index: int
    relevance_score: float


class _Ranking(msgspec.Struct):
    results: list[_Ranked]


class RemoteReranker:
    """A rerank endpoint as vLLM, Jina and Cohere serve it."""

    def __init__(
        self,
        server: Upstream,
        model: str,
        care: Care,
        bounds: QueueBounds = QueueBounds(),  # noqa: B008 - immutable
    ) -> None:
        self._server = OneServer(server, care)
        self._model = model
        self._requests = AsyncBatcher[_Asked, bytes](
            "rerankings", self._answers, 1, REQUESTS_AT_ONCE, bounds=bounds
        )

    async def start(self) -> None:
        """There is nothing to load here."""

    def check(self) -> None:
        """There is nothing to wait for: the server tells when it is asked."""

    async def scores(
        self, question: str, passages: Sequence[str], limit_s: float | None = None
    ) -> list[float]:
        """One score in 0..1 for each passage. Raises UpstreamFailure, Overloaded."""
        body = {"model": self._model, "query": question, "documents": list(passages)}
        raw = await self._requests.submit(_Asked(msgspec.json.encode(body), limit_s))
        try:
            ranked = msgspec.json.decode(raw, type=_Ranking).results
        except UNREADABLE as exc:
            raise UpstreamBroken(f"the rerank server's answer makes no sense: {exc}") from exc
        ranked.sort(key=lambda each: each.index)
        if [each.index for each in ranked] != list(range(len(passages))):
            raise UpstreamBroken(
                f"the rerank server did not score each of {len(passages)} passages once"
            )
        return _shares([each.relevance_score for each in ranked])

    async def _answers(self, asked: list[_Asked]) -> list[bytes]:
        return [await self._answer(each) for each in asked]

    async def _answer(self, asked: _Asked) -> bytes:
        try:
            return await self._server.answer("/rerank", asked.body, asked.limit_s)
        except UpstreamUnavailable as exc:
            raise UpstreamUnavailable(f"the rerank server: {exc}") from exc
        except UpstreamFailure as exc:
            # What it refuses is no fault of the client's: the request is ours.
            raise UpstreamBroken(f"the rerank server: {exc}") from exc

    async def close(self) -> None:
        """Close every connection."""
        await self._server.close()


def _shares(scores: list[float]) -> list[float]:
    """`scores` in 0..1 and in the same order: some servers give what comes before a sigmoid."""
    if all(0 <= score <= 1 for score in scores):
        return scores
    return [(1 + math.tanh(score / 2)) / 2 for score in scores]
