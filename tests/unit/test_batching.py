"""What waits together goes together, and what nobody waits for is not done."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from gateway.access.callers import Caller, acting_as, caller
from gateway.batching import AsyncBatcher, Batcher
from gateway.errors import Overloaded
from gateway.waiting import QueueBounds

pytestmark = pytest.mark.anyio


class Function:
    """Doubles numbers, once it is let; remembers each call."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.started = threading.Semaphore(0)
        self.let = threading.Semaphore(0)
        self.at_once = 0
        self.most_at_once = 0

    def __call__(self, items: list[int]) -> list[int]:
        self.calls.append(items)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.started.release()
        assert self.let.acquire(timeout=10)
        self.at_once -= 1
        if any(item < 0 for item in items):
            raise ValueError(f"negative: {items}")
        return [2 * item for item in items]

    async def wait_started(self) -> None:
        assert await asyncio.to_thread(self.started.acquire, timeout=10)


@pytest.fixture
def function() -> Function:
    return Function()


@pytest.fixture
def batcher(function: Function) -> Iterator[Batcher[int, int]]:
    # Two threads, so that two calls at once would be seen.
    with ThreadPoolExecutor(max_workers=2) as executor:
        yield Batcher("test", function, executor, max_batch=3)
        function.let.release(100)


async def submitted(batcher: Batcher[int, int], *items: int) -> list["asyncio.Task[int]"]:
    """Tasks that wait for `items`, in this order."""
    tasks = [asyncio.create_task(batcher.submit(item)) for item in items]
    await asyncio.sleep(0)
    return tasks


async def test_an_item_that_finds_the_thread_idle_goes_at_once_and_alone(
    batcher: Batcher[int, int], function: Function
) -> None:
    function.let.release(2)

    assert await batcher.submit(1) == 2
    assert await batcher.submit(5) == 10
    assert function.calls == [[1], [5]]


async def test_what_comes_meanwhile_goes_together_in_the_next_call_in_order(
    batcher: Batcher[int, int], function: Function
) -> None:
    first = await submitted(batcher, 1)
    await function.wait_started()
    others = await submitted(batcher, 2, 3, 4)
    function.let.release(2)

    assert await asyncio.gather(*first, *others) == [2, 4, 6, 8]
    assert function.calls == [[1], [2, 3, 4]]


async def test_a_call_holds_no_more_than_the_largest_batch_and_there_is_one_at_a_time(
    batcher: Batcher[int, int], function: Function
) -> None:
    first = await submitted(batcher, 0)
    await function.wait_started()
    others = await submitted(batcher, *range(1, 8))
    function.let.release(10)

    assert await asyncio.gather(*first, *others) == [2 * number for number in range(8)]
    assert function.calls == [[0], [1, 2, 3], [4, 5, 6], [7]]
    assert function.most_at_once == 1


async def test_a_waiter_that_left_is_dropped_before_it_costs(
    batcher: Batcher[int, int], function: Function
) -> None:
    first = await submitted(batcher, 1)
    await function.wait_started()
    others = await submitted(batcher, 2, 3, 4)
    others[1].cancel()
    await asyncio.sleep(0)
    function.let.release(10)

    assert await asyncio.gather(*first, others[0], others[2]) == [2, 4, 8]
    assert function.calls == [[1], [2, 4]]


async def test_where_all_waiters_left_there_is_no_call(
    batcher: Batcher[int, int], function: Function
) -> None:
    first = await submitted(batcher, 1)
    await function.wait_started()
    others = await submitted(batcher, 2, 3)
    for task in others:
        task.cancel()
    await asyncio.sleep(0)
    function.let.release(10)
    await first[0]

    assert await batcher.submit(9) == 18
    assert function.calls == [[1], [9]]


async def test_a_waiter_that_leaves_during_its_call_harms_no_other(
    batcher: Batcher[int, int], function: Function
) -> None:
    first = await submitted(batcher, 1)
    await function.wait_started()
    others = await submitted(batcher, 2, 3)
    function.let.release()
    await function.wait_started()
    others[0].cancel()
    await asyncio.sleep(0)
    function.let.release()

    assert await asyncio.gather(*first, others[1]) == [2, 6]


