"""Finds the chunks that belong to a question. Knows the index contract, not chat or HTTP."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Sequence
from functools import partial

import msgspec
from cachetools import LRUCache

from gateway.access.callers import tenant_or_nobody
from gateway.access.tenant_index import TenantIndex
from gateway.deadline import within
from gateway.degraded import UNRANKED, Part, degraded
from gateway.encoding import Encoding, Vector
from gateway.retrieval.options import Wanted
from gateway.retrieval.published import Published
from gateway.retrieval.reranking import Reranker
from gateway.retrieval.selection import Candidate, choose, widen
from gateway.stages import Stages
from indexer.index.collection import Generation
from indexer.index.errors import (
    EncoderUnavailable,
    IndexFailure,
    IndexRefused,
    IndexUnavailable,
)
from indexer.index.filters import one_of
from indexer.index.passages import passage
from indexer.index.records import Hit, SearchMode
from indexer.index.searching import Query

VECTORS_KEPT = 1024
"""Questions whose vectors are remembered: a question asked again is not embedded again."""
SHARE = 0.5
"""Of the time that is left for a request, the most that each step takes where it can do without."""


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
    away: tuple[Part, ...] = ()
    """Parts that were to take part and could not."""


class Retriever:
    """Searches the published generations for questions, and chooses."""

    def __init__(
        self,
        index: TenantIndex,
        encoding: Encoding,
        published: Published,
        reranker: Reranker | None = None,
        rerank_timeout_s: float | None = None,
    ) -> None:
        self._index = index
        self._encoding = encoding
        self._vectors: LRUCache[tuple[int, str, str], Vector] = LRUCache(VECTORS_KEPT)
        self.published = published
        self._reranker = reranker
        self._rerank_timeout_s = rerank_timeout_s

    @property
    def can_rerank(self) -> bool:
        """Whether there is a model for that."""
        return self._reranker is not None

    def versions(self, stores: Sequence[str] | None) -> str:
        """Which states of these knowledge bases were last seen; None means the configured one."""
        return " ".join(map(self.published.version, self._named(stores)))

    async def retrieve(self, questions: Sequence[str], wanted: Wanted, stages: Stages) -> Retrieved:
        """The hits for the first of `questions`; the others are further ways to put it.

        Raises VectorStoreNotFound, IndexFailure, FilterInvalid, Overloaded, and UpstreamFailure
        where a rerank server is asked.
        """
        with stages.measure("embed"):
            async with _sparing(wanted, EncoderUnavailable("the embedding model takes too long")):
                queries = await self._embedded(questions, wanted)
        with stages.measure("search"):
            async with _sparing(wanted, IndexUnavailable("Milvus takes too long")):
                found, relevance = await self._found_everywhere(queries, wanted)
        scores: dict[str, dict[str, float]] = {}
        if wanted.explain and found:
            with stages.measure("explain"):
                scores = await self._scores_by_leg(queries[0], found, wanted)
        away: tuple[Part, ...] = ()
        if wanted.rerank and self._reranker is not None and found:
            try:
                with stages.measure("rerank"):
                    async with _sparing(wanted, EncoderUnavailable("ranking takes too long")):
                        found = await self._reranked(self._reranker, questions[0], found)
            except UNRANKED as exc:
                if wanted.when_unavailable == "fail":
                    raise
                away = degraded("reranker", exc)  # and it is as if nobody had wanted it
            else:
                relevance = found[0].score
                for hit in found:
                    scores.setdefault(hit.chunk_id, {})["rerank"] = hit.score
        if relevance is not None and relevance < wanted.relevance_threshold:
            reason = f"nothing is as relevant as {wanted.relevance_threshold}"
            dropped = [Candidate(hit, reason) for hit in found]
            return Retrieved(
                hits=[], relevance=relevance, candidates=dropped, scores=scores, away=away
            )
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
            hits=hits, relevance=relevance, candidates=chosen.candidates, scores=scores, away=away
        )

    async def _embedded(self, questions: Sequence[str], wanted: Wanted) -> list[Query]:
        self._encoding.check()
        if wanted.mode == "bm25" and not wanted.relevance_threshold and not wanted.explain:
            return [Query(question) for question in questions]
        # Of a server's model that is exchanged, the vectors are others. And whether somebody has
        # asked the same is told by how soon they are there, so each tenant has its own.
        whose = tenant_or_nobody()
        keys = [(self._encoding.swaps, whose, question) for question in questions]
        vectors = {key: self._vectors[key] for key in keys if key in self._vectors}
        missing = [key for key in dict.fromkeys(keys) if key not in vectors]
        embedded = await self._encoding.queries([question for _, _, question in missing])
        # Copies: a row would keep the matrix of all that were embedded with it.
        vectors |= {key: row.copy() for key, row in zip(missing, embedded, strict=True)}
        self._vectors.update(vectors)
        return [
            Query(question, vectors[key]) for question, key in zip(questions, keys, strict=True)
        ]

    async def _found_everywhere(
        self, queries: Sequence[Query], wanted: Wanted
    ) -> tuple[list[Hit], float | None]:
        """The candidates of all stores, best first, and the best cosine where that is asked for."""
        stores = self._named(wanted.stores)
        found = await asyncio.gather(*(self._found(store, queries, wanted) for store in stores))
        if stores == (self.published.default,):
            return found[0]
        tagged = [
            [msgspec.structs.replace(hit, knowledge_base=store) for hit in hits]
            for store, (hits, _) in zip(stores, found, strict=True)
        ]
        relevances = [relevance for _, relevance in found if relevance is not None]
        return _merged(tagged)[: _pool(wanted)], max(relevances, default=None)

    async def _found(
        self, store: str, queries: Sequence[Query], wanted: Wanted
    ) -> tuple[list[Hit], float | None]:
        """The candidates, best first, and the best cosine where a threshold asks for it."""
        pool = _pool(wanted)
        searches: list[Awaitable[list[list[Hit]]]] = [
            self._index.ask(store, partial(self._search, queries, wanted, pool))
        ]
        asked = bool(wanted.relevance_threshold) or wanted.explain
        if asked and wanted.mode != "dense":
            by_meaning = msgspec.structs.replace(wanted, mode="dense")
            nearest = partial(self._search, queries[:1], by_meaning, 1)
            searches.append(self._index.ask(store, nearest))
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
        return await self._index.search(generation, queries, wanted, limit, among)

    async def _scores_by_leg(
        self, query: Query, found: Sequence[Hit], wanted: Wanted
    ) -> dict[str, dict[str, float]]:
        """What Milvus keeps to itself when it fuses: each leg is asked for these chunks alone."""
        scores: dict[str, dict[str, float]] = {
            hit.chunk_id: {wanted.mode: hit.score} for hit in found
        }
        modes: tuple[SearchMode, ...] = ("dense", "bm25")
        for store, hits in self._by_store(found).items():
            for mode in (mode for mode in modes if mode != wanted.mode):
                asked = msgspec.structs.replace(wanted, mode=mode)
                among = one_of("chunk_id", [hit.chunk_id for hit in hits])
                leg = partial(self._search, [query], asked, len(hits), among=among)
                with contextlib.suppress(IndexRefused):  # another program's has one leg
                    for hit in (await self._index.ask(store, leg))[0]:
                        scores[hit.chunk_id][mode] = hit.score
        return scores

    async def _reranked(self, reranker: Reranker, question: str, found: Sequence[Hit]) -> list[Hit]:
        passages = [passage(hit.title, hit.heading_path, hit.text) for hit in found]
        scores = await reranker.scores(question, passages, self._rerank_timeout_s)
        reranked = [
            msgspec.structs.replace(hit, score=score)
            for hit, score in zip(found, scores, strict=True)
        ]
        return sorted(reranked, key=lambda hit: -hit.score)

    async def _around(self, hits: Sequence[Hit], wanted: Wanted) -> list[Hit]:
        """The chunks around `hits`."""
        around: list[Hit] = []
        for store, found in self._by_store(hits).items():

            async def neighbours(generation: Generation, here: list[Hit] = found) -> list[Hit]:
                return await self._index.neighbours(generation, here, wanted.neighbours)

            around += await self._index.ask(store, neighbours)
        return around

    def _named(self, stores: Sequence[str] | None) -> tuple[str, ...]:
        return (self.published.default,) if stores is None else tuple(stores)

    def _by_store(self, hits: Sequence[Hit]) -> dict[str, list[Hit]]:
        stores: dict[str, list[Hit]] = {}
        for hit in hits:
            stores.setdefault(hit.knowledge_base or self.published.default, []).append(hit)
        return stores


@contextlib.asynccontextmanager
async def _sparing(wanted: Wanted, failure: IndexFailure) -> AsyncIterator[None]:
    """A step that leaves time for an answer without it, where there may be one.

    Raises `failure` where that is over: no failure of who was asked, as the client gave it.
    """
    limit_s = within(math.inf, SHARE) if wanted.when_unavailable == "degrade" else math.inf
    try:
        async with asyncio.timeout(None if limit_s == math.inf else limit_s):
            yield
    except TimeoutError as exc:
        raise failure from exc


def _pool(wanted: Wanted) -> int:
    """How many candidates there are to choose from."""
    return max(wanted.limit, wanted.candidates)


def _merged(found: Sequence[Sequence[Hit]]) -> list[Hit]:
    """What several questions found, best first, each chunk once with its best score."""
    best: dict[str, Hit] = {}
    for hit in (hit for hits in found for hit in hits):
        if hit.chunk_id not in best or best[hit.chunk_id].score < hit.score:
            best[hit.chunk_id] = hit
    return list(found[0]) if len(found) == 1 else sorted(best.values(), key=lambda hit: -hit.score)
