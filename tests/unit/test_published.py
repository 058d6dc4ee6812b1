"""Which generation is asked, and what happens while Milvus is away: who waits, and who does not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest

from gateway.access.callers import Caller, acting_as
from gateway.encoding import LocalEncoding
from gateway.retrieval.published import MOST_FAILURES, Published
from indexer.index.collection import Generation
from indexer.index.errors import (
    EncoderUnavailable,
    EncodingFailed,
    IndexRefused,
    IndexUnavailable,
    KnowledgeBaseMissing,
)
from indexer.index.records import Hit
from tests.unit.conftest import FakeReader, LoopClock
from tests.unit.index_fakes import FakeEncoder

pytestmark = pytest.mark.anyio

TIMEOUT_S = 0.2
AWAY = IndexUnavailable("Milvus is away")


class Hanging(FakeReader):
    """Says nothing while it hangs."""

    def __init__(self, hits: list[Hit]) -> None:
        super().__init__(hits)
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def published(self, name: str) -> Generation:
        await self.goes_on.wait()
        return await super().published(name)


@pytest.fixture
def hanging() -> Hanging:
    return Hanging([])


@pytest.fixture
async def published(hanging: Hanging, encoder: FakeEncoder) -> AsyncIterator[Published]:
    encoding = LocalEncoding(lambda: encoder)
    await encoding.start()
    yield Published(hanging, encoding, 0.05, "documents", TIMEOUT_S)
    await encoding.close()


@pytest.fixture
async def watching(published: Published) -> AsyncIterator[Published]:
    task = asyncio.create_task(published.watch())
    yield published
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def name_of(generation: Generation) -> str:
    return generation.collection


def failing(*failures: Exception) -> Callable[[Generation], Awaitable[str]]:
    """A question that fails so often, with these, and is answered then."""
    left = list(failures)

    async def ask(generation: Generation) -> str:
        if left:
            raise left.pop(0)
        return generation.collection

    return ask


async def never(_: Generation) -> str:
    await asyncio.Event().wait()
    raise AssertionError


async def trip(published: Published) -> None:
    for _ in range(MOST_FAILURES):
        with pytest.raises(IndexUnavailable):
            await published.ask("documents", failing(AWAY, AWAY))


@pytest.mark.parametrize("failure", [AWAY, IndexRefused("dropped"), KnowledgeBaseMissing("gone")])
async def test_a_generation_that_was_dropped_or_unloaded_is_looked_up_and_asked_again(
    published: Published, hanging: Hanging, failure: Exception
) -> None:
    await published.refresh("documents")
    hanging.generation = Generation("documents__g2", hanging.generation.fingerprint)

    assert await published.ask("documents", failing(failure)) == "documents__g2"


async def test_what_the_encoder_fails_on_is_not_asked_again(published: Published) -> None:
    with pytest.raises(EncodingFailed):
        await published.ask("documents", failing(EncodingFailed("a"), EncodingFailed("b")))
    assert await published.ask("documents", failing()) == "documents__g1"


async def test_all_that_a_request_asks_takes_no_longer_than_the_timeout(
    published: Published, hanging: Hanging, loop_clock: LoopClock
) -> None:
    with pytest.raises(IndexUnavailable, match=r"within 0\.2 s"):
        await published.ask("documents", never)

    async def fails_late(_: Generation) -> str:
        loop_clock.ahead_s += 150
        raise AWAY

    published._timeout_s = 200
    hanging.goes_on.clear()
    asking = asyncio.create_task(published.ask("documents", fails_late))
    await asyncio.sleep(0.01)
    loop_clock.ahead_s += 60
    async with asyncio.timeout(10):
        with pytest.raises(IndexUnavailable, match="within 200 s"):
            await asking


async def test_after_some_failures_nobody_waits_and_milvus_is_not_asked(
    published: Published, hanging: Hanging
) -> None:
    hanging.failure = AWAY
    await trip(published)
    asked = len(hanging.resolved)
    with pytest.raises(IndexUnavailable, match="3 times in a row: Milvus is away"):
        await published.ask("documents", name_of)
    with pytest.raises(IndexUnavailable, match="3 times in a row"):
        await published.check()

    assert len(hanging.resolved) == asked


async def test_the_watch_finds_out_that_it_is_back(watching: Published, hanging: Hanging) -> None:
    hanging.failure = AWAY
    await trip(watching)
    hanging.failure = None
    async with asyncio.timeout(10):
        while watching._breaker.trouble:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)

    assert await watching.ask("documents", name_of) == "documents__g1"


async def test_it_is_back_for_all_where_the_default_knowledge_base_alone_is_refused(
    watching: Published, hanging: Hanging
) -> None:
    hanging.failure = AWAY
    await trip(watching)
    hanging.failure = IndexRefused("this collection cannot be loaded")
    async with asyncio.timeout(20):
        while watching._breaker.trouble:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
    with pytest.raises(IndexRefused):
        await watching.ask("documents", name_of)


async def test_it_is_away_for_all_though_one_tenant_alone_asks(published: Published) -> None:
    await published._probe("documents")
    with acting_as(Caller(name="a", tenant="acme")):
        await trip(published)
        with pytest.raises(IndexUnavailable, match="3 times in a row"):
            await published.ask("documents", name_of)


async def test_what_waits_for_its_turn_while_others_are_answered_says_nothing_about_milvus(
    published: Published,
) -> None:
    await published.refresh("documents")
    waiting = [
        asyncio.create_task(published.ask("documents", never)) for _ in range(2 * MOST_FAILURES)
    ]
    await asyncio.sleep(0.01)
    await published.ask("documents", name_of)
    for each in waiting:
        with pytest.raises(IndexUnavailable, match=r"nothing was found within 0\.2 s"):
            await each

    assert await published.ask("documents", name_of) == "documents__g1"


async def test_an_encoder_that_says_nothing_says_nothing_about_milvus(hanging: Hanging) -> None:
    class Silent(LocalEncoding):
        async def differences(self, *_: object) -> list[str]:
            await asyncio.sleep(0.5)
            raise EncoderUnavailable("it says nothing")

    encoding = Silent(FakeEncoder)
    published = Published(hanging, encoding, 0.05, "documents", TIMEOUT_S)
    for _ in range(2 * MOST_FAILURES):
        with pytest.raises((IndexUnavailable, EncoderUnavailable)):
            await published.ask("documents", name_of)

    assert not published._breaker.trouble
    await encoding.close()


@pytest.mark.parametrize("failure", [KnowledgeBaseMissing("no alias"), IndexRefused("no")])
async def test_a_milvus_that_says_no_is_there(published: Published, failure: Exception) -> None:
    for _ in range(2 * MOST_FAILURES):
        with pytest.raises(type(failure)):
            await published.ask("documents", failing(failure, failure))

    assert await published.ask("documents", name_of) == "documents__g1"


async def test_one_success_among_failures_keeps_it_asked(published: Published) -> None:
    for _ in range(3):
        for _ in range(MOST_FAILURES - 1):
            with pytest.raises(IndexUnavailable):
                await published.ask("documents", failing(AWAY, AWAY))
        assert await published.ask("documents", name_of) == "documents__g1"


async def test_a_client_that_leaves_says_nothing_about_milvus(published: Published) -> None:
    for _ in range(2 * MOST_FAILURES):
        leaving = asyncio.create_task(published.ask("documents", never))
        await asyncio.sleep(0.01)
        leaving.cancel()
        with suppress(asyncio.CancelledError):
            await leaving

    assert await published.ask("documents", name_of) == "documents__g1"


async def test_many_that_need_it_looked_up_ask_once(published: Published, hanging: Hanging) -> None:
    hanging.goes_on.clear()
    asking = [asyncio.create_task(published.ask("documents", name_of)) for _ in range(20)]
    await asyncio.sleep(0.01)
    hanging.goes_on.set()

    assert set(await asyncio.gather(*asking)) == {"documents__g1"}
    assert hanging.resolved == ["documents"]


async def test_who_has_just_been_answered_need_not_be_asked_whether_it_is_there(
    published: Published, hanging: Hanging
) -> None:
    await published.ask("documents", name_of)
    asked = len(hanging.resolved)
    await published.check()

    assert len(hanging.resolved) == asked