async def test_of_a_call_that_fails_only_the_item_to_blame_gets_the_error(
    batcher: Batcher[int, int], function: Function
) -> None:
    first = await submitted(batcher, 1)
    await function.wait_started()
    failing = await submitted(batcher, 2, -3, 4)
    after = await submitted(batcher, 5)
    function.let.release(10)
    results = await asyncio.gather(*first, *failing, *after, return_exceptions=True)

    assert [*results[:2], *results[3:]] == [2, 4, 8, 10]
    assert str(results[2]) == "negative: [-3]"
    assert await batcher.submit(6) == 12


async def test_what_concerns_all_items_fails_them_in_one_call(function: Function) -> None:
    with ThreadPoolExecutor(max_workers=1) as executor:
        batcher = Batcher[int, int](
            "test",
            function,
            executor,
            max_batch=3,
            may_be_of_one=lambda failure: not isinstance(failure, ValueError),
        )
        first = await submitted(batcher, 1)
        await function.wait_started()
        failing = await submitted(batcher, 2, -3, 4)
        function.let.release(10)
        results = await asyncio.gather(*first, *failing, return_exceptions=True)

    assert [str(result) for result in results[1:]] == ["negative: [2, -3, 4]"] * 3
    assert len(function.calls) == 2


@given(bad=st.sets(st.integers(0, 31)), count=st.integers(1, 32), max_batch=st.integers(1, 32))
def test_whoever_fails_each_other_gets_its_own_result_in_less_than_two_calls_each(
    bad: set[int], count: int, max_batch: int
) -> None:
    calls = 0

    async def doubled(items: list[int]) -> list[int]:
        nonlocal calls
        calls += 1
        if bad.intersection(items):
            raise ValueError("bad")
        return [2 * item for item in items]

    async def all_of_them() -> list[int | BaseException]:
        batcher = AsyncBatcher("test", doubled, max_batch)
        return await asyncio.gather(*map(batcher.submit, range(count)), return_exceptions=True)

    results = asyncio.run(all_of_them())
    assert [result for place, result in enumerate(results) if place not in bad] == [
        2 * item for item in range(count) if item not in bad
    ]
    assert all(isinstance(results[place], ValueError) for place in bad if place < count)
    assert calls < 2 * count


async def test_several_calls_may_be_under_way_and_no_more() -> None:
    calls: list[list[int]] = []
    let = asyncio.Event()

    async def doubled(items: list[int]) -> list[int]:
        calls.append(items)
        await let.wait()
        return [2 * item for item in items]

    batcher = AsyncBatcher("test", doubled, max_batch=3, max_calls=2)
    first = asyncio.create_task(batcher.submit(1))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(batcher.submit(2))
    await asyncio.sleep(0.01)
    others = [asyncio.create_task(batcher.submit(number)) for number in (3, 4, 5, 6)]
    await asyncio.sleep(0.01)
    assert calls == [[1], [2]]
    let.set()

    assert await asyncio.gather(first, second, *others) == [2, 4, 6, 8, 10, 12]
    assert calls[2:] == [[3, 4, 5], [6]]
    assert await batcher.submit(7) == 14


