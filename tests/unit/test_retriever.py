"""What is searched, compared and chosen for a question, with the edges faked."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest

from gateway.access.callers import Caller, acting_as
from gateway.access.tenant_index import TenantIndex
from gateway.encoding import LocalEncoding
from gateway.retrieval.options import Wanted
from gateway.retrieval.published import MOST_FAILURES, Published
from gateway.retrieval.retriever import Retrieved, Retriever
from gateway.retrieval.searches import Searches
from gateway.stages import Stages
from indexer.index.collection import Generation
from indexer.index.errors import (
    EncoderUnavailable,
    FilterInvalid,
    IndexRefused,
    IndexUnavailable,
    KnowledgeBaseMissing,
)
from indexer.index.metadata_filters import Comparison
from indexer.index.records import Fingerprint, Hit, SearchMode
from indexer.index.searching import Query, Search
from tests.searching import searching
from tests.unit.conftest import FakeReader, MakeHit
from tests.unit.index_fakes import IDENTITY, FakeEncoder

pytestmark = pytest.mark.anyio


class Reranker:
    """Gives each passage the score that its text is mapped to."""

    def __init__(self, scores: dict[str, float]) -> None:
        self.by_text = scores
        self.asked: list[tuple[str, list[str]]] = []
        self.limits: list[float | None] = []
        self.started = self.closed = 0

    async def start(self) -> None:
        self.started += 1

    def check(self) -> None:
        pass

    async def scores(
        self, question: str, passages: Sequence[str], limit_s: float | None = None
    ) -> list[float]:
        self.asked.append((question, list(passages)))
        self.limits.append(limit_s)
        return [self.by_text[passage.splitlines()[-1]] for passage in passages]

    async def close(self) -> None:
        self.closed += 1


class LegReader(FakeReader):
    """Finds other hits in each mode, and for each question."""

    def __init__(self, by_mode: dict[SearchMode, list[Hit]]) -> None:
        super().__init__([])
        self.by_mode = by_mode
        self.by_question: dict[str, list[Hit]] = {}
        self.refused: set[SearchMode] = set()

    async def search(
        self, generation: Generation, queries: Sequence[Query], search: Search
    ) -> list[list[Hit]]:
        await super().search(generation, queries, search)
        if search.mode in self.refused:
            raise IndexRefused("not by words")
        found = self.by_mode.get(search.mode, [])
        return [self.by_question.get(query.text, found)[: search.limit] for query in queries]


@pytest.fixture
async def retrieving(encoder: FakeEncoder) -> AsyncIterator[Callable[..., Any]]:
    """A started retriever over a reader."""
    async with AsyncExitStack() as stack:

        async def make(reader: FakeReader, reranker: Reranker | None = None) -> Retriever:
            return await stack.enter_async_context(
                searching(reader, lambda: encoder, reranker=reranker)
            )

        yield make


async def found(retriever: Retriever, *questions: str, **wanted: Any) -> Retrieved:
    return await retriever.retrieve(questions or ("llamas?",), Wanted(**wanted), Stages())


def ids(hits: Sequence[Hit]) -> list[str]:
    return [hit.chunk_id for hit in hits]


@pytest.mark.parametrize("mode", ["dense", "bm25", "hybrid"])
async def test_what_is_wanted_reaches_the_search(
    retrieving: Any, reader: FakeReader, mode: SearchMode
) -> None:
    retriever = await retrieving(reader)
    await found(retriever, mode=mode, candidates=7, text_weight=0.3, limit=2)

    [(_, [query], search)] = reader.searches
    assert (query.text, search.tenant, search.where) == ("llamas?", "acme", "")
    assert (search.mode, search.limit, search.candidates) == (mode, 7, 7)
    assert search.text_weight == 0.3
    assert (query.vector is None) is (mode == "bm25")


async def test_more_hits_than_candidates_are_looked_for_where_more_are_wanted(
    retrieving: Any, reader: FakeReader
) -> None:
    await found(await retrieving(reader), limit=30, candidates=5)

    assert reader.searches[0][2].limit == 30


async def test_by_words_alone_nothing_is_embedded_unless_something_asks_for_it(
    retrieving: Any, reader: FakeReader, encoder: FakeEncoder
) -> None:
    retriever = await retrieving(reader)
    await found(retriever, mode="bm25")
    assert encoder.calls == []

    await found(retriever, mode="bm25", relevance_threshold=0.1)
    assert len(encoder.calls) == 1


@pytest.mark.parametrize(
    ("mode", "threshold", "relevance", "kept"),
    [
        ("dense", 0.0, None, 1),
        ("dense", 0.6, 0.6, 1),
        ("dense", 0.7, 0.6, 0),
        ("hybrid", 0.6, 0.6, 1),
        ("hybrid", 0.7, 0.6, 0),
        ("bm25", 0.7, 0.6, 0),
    ],
)
async def test_relevance_is_the_best_cosine_whatever_the_mode(
    retrieving: Any,
    make_hit: MakeHit,
    mode: SearchMode,
    threshold: float,
    relevance: float | None,
    kept: int,
) -> None:
    near, ranked = make_hit(score=0.6), make_hit(score=1.0)
    reader = LegReader({"dense": [near], "hybrid": [ranked], "bm25": [ranked]})
    result = await found(await retrieving(reader), mode=mode, relevance_threshold=threshold)

    assert (result.relevance, len(result.hits)) == (relevance, kept)
    assert len(reader.searches) == (2 if threshold and mode != "dense" else 1)
    if not kept:
        assert [each.dropped for each in result.candidates] == ["nothing is as relevant as 0.7"]


async def test_nothing_found_is_nothing_relevant(retrieving: Any) -> None:
    result = await found(await retrieving(LegReader({})), relevance_threshold=0.1, explain=True)

    assert (result.hits, result.candidates, result.relevance) == ([], [], 0.0)


async def test_the_reranker_decides_the_order_the_scores_and_what_is_relevant(
    retrieving: Any, reader: FakeReader
) -> None:
    reranker = Reranker(
        {"Llamas eat grass.": 0.2, "GEO is high.": 0.1, "Llamas drink little.": 0.7}
    )
    retriever = await retrieving(reader, reranker)
    result = await found(retriever, rerank=True, limit=2, relevance_threshold=0.7, mode="dense")

    assert ids(result.hits) == ["c3", "c1"]
    assert [hit.score for hit in result.hits] == [0.7, 0.2]
    assert result.relevance == 0.7
    [(question, passages)] = reranker.asked
    assert question == "llamas?"
    assert passages[0] == "Llamas > Food\nLlamas eat grass."
    assert not (await found(retriever, rerank=True, relevance_threshold=0.71)).hits
    assert ids((await found(retriever, rerank=True, score_threshold=0.5)).hits) == ["c3"]
    assert (reranker.started, retriever.can_rerank) == (1, True)


async def test_without_its_being_wanted_nothing_is_reranked(
    retrieving: Any, reader: FakeReader
) -> None:
    reranker = Reranker({})
    await found(await retrieving(reader, reranker), rerank=False)
    reader.hits = []
    await found(await retrieving(reader, reranker), rerank=True)

    assert reranker.asked == []


async def test_several_questions_are_searched_in_one_call_and_each_chunk_comes_once(
    retrieving: Any, make_hit: MakeHit, encoder: FakeEncoder
) -> None:
    reader = LegReader({})
    reader.by_question = {
        "one": [make_hit(chunk_id="a", document_id="a", score=0.9, text="About grass."),
                make_hit(chunk_id="b", document_id="b", score=0.3, text="About hay.")],
        "two": [make_hit(chunk_id="b", document_id="b", score=0.8, text="About hay."),
                make_hit(chunk_id="c", document_id="c", score=0.5, text="About water.")],
    }  # fmt: skip
    result = await found(await retrieving(reader), "one", "two", limit=3)

    assert [(hit.chunk_id, hit.score) for hit in result.hits] == [
        ("a", 0.9), ("b", 0.8), ("c", 0.5),
    ]  # fmt: skip
    assert len(reader.searches) == 1
    assert sum(map(len, encoder.calls)) == 2


async def test_an_explanation_has_the_score_of_each_leg_for_each_candidate(
    retrieving: Any, make_hit: MakeHit
) -> None:
    one, other = (
        make_hit(chunk_id="a", score=1.0),
        make_hit(chunk_id="b", document_id="b", score=0.4),
    )
    reader = LegReader({
        "hybrid": [one, other],
        "dense": [msgspec.structs.replace(one, score=0.7)],
        "bm25": [msgspec.structs.replace(other, score=0.2)],
    })  # fmt: skip
    retriever = await retrieving(reader, Reranker({one.text: 0.5}))
    result = await found(retriever, explain=True, rerank=True, relevance_threshold=0.1)

    assert result.scores == {
        "a": {"hybrid": 1.0, "dense": 0.7, "rerank": 0.5},
        "b": {"hybrid": 0.4, "bm25": 0.2, "rerank": 0.5},
    }
    legs = [search for _, _, search in reader.searches if "chunk_id" in search.where]
    assert {search.mode for search in legs} == {"dense", "bm25"}
    assert all(search.where == '(chunk_id in ["a", "b"])' for search in legs)
    assert all(search.tenant == "acme" for search in legs)


async def test_a_collection_with_one_leg_is_explained_by_that(
    retrieving: Any, make_hit: MakeHit
) -> None:
    reader = LegReader({"hybrid": [make_hit()], "dense": [make_hit()]})
    reader.refused = {"bm25"}
    result = await found(await retrieving(reader), explain=True)

    assert result.scores == {"c1": {"hybrid": 0.9, "dense": 0.9}}


async def test_neighbours_are_those_of_the_tenant_and_are_put_to_their_hits(
    retrieving: Any, reader: FakeReader, make_hit: MakeHit
) -> None:
    reader.hits = [make_hit(ordinal=1, start=10, end=27)]
    reader.around = [make_hit(chunk_id="n", ordinal=2, start=28, end=37, text="And more.", score=0)]
    result = await found(await retrieving(reader), neighbours=2)

    assert reader.asked_around == [("documents__g1", ["c1"], "acme", 2)]
    [hit] = result.hits
    assert (hit.text, hit.chunks, hit.score) == ("Llamas eat grass.\nAnd more.", 2, 0.9)


YEAR = Comparison("eq", "year", 2020)


async def test_a_filter_is_on_every_search_of_a_question(
    retrieving: Any, make_hit: MakeHit
) -> None:
    reader = LegReader({"hybrid": [make_hit()]})
    declared = Fingerprint(encoder=IDENTITY, chunker="c", attributes={"year": "integer"})
    reader.generation = Generation("documents__g1", declared)
    retriever = await retrieving(reader)
    await found(retriever, filters=YEAR, explain=True, relevance_threshold=0.1)

    assert len(reader.searches) == 4
    for _, _, search in reader.searches:
        assert search.where.startswith("(attribute_0 == 2020)")


async def test_a_filter_means_the_attributes_of_the_generation_that_is_searched(
    retrieving: Any, reader: FakeReader
) -> None:
    old = Fingerprint(encoder=IDENTITY, chunker="c", attributes={"year": "integer"})
    new = Fingerprint(
        encoder=IDENTITY, chunker="c", attributes={"age": "integer", "year": "integer"}
    )
    reader.generation = Generation("documents__g1", old)
    retriever = await retrieving(reader)
    await found(retriever, filters=YEAR)
    # A run publishes what has one attribute more, and drops what the retriever knows.
    reader.generation = Generation("documents__g2", new)
    reader.search_failures = [KnowledgeBaseMissing("dropped")]
    await found(retriever, filters=YEAR)

    assert [(name, search.where) for name, _, search in reader.searches] == [
        ("documents__g1", "(attribute_0 == 2020)"),
        ("documents__g1", "(attribute_0 == 2020)"),
        ("documents__g2", "(attribute_1 == 2020)"),
    ]


async def test_a_filter_on_what_is_not_declared_is_refused_before_a_search(
    retrieving: Any, reader: FakeReader
) -> None:
    with pytest.raises(FilterInvalid) as invalid:
        await found(await retrieving(reader), filters=YEAR)

    assert invalid.value.param == "retrieval.filters.key"
    assert reader.searches == []


@pytest.mark.usefixtures("acting")
async def test_before_the_encoder_is_loaded_that_is_what_is_said(reader: FakeReader) -> None:
    encoding = LocalEncoding(FakeEncoder)
    published = Published(reader, encoding, 60, "documents")
    index = TenantIndex(reader, Searches(reader), published, ["documents"])
    with pytest.raises(EncoderUnavailable, match="still loading"):
        await found(Retriever(index, encoding, published))
    await encoding.close()


async def test_a_search_that_fails_twice_fails(retrieving: Any, reader: FakeReader) -> None:
    retriever = await retrieving(reader)
    reader.search_failures = [IndexUnavailable("away"), IndexUnavailable("still away")]
    with pytest.raises(IndexUnavailable, match="still away"):
        await found(retriever)


async def test_each_step_is_measured_where_it_is_made(retrieving: Any, reader: FakeReader) -> None:
    retriever = await retrieving(reader, Reranker({hit.text: 0.5 for hit in reader.hits}))
    plain, full = Stages(), Stages()
    await retriever.retrieve(["llamas?"], Wanted(), plain)
    await retriever.retrieve(["llamas?"], Wanted(rerank=True, neighbours=1, explain=True), full)

    assert list(plain.seconds) == ["embed", "search"]
    assert list(full.seconds) == ["embed", "search", "explain", "rerank", "neighbours"]


async def test_no_tenant_can_tell_by_the_time_that_another_has_asked_the_same(
    retrieving: Any, reader: FakeReader, encoder: FakeEncoder
) -> None:
    retriever = await retrieving(reader)
    for tenant in ("alice", "bob", "bob"):
        with acting_as(Caller(name=tenant, tenant=tenant)):
            await Retriever.retrieve(retriever, ["llamas?"], Wanted(), Stages())

    assert encoder.calls == [["query: llamas?"]] * 2


async def test_a_question_that_is_asked_again_is_not_embedded_again(
    retrieving: Any, reader: FakeReader, encoder: FakeEncoder
) -> None:
    retriever = await retrieving(reader)
    await found(retriever, "llamas?")
    await found(retriever, "llamas?", limit=5)
    await found(retriever, "bread?", "llamas?")

    asked = [text for call in encoder.calls for text in call]
    assert asked == ["query: llamas?", "query: bread?"]
    vectors = {query.text: query.vector for _, queries, _ in reader.searches for query in queries}
    assert set(vectors) == {"llamas?", "bread?"}
    assert all(
        (query.vector == vectors[query.text]).all()
        for _, queries, _ in reader.searches
        for query in queries
        if query.vector is not None
    )


class Silent(FakeReader):
    """Answers no search."""

    async def search(self, *_: Any) -> list[list[Hit]]:
        await asyncio.Event().wait()
        raise AssertionError


class SilentReranker(Reranker):
    async def scores(self, *_: Any) -> list[float]:
        await asyncio.Event().wait()
        raise AssertionError


class Left:
    """The time that is left to a request: little for one of its steps."""

    def __init__(self) -> None:
        self.shares: list[float] = []
        """What each step may take of it, in their order."""
        self.short = -1
        """Which one has little."""

    def within(self, own_s: float, share: float) -> float:
        assert own_s == math.inf
        self.shares.append(share)
        return 0.05 if len(self.shares) == self.short + 1 else 60


EMBED, SEARCH, RERANK = range(3)


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> Left:
    left = Left()
    monkeypatch.setattr("gateway.retrieval.retriever.within", left.within)
    return left


async def test_a_silent_milvus_leaves_time_for_an_answer_without_it_and_is_not_blamed_for_that(
    retrieving: Any, left: Left
) -> None:
    retriever = await retrieving(Silent([]))
    left.short = SEARCH
    for _ in range(2 * MOST_FAILURES):
        left.shares = []
        with pytest.raises(IndexUnavailable, match="takes too long"):
            await found(retriever, when_unavailable="degrade")

    assert not retriever.published._breaker.trouble


async def test_a_silent_encoder_leaves_time_for_an_answer_without_it(
    retrieving: Any, reader: FakeReader, left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def queries(_: Sequence[str]) -> None:
        await asyncio.Event().wait()

    retriever = await retrieving(reader)
    monkeypatch.setattr(retriever._encoding, "queries", queries)
    left.short = EMBED
    with pytest.raises(EncoderUnavailable, match="takes too long"):
        await found(retriever, when_unavailable="degrade")


async def test_a_silent_reranker_leaves_time_for_an_answer_without_it(
    retrieving: Any, reader: FakeReader, left: Left
) -> None:
    retriever = await retrieving(reader, SilentReranker({}))
    left.short = RERANK
    searched = await found(retriever, rerank=True, when_unavailable="degrade")

    assert (ids(searched.hits), searched.away) == (["c1", "c2"], ("reranker",))
    assert left.shares == [0.5, 0.5, 0.5]


async def test_what_a_request_cannot_do_without_has_all_of_its_time(
    retrieving: Any, reader: FakeReader, left: Left
) -> None:
    await found(await retrieving(reader))

    assert left.shares == []


async def test_ranking_has_a_limit_of_its_own(retrieving: Any, reader: FakeReader) -> None:
    reranker = Reranker({hit.text: 0.5 for hit in reader.hits})
    retriever = await retrieving(reader, reranker)
    retriever._rerank_timeout_s = 7.0
    await found(retriever, rerank=True)

    assert reranker.limits == [7.0]
