"""Finds the chunks that belong to a question. Knows the index contract, not chat or HTTP."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.batching import Batcher
from gateway.retrieval.options import Wanted
from gateway.retrieval.published import Published
from gateway.retrieval.reranking import Reranker
from gateway.retrieval.selection import Candidate, choose, widen
from gateway.stages import Stages
from indexer.index.collection import Generation, IndexReader
from indexer.index.embedding import TextEncoder
from indexer.index.errors import EncoderUnavailable, IndexRefused
from indexer.index.filters import one_of
from indexer.index.passages import passage
from indexer.index.records import Hit, SearchMode
from indexer.index.searching import Query, Search

QUERIES_AT_ONCE = 32
"""Most questions that are embedded in one call."""

_log = logging.getLogger(__name__)


class Retrieved(msgspec.Struct, frozen=True, kw_only=True):
    """What a search for one question gave."""

    hits: list[Hit]
    """Best first."""
    relevance: float | None = None
    """Best cosine or reranked score, in 0..1; None where no threshold asks for it."""
    candidates: list[Candidate] = []
    """What was looked at, best first."""
    scores: dict[str, dict[str, float]] = {}
    """By chunk id: what each leg of the search and the reranker gave; only where it was asked."""


class Retriever:
    """Embeds questions off the event loop, searches the published generation, and chooses."""

    def __init__(
        self,
        reader: IndexReader,
        load_encoder: Callable[[], TextEncoder],
        tenant: str,
        poll_interval_s: float,
        reranker: Reranker | None = None,
    ) -> None:
        self._reader = reader
        self._load_encoder = load_encoder
        self._tenant = tenant
        self._reranker = reranker
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encoder")
        self._encoder: TextEncoder | None = None
        self._queries: Batcher[str, NDArray[np.float32]] | None = None
        self._encoder_trouble = EncoderUnavailable("the embedding model is still loading")
        self.published = Published(reader, lambda: self.check_encoder().identity, poll_interval_s)

    async def start(self) -> None:
        """Load the models; until then `retrieve` raises EncoderUnavailable."""
        loading: list[Awaitable[None]] = [self._start_encoder()]
        if self._reranker is not None:
            loading.append(self._reranker.start())
        await asyncio.gather(*loading)

    @property
    def can_rerank(self) -> bool:
        """Whether there is a model for that."""
        return self._reranker is not None

    def check_reranker(self) -> None:
        """Raises EncoderUnavailable where a model is configured and not loaded."""
        if self._reranker is not None:
            self._reranker.check()

    def check_encoder(self) -> TextEncoder:
        """The encoder. Raises EncoderUnavailable."""
        if self._encoder is None:
            raise self._encoder_trouble
        return self._encoder

    async def retrieve(self, questions: Sequence[str], wanted: Wanted, stages: Stages) -> Retrieved:
        """The hits for the first of `questions`; the others are further ways to put it.

        Raises IndexFailure, FilterInvalid, and UpstreamFailure where a rerank server is asked.
        """
        with stages.measure("embed"):
            queries = await self._embedded(questions, wanted)
        with stages.measure("search"):
            found, relevance = await self._found(queries, wanted)
        scores: dict[str, dict[str, float]] = {}
        if wanted.explain and found:
            with stages.measure("explain"):
                scores = await self._scores_by_leg(queries[0], found, wanted)
        if wanted.rerank and self._reranker is not None and found:
            with stages.measure("rerank"):
                found = await self._reranked(self._reranker, questions[0], found)
            relevance = found[0].score
            for hit in found:
                scores.setdefault(hit.chunk_id, {})["rerank"] = hit.score
        if relevance is not None and relevance < wanted.relevance_threshold:
            reason = f"nothing is as relevant as {wanted.relevance_threshold}"
            dropped = [Candidate(hit, reason) for hit in found]
            return Retrieved(hits=[], relevance=relevance, candidates=dropped, scores=scores)
        chosen = choose(
            found,
            limit=wanted.limit,
            score_threshold=wanted.score_threshold,
            document_share=wanted.document_share,
        )
        hits = chosen.hits
        if wanted.neighbours and hits:
            with stages.measure("neighbours"):
                hits = widen(hits, await self._around(hits, wanted))
        return Retrieved(
            hits=hits, relevance=relevance, candidates=chosen.candidates, scores=scores
        )

    async def close(self) -> None:
        """Let go of the threads and of Milvus."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._reranker is not None:
            await self._reranker.close()
        await self._reader.close()

    async def _start_encoder(self) -> None:
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

    async def _embedded(self, questions: Sequence[str], wanted: Wanted) -> list[Query]:
        if self._queries is None:
            raise self._encoder_trouble
        if wanted.mode == "bm25" and not wanted.relevance_threshold and not wanted.explain:
            return [Query(question) for question in questions]
        vectors = await asyncio.gather(*map(self._queries.submit, questions))
        return [
            Query(question, vector) for question, vector in zip(questions, vectors, strict=True)
        ]

    async def _found(
        self, queries: Sequence[Query], wanted: Wanted
    ) -> tuple[list[Hit], float | None]:
        """The candidates, best first, and the best cosine where a threshold asks for it."""
        pool = max(wanted.limit, wanted.candidates)
        searches: list[Awaitable[list[list[Hit]]]] = [
            self.published.ask(partial(self._search, queries, wanted, pool))
        ]
        asked = bool(wanted.relevance_threshold) or wanted.explain
        if asked and wanted.mode != "dense":
            by_meaning = msgspec.structs.replace(wanted, mode="dense")
            nearest = partial(self._search, queries[:1], by_meaning, 1)
            searches.append(self.published.ask(nearest))
        found, *nearest_found = await asyncio.gather(*searches)
        merged = _merged(found)[:pool]
        best = nearest_found[0][0] if nearest_found else found[0]
        relevance = max((hit.score for hit in best), default=0.0)
        return merged, relevance if asked else None

    async def _search(
        self,
        queries: Sequence[Query],
        wanted: Wanted,
        limit: int,
        generation: Generation,
        *,
        among: str = "",
    ) -> list[list[Hit]]:
        filters = wanted.where(generation.fingerprint.attributes)
        search = Search(
            tenant=self._tenant,
            limit=limit,
            mode=wanted.mode,
            candidates=wanted.candidates,
            text_weight=wanted.text_weight,
            where=" and ".join(filter(None, [filters, among])),
        )
        return await self._reader.search(generation, queries, search)

    async def _scores_by_leg(
        self, query: Query, found: Sequence[Hit], wanted: Wanted
    ) -> dict[str, dict[str, float]]:
        """What Milvus keeps to itself when it fuses: each leg is asked for these chunks alone."""
        scores: dict[str, dict[str, float]] = {
            hit.chunk_id: {wanted.mode: hit.score} for hit in found
        }
        modes: tuple[SearchMode, ...] = ("dense", "bm25")
        for mode in (mode for mode in modes if mode != wanted.mode):
            asked = msgspec.structs.replace(wanted, mode=mode)
            leg = partial(
                self._search, [query], asked, len(found), among=one_of("chunk_id", scores)
            )
            with contextlib.suppress(IndexRefused):  # another program's collection has one leg
                for hit in (await self.published.ask(leg))[0]:
                    scores[hit.chunk_id][mode] = hit.score
        return scores

    async def _reranked(self, reranker: Reranker, question: str, found: Sequence[Hit]) -> list[Hit]:
        passages = [passage(hit.title, hit.heading_path, hit.text) for hit in found]
        scores = await reranker.scores(question, passages)
        reranked = [
            msgspec.structs.replace(hit, score=score)
            for hit, score in zip(found, scores, strict=True)
        ]
        return sorted(reranked, key=lambda hit: -hit.score)

    async def _around(self, hits: Sequence[Hit], wanted: Wanted) -> list[Hit]:
        async def neighbours(generation: Generation) -> list[Hit]:
            return await self._reader.neighbours(generation, hits, self._tenant, wanted.neighbours)

        return await self.published.ask(neighbours)


def _merged(found: Sequence[Sequence[Hit]]) -> list[Hit]:
    """What several questions found, best first, each chunk once with its best score."""
    best: dict[str, Hit] = {}
    for hit in (hit for hits in found for hit in hits):
        if hit.chunk_id not in best or best[hit.chunk_id].score < hit.score:
            best[hit.chunk_id] = hit
    return sorted(best.values(), key=lambda hit: -hit.score) if len(found) > 1 else list(found[0])