class Gated:
    """Doubles numbers, once it is let; remembers each call, and those that were cancelled."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.cancelled: list[list[int]] = []
        self.let = asyncio.Event()

    async def __call__(self, items: list[int]) -> list[int]:
        self.calls.append(items)
        try:
            await self.let.wait()
        except asyncio.CancelledError:
            self.cancelled.append(items)
            raise
        return [2 * item for item in items]


@pytest.fixture
def gated() -> Gated:
    return Gated()


async def waiting(
    batcher: AsyncBatcher[int, int], *items: int, of: str = "a"
) -> list["asyncio.Task[int]"]:
    with acting_as(Caller(name=of, tenant=of)):
        tasks = [asyncio.create_task(batcher.submit(item)) for item in items]
    await asyncio.sleep(0.001)
    return tasks


def metric(name: str, queue: str) -> float:
    return REGISTRY.get_sample_value(name, {"queue": queue}) or 0.0


async def test_a_call_that_everybody_left_is_cancelled_and_the_next_one_goes(gated: Gated) -> None:
    batcher = AsyncBatcher("test", gated, max_batch=2)
    left = await waiting(batcher, 1)
    stayed = await waiting(batcher, 2, 3)
    left[0].cancel()
    await asyncio.sleep(0.001)
    assert gated.cancelled == [[1]]
    stayed[0].cancel()
    await asyncio.sleep(0.001)
    gated.let.set()

    assert await stayed[1] == 6
    assert (gated.calls, gated.cancelled) == ([[1], [2, 3]], [[1]])


async def test_a_flood_is_refused_at_once_and_counted(gated: Gated) -> None:
    batcher = AsyncBatcher("flood", gated, max_batch=2, bounds=QueueBounds(items=3))
    under_way = await waiting(batcher, 0)
    tasks = await waiting(batcher, 1, 2, 3, 4, 5)
    results = await asyncio.wait_for(asyncio.gather(*tasks[3:], return_exceptions=True), 10)
    length = metric("groundserve_queue_length", "flood")
    gated.let.set()

    assert all(isinstance(result, Overloaded) for result in results)
    assert await asyncio.gather(*under_way, *tasks[:3]) == [0, 2, 4, 6]
    assert metric("groundserve_queue_refused_total", "flood") == 2
    assert (length, metric("groundserve_queue_length", "flood")) == (3, 0)


async def test_what_would_wait_too_long_is_refused_at_once() -> None:
    async def slow(items: list[int]) -> list[int]:
        await asyncio.sleep(0.05)
        return items

    batcher = AsyncBatcher("slow", slow, max_batch=1, bounds=QueueBounds(seconds=0.02))
    assert await batcher.submit(0) == 0
    tasks = await waiting(batcher, *range(20))
    done = await asyncio.gather(*tasks, return_exceptions=True)

    assert 1 <= sum(isinstance(each, Overloaded) for each in done) < 19
    assert await batcher.submit(1) == 1


async def test_whose_flood_it_is_makes_room_for_others(gated: Gated) -> None:
    batcher = AsyncBatcher("room", gated, max_batch=4, bounds=QueueBounds(items=4))
    flood = await waiting(batcher, 0, 1, 2, 3, 4, of="flooder")
    other = await waiting(batcher, 9, of="other")
    with pytest.raises(Overloaded):
        await asyncio.wait_for(flood[4], 10)
    gated.let.set()

    assert await asyncio.gather(*flood[:4], *other) == [0, 2, 4, 6, 18]


async def test_callers_take_turns_where_several_wait(gated: Gated) -> None:
    batcher = AsyncBatcher("turns", gated, max_batch=2)
    flood = await waiting(batcher, 0, of="flooder")
    flood += await waiting(batcher, *range(1, 9), of="flooder")
    other = await waiting(batcher, 100, 101, of="other")
    gated.let.set()
    await asyncio.gather(*flood, *other)

    assert [set(call) for call in gated.calls[:3]] == [{0}, {1, 100}, {2, 101}]


async def test_only_what_is_of_one_kind_goes_together_and_no_kind_has_all_calls() -> None:
    gated = Gated()
    batcher = AsyncBatcher(
        "kinds",
        gated,
        max_batch=9,
        max_calls=3,
        kind=lambda item: item % 2,
        max_calls_of_a_kind=2,
    )
    tasks = [task for item in (1, 3, 5, 7, 2, 4) for task in await waiting(batcher, item)]
    assert gated.calls == [[1], [3], [2]]
    gated.let.set()

    assert await asyncio.gather(*tasks) == [2, 6, 10, 14, 4, 8]
    assert all(len({item % 2 for item in call}) == 1 for call in gated.calls)


async def test_where_one_of_several_is_refused_the_others_are_let_go(gated: Gated) -> None:
    batcher = AsyncBatcher("several", gated, max_batch=1, bounds=QueueBounds(items=3))
    first = await waiting(batcher, 0)
    with pytest.raises(Overloaded):
        await batcher.submit_all([1, 2, 3, 4])
    gated.let.set()

    assert await first[0] == 0
    assert await batcher.submit(5) == 10
    assert gated.calls == [[0], [5]]


async def test_nothing_is_done_in_the_name_of_who_happens_to_start_it() -> None:
    async def names(items: list[int]) -> list[str]:
        try:
            return [caller().name] * len(items)
        except LookupError:
            return ["nobody"] * len(items)

    batcher = AsyncBatcher("names", names, max_batch=2)
    with acting_as(Caller(name="a", tenant="a")):
        assert await batcher.submit(1) == "nobody"


async def test_a_call_that_nobody_of_ours_cancelled_fails_and_the_next_one_goes() -> None:
    async def doubled(items: list[int]) -> list[int]:
        if items == [1]:
            raise asyncio.CancelledError
        return [2 * item for item in items]

    batcher = AsyncBatcher("doubles", doubled, max_batch=2)
    async with asyncio.timeout(10):
        with pytest.raises(RuntimeError, match="nobody asked for that"):
            await batcher.submit(1)

        assert await batcher.submit(2) == 4
