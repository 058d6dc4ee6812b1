"""The ledger in a real Redis does what the one in memory does."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.access.ledger import (
    LEASE_S,
    Charge,
    Entry,
    Give,
    LedgerAway,
    Renew,
    Slot,
    Take,
    Taken,
)
from gateway.access.local_ledger import LocalLedger
from gateway.access.redis_ledger import RedisLedger
from tests.integration.redis_server import RedisServer

pytestmark = pytest.mark.anyio
PREFIX = "{groundserve-limits}:"

LEASES = st.sampled_from(["a", "b", "c", "d"])
KEYS = ("requests:key:é", "tokens:all:")
CHARGES = st.lists(
    st.builds(
        Charge,
        st.sampled_from(KEYS),
        st.integers(1, 30),
        st.integers(0, 12),
    ),
    max_size=2,
    unique_by=lambda charge: charge.key,
)
SLOTS = st.lists(st.builds(lambda limit: Slot("slots", limit), st.integers(1, 3)), max_size=1)
STEPS = st.lists(
    st.tuples(LEASES, CHARGES, SLOTS, st.integers(-12, 12), st.booleans()), max_size=30
)


@pytest.fixture
async def ledger(redis: RedisServer) -> AsyncIterator[RedisLedger]:
    ledger = RedisLedger(redis.url, 5)
    await ledger._redis.flushall()
    yield ledger
    await ledger.close()


async def told(ledger: RedisLedger, entry: Entry) -> Taken | None:
    [answer] = await ledger.ask([entry])
    return answer


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_both_ledgers_decide_the_same(
    redis: RedisServer,
    steps: list[tuple[str, list[Charge], list[Slot], int, bool]],
) -> None:
    async def compare() -> None:
        there, here = RedisLedger(redis.url, 5), LocalLedger(lambda: now)
        now = 0
        held: dict[str, int] = {}
        async with contextlib.aclosing(there._redis):
            await there._redis.flushall()
            for lease, charges, slots, difference, ends in steps:
                second = held.pop(lease, -1)
                given = Give(lease, ("slots",), second, tuple((key, difference) for key in KEYS))
                asked = Take(lease, tuple(charges), tuple(slots))
                # In one message they fall into one second of Redis, which is the other's then:
                # what a charge gives back depends on what else was charged in its second.
                [_, one] = await there.ask([given, asked])
                assert one is not None
                now = one.second
                here.give(given)
                other = here.taken(asked)
                assert (one.refused, one.second) == (other.refused, other.second)
                assert -1 <= one.wait_s - other.wait_s <= 0
                assert [each.remaining for each in one.standings] == [
                    each.remaining for each in other.standings
                ]
                if one.refused < 0:
                    held[lease] = one.second
                elif ends:
                    await told(there, Give(lease, ("slots",)))
                    here.give(Give(lease, ("slots",)))

    asyncio.run(compare())


async def test_what_is_older_than_a_minute_counts_no_more(ledger: RedisLedger) -> None:
    [now, _] = await ledger._redis.time()
    await ledger._redis.hset(
        PREFIX + "requests", mapping={str(now - 62): "5", str(now - 40): "3", str(now): "1"}
    )
    asked = Take("a", (Charge("requests", 10, 0),))
    began = await clock(ledger)
    taken = await told(ledger, asked)
    refused = await told(ledger, Take("b", (Charge("requests", 10, 7),)))
    took_s = await clock(ledger) - began

    assert taken is not None
    assert taken.standings[0].remaining == 6
    assert now + 61 - began - took_s <= taken.standings[0].reset_s <= now + 61 - began
    assert refused is not None
    assert refused.refused == 0
    assert now + 21 - began - took_s <= refused.wait_s <= now + 21 - began
    assert await ledger._redis.hlen(PREFIX + "requests") == 2


async def clock(ledger: RedisLedger) -> float:
    """What Redis takes the time to be."""
    seconds, microseconds = await ledger._redis.time()
    return float(seconds + microseconds / 1e6)


async def test_keys_leave_by_themselves(ledger: RedisLedger) -> None:
    await told(ledger, Take("a", (Charge("requests", 10, 1),), (Slot("slots", 1),)))

    assert (
        sorted(await ledger._redis.keys("*"))
        == [
            *((PREFIX + "requests").encode(), (PREFIX + "slots").encode()),
        ][:2]
    )
    assert 30 < await ledger._redis.ttl(PREFIX + "requests") <= 62
    assert LEASE_S < await ledger._redis.ttl(PREFIX + "slots") <= 2 * LEASE_S


async def test_a_slot_that_nobody_renews_comes_free(ledger: RedisLedger) -> None:
    asked = [Take(lease, (), (Slot("slots", 1),)) for lease in "ab"]
    began = await clock(ledger)
    first, second = [await told(ledger, each) for each in asked]
    assert first is not None
    assert second is not None
    assert (first.refused, second.refused) == (-1, 0)
    score = await ledger._redis.zscore(PREFIX + "slots", "a")
    assert score is not None
    assert began <= score - LEASE_S <= await clock(ledger)

    await ledger._redis.zadd(PREFIX + "slots", {"a": time.time() - 0.1})
    await ledger.ask([Renew("a", ("slots",))])
    third = await told(ledger, asked[1])
    await ledger._redis.zadd(PREFIX + "slots", {"a": time.time() - 0.1})
    fourth = await told(ledger, asked[1])

    assert third is not None
    assert fourth is not None
    assert (third.refused, fourth.refused) == (0, -1)


async def test_a_window_in_several_processes_never_holds_more_than_the_limit(
    redis: RedisServer, ledger: RedisLedger
) -> None:
    others = [ledger, RedisLedger(redis.url, 5)]
    asked = [
        others[at % 2].ask([Take(f"{at}:{n}", (Charge("requests", 100, 3),)) for n in range(5)])
        for at in range(30)
    ]
    taken = [each for answers in await asyncio.gather(*asked) for each in answers]
    await others[1].close()

    assert sum(each is not None and each.refused < 0 for each in taken) == 33


async def test_a_connection_that_redis_has_closed_is_made_anew(ledger: RedisLedger) -> None:
    asked: list[Entry] = [Take("a", (Charge("requests", 10, 1),))]
    await asyncio.gather(*(ledger.ask(asked) for _ in range(4)))
    await ledger._redis.client_kill_filter(_type="normal", skipme=True)
    answers = await asyncio.gather(*(ledger.ask(asked) for _ in range(4)))

    assert [taken is not None and taken.refused for [taken] in answers] == [-1] * 4


@pytest.mark.parametrize("why", ["away", "another kind"])
async def test_what_redis_cannot_answer_is_told_as_that(why: str, ledger: RedisLedger) -> None:
    asked: list[Entry] = [Take("a", (Charge("requests", 10, 1),))]
    if why == "away":
        other = RedisLedger("redis://:hunter2@127.0.0.1:1", 1)
    else:
        other = ledger
        await ledger._redis.set(PREFIX + "requests", "text")
    with pytest.raises(LedgerAway) as told_so:
        await other.ask(asked)

    assert "hunter2" not in str(told_so.value)
    await other.close()
