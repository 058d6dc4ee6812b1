"""Finds chunks: the gateway's side."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from pymilvus import AnnSearchRequest, AsyncMilvusClient, RRFRanker, WeightedRanker

from indexer.index.collection.connecting import connection
from indexer.index.collection.documents import Documents
from indexer.index.collection.failures import answered_within
from indexer.index.collection.generation import Generation, described_generation
from indexer.index.errors import FingerprintMismatch
from indexer.index.filters import between, equals
from indexer.index.passages import passage, text_alone
from indexer.index.records import SCHEMA_VERSION, Hit, content_hash
from indexer.index.searching import Query, Search
from indexer.index.settings import IndexSettings
from indexer.index.terms import Terms

EF = 200
"""Neighbours that a search by meaning keeps in sight. AUTOINDEX alone finds 95.8 % of the 60
nearest of SciFact's 19,429 chunks on Milvus Lite, with this 99.6 % in about the same time."""
RRF_K = 60
"""Of reciprocal rank fusion: what Cormack, Clarke and Büttcher (2009) found best."""
_NOT_STORED = ("chunk_id", "chunks", "knowledge_base", "score")
_HIT_FIELDS = [field for field in Hit.__struct_fields__ if field not in _NOT_STORED]
_FIELDS = [*_HIT_FIELDS, "run"]
MOST_NEIGHBOURS = 1000
PASSAGES_TO_COMPARE = 4
_PASSAGE_FIELDS = ["title", "heading_path", "text", "chunk_hash"]


class IndexReader(Documents):
    """Finds chunks. Every call is limited by the configured timeout.

    Each method raises IndexUnavailable, KnowledgeBaseMissing or IndexRefused.
    """

    def __init__(self, settings: IndexSettings) -> None:
        client = AsyncMilvusClient(**connection(settings))
        super().__init__(client, settings.milvus_timeout_s)
        self._terms: dict[str, Terms] = {}

    async def published(self, name: str) -> Generation:
        """The generation of the knowledge base `name` that readers should use now, loaded.

        Also raises FingerprintMismatch.
        """
        async with answered_within(self._timeout_s):
            alias = await self._client.describe_alias(name, timeout=self._timeout_s)
            collection = alias["collection_name"]
            # A restarted Milvus Lite knows its collections but has not loaded them.
            await self._client.load_collection(collection, timeout=self._timeout_s)
            described = await self._client.describe_collection(collection, timeout=self._timeout_s)
        generation = described_generation(described)
        if generation.fingerprint.schema_version != SCHEMA_VERSION:
            raise FingerprintMismatch(
                f"{collection!r} was stored by another version of Groundserve: run the indexer of "
                "this version"
            )
        return generation

    async def search(
        self, generation: Generation, queries: Sequence[Query], search: Search
    ) -> list[list[Hit]]:
        """The `search.limit` best chunks for each of `queries`, best first, scores in 0..1.

        Of a document that is being replaced at this moment the hits are those of one version,
        the new one; then more are fetched, so that the old ones take nobody's place.
        """
        words = self._words(generation, queries, search)
        found: list[list[Hit]] = [[] for _ in queries]
        # A question without words has nothing to look for by words: it goes by itself.
        for has_words in {bool(each) for each in words}:
            places = [place for place, each in enumerate(words) if bool(each) == has_words]
            legs: dict[str, list[Any]] = {}
            if search.mode != "bm25":
                legs["dense"] = [queries[place].vector for place in places]
            if has_words:
                legs["sparse"] = [words[place] for place in places]
            if legs:
                hits = await self._hits(generation, legs, search)
                for place, each in zip(places, hits, strict=True):
                    found[place] = each
        return found

    async def neighbours(
        self, generation: Generation, hits: Sequence[Hit], tenant: str, distance: int
    ) -> list[Hit]:
        """The chunks that stand up to `distance` before and behind each of `hits`; score 0."""
        around = [
            "("
            + " and ".join(
                [
                    equals("document_id", hit.document_id),
                    equals("document_hash", hit.document_hash),
                    between(
                        "ordinal", hit.ordinal - distance, hit.ordinal + hit.chunks - 1 + distance
                    ),
                ]
            )
            + ")"
            for hit in hits
        ]
        if not around:
            return []
        async with answered_within(self._timeout_s):
            rows = await self._client.query(
                generation.collection,
                filter=f"{equals('tenant', tenant)} and ({' or '.join(around)})",
                output_fields=["chunk_id", *_HIT_FIELDS],
                limit=MOST_NEIGHBOURS,
                timeout=self._timeout_s,
            )
        return [msgspec.convert({**row, "score": 0.0}, Hit) for row in rows]

    async def passages(self, generation: Generation) -> list[tuple[str, NDArray[np.float32]]]:
        """Some passages as they were embedded, without the prefix, and their vectors.

        Up to PASSAGES_TO_COMPARE, of any tenant; each vector has the shape (dimension,).
        """
        async with answered_within(self._timeout_s):
            rows = await self._client.query(
                generation.collection,
                filter="",
                output_fields=[*_PASSAGE_FIELDS, "dense"],
                limit=PASSAGES_TO_COMPARE,
                timeout=self._timeout_s,
            )
        return [
            (text, np.asarray(row["dense"], dtype=np.float32))
            for row in rows
            for text in _embedded_texts(row)[:1]
        ]

    def _words(self, generation: Generation, queries: Sequence[Query], search: Search) -> list[str]:
        """What each question looks for by words; nothing where that is not asked."""
        if search.mode == "dense":
            return [""] * len(queries)
        language = generation.fingerprint.language
        terms = self._terms.setdefault(language, Terms(language))
        return [terms(query.text) for query in queries]

    async def _hits(
        self, generation: Generation, legs: dict[str, list[Any]], search: Search
    ) -> list[list[Hit]]:
        """What these legs find, by what each vector field is searched for."""
        found = await self._fused(generation, legs, search, search.limit)
        current = [_of_one_version(rows) for rows in found]
        if any(len(kept) < len(rows) for kept, rows in zip(current, found, strict=True)):
            found = await self._fused(generation, legs, search, 2 * search.limit)
            current = [_of_one_version(rows)[: search.limit] for rows in found]
        scale = _scale(list(legs), search)
        return [[_hit(row, scale) for row in rows] for rows in current]

    async def _fused(
        self, generation: Generation, legs: dict[str, list[Any]], search: Search, limit: int
    ) -> Sequence[Sequence[Any]]:
        # On every leg: Milvus Lite ignores a filter of the whole hybrid search.
        rows = " and ".join(filter(None, [equals("tenant", search.tenant), search.where]))
        candidates = max(limit, search.candidates)
        found: Sequence[Sequence[Any]]
        async with answered_within(self._timeout_s):
            if len(legs) == 1:
                [(field, data)] = legs.items()
                found = await self._client.search(
                    generation.collection,
                    data=data,
                    anns_field=field,
                    filter=rows,
                    search_params=_effort(field, limit),
                    limit=limit,
                    output_fields=_FIELDS,
                    timeout=self._timeout_s,
                )
            else:
                found = await self._client.hybrid_search(
                    generation.collection,
                    [
                        AnnSearchRequest(
                            data, field, _effort(field, candidates), candidates, expr=rows
                        )
                        for field, data in legs.items()
                    ],
                    ranker=_ranker(search),
                    limit=limit,
                    output_fields=_FIELDS,
                    timeout=self._timeout_s,
                )
        return found

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()


