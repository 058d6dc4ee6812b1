"""Searches that wait at the same time: what goes in one call, and who gets what."""

import asyncio
from collections.abc import Sequence

import pytest

from gateway.retrieval.searches import AT_ONCE, CALLS_OF_A_WAY, Searches
from indexer.index.collection import Generation
from indexer.index.errors import IndexUnavailable
from indexer.index.records import Hit
from indexer.index.searching import Query, Search
from tests.unit.conftest import FakeReader, MakeHit

pytestmark = pytest.mark.anyio

WAY = Search(tenant="t", limit=5)


class SlowReader(FakeReader):
    """Finds a hit with the text of each question, when it is let."""

    def __init__(self, hit: Hit) -> None:
        super().__init__([hit])
        self.may_answer = asyncio.Event()
        self.was_asked = asyncio.Event()
        self.at_a_time = self.most_at_a_time = 0

    async def search(
        self, generation: Generation, queries: Sequence[Query], search: Search
    ) -> list[list[Hit]]:
        self.was_asked.set()
        self.at_a_time += 1
        self.most_at_a_time = max(self.at_a_time, self.most_at_a_time)
        await self.may_answer.wait()
        self.at_a_time -= 1
        await super().search(generation, queries, search)
        return [[_named(self.hits[0], query.text)] for query in queries]


def _named(hit: Hit, text: str) -> Hit:
    return Hit(**{name: getattr(hit, name) for name in Hit.__struct_fields__} | {"text": text})


@pytest.fixture
def reader(make_hit: MakeHit) -> SlowReader:
    return SlowReader(make_hit())


async def test_what_waits_goes_together_and_each_gets_its_own(reader: SlowReader) -> None:
    searches = Searches(reader)
    questions = [f"q{number}" for number in range(CALLS_OF_A_WAY + AT_ONCE + 3)]
    asking = [
        asyncio.create_task(searches.search(reader.generation, [Query(question)], WAY))
        for question in questions
    ]
    await asyncio.sleep(0.01)
    reader.may_answer.set()
    found = await asyncio.gather(*asking)

    assert [hits[0].text for [hits] in found] == questions
    assert reader.most_at_a_time == CALLS_OF_A_WAY
    sizes = [len(queries) for _, queries, _ in reader.searches]
    assert max(sizes) == AT_ONCE
    assert len(sizes) < len(questions) / 4


async def test_who_finds_milvus_idle_does_not_wait_for_company(reader: SlowReader) -> None:
    searches = Searches(reader)
    asking = asyncio.create_task(searches.search(reader.generation, [Query("q")], WAY))
    await asyncio.wait_for(reader.was_asked.wait(), 10)
    reader.may_answer.set()

    assert len(await asking) == 1


async def test_several_questions_of_one_request_come_back_in_their_order(
    reader: SlowReader,
) -> None:
    reader.may_answer.set()
    found = await Searches(reader).search(reader.generation, [Query("a"), Query("b")], WAY)

    assert [hits[0].text for hits in found] == ["a", "b"]


@pytest.mark.parametrize(
    "other",
    [
        Search(tenant="other", limit=5),
        Search(tenant="t", limit=6),
        Search(tenant="t", limit=5, mode="hybrid"),
        Search(tenant="t", limit=5, where="(a == 1)"),
    ],
)
async def test_what_is_looked_for_in_another_way_never_shares_a_call(
    reader: SlowReader, other: Search
) -> None:
    searches = Searches(reader)
    asking = [
        asyncio.create_task(searches.search(reader.generation, [Query(str(number))], way))
        for number in range(20)
        for way in (WAY, other)
    ]
    await asyncio.sleep(0.01)
    reader.may_answer.set()
    await asyncio.gather(*asking)

    ways = [search for _, queries, search in reader.searches for _ in queries]
    assert ways.count(WAY) == ways.count(other) == 20


async def test_a_failure_is_that_of_all_in_the_call_and_of_nobody_else(
    reader: SlowReader,
) -> None:
    searches = Searches(reader)
    reader.search_failures = [IndexUnavailable("Milvus is away")]
    reader.may_answer.set()
    with pytest.raises(IndexUnavailable):
        await searches.search(reader.generation, [Query("a")], WAY)

    assert len(await searches.search(reader.generation, [Query("b")], WAY)) == 1


async def test_who_leaves_while_waiting_is_not_searched_for(reader: SlowReader) -> None:
    searches, asking = Searches(reader), []
    for number in range(CALLS_OF_A_WAY + 2):
        asked = searches.search(reader.generation, [Query(str(number))], WAY)
        asking.append(asyncio.create_task(asked))
        await asyncio.sleep(0.01)
    asking[-1].cancel()
    reader.may_answer.set()
    await asyncio.gather(*asking, return_exceptions=True)

    searched = [query.text for _, queries, _ in reader.searches for query in queries]
    assert str(CALLS_OF_A_WAY + 1) not in searched
    assert str(CALLS_OF_A_WAY) in searched