def _embedded_texts(row: Mapping[str, Any]) -> list[str]:
    """What was embedded for a row, by its hash: with title and headings, or the text alone."""
    made = [
        embedded(row["title"], row["heading_path"], row["text"])
        for embedded in (passage, text_alone)
    ]
    return [text for text in made if content_hash(text.encode()) == row["chunk_hash"]]


def _of_one_version(rows: Sequence[Any]) -> list[Any]:
    """Without the rows of a version of a document that a later run has replaced."""
    versions = [
        (row["entity"]["document_id"], (row["entity"]["run"], row["entity"]["document_hash"]))
        for row in rows
    ]
    newest = dict(sorted(versions))
    return [
        row
        for row, (document, version) in zip(rows, versions, strict=True)
        if version == newest[document]
    ]


def _effort(field: str, limit: int) -> dict[str, Any]:
    return {"params": {"ef": max(EF, limit)}} if field == "dense" else {}


def _ranker(search: Search) -> RRFRanker | WeightedRanker:
    if search.text_weight is None:
        return RRFRanker(RRF_K)
    return WeightedRanker(1 - search.text_weight, search.text_weight)


def _scale(legs: Sequence[str], search: Search) -> Callable[[float], float]:
    """From what Milvus calls a distance to a score in 0..1."""
    match legs:
        case ["dense"]:
            return lambda cosine: cosine
        case ["sparse"]:
            # BM25 has no upper bound; so does Milvus itself bring it into 0..1 to weigh it. It is
            # never below 0, but Milvus Lite turns its sign where nothing is fused.
            return lambda relevance: 2 / math.pi * math.atan(abs(relevance))
    best = len(legs) / (RRF_K + 1) if search.text_weight is None else 1.0
    return lambda fused: fused / best


def _hit(row: Any, scale: Callable[[float], float]) -> Hit:
    fields = {name: row["entity"][name] for name in _HIT_FIELDS}
    score = min(1.0, max(0.0, scale(row["distance"])))
    return msgspec.convert({"chunk_id": row["chunk_id"], "score": score, **fields}, Hit)
