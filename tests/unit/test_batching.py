"""What waits together goes together, and what nobody waits for is not done."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.batching import AsyncBatcher, Batcher

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
        yield Batcher(function, executor, max_batch=3)
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


async def test_an_error_reaches_exactly_those_of_its_call(
    batcher: Batcher[int, int], function: Function
) -> None:
    first = await submitted(batcher, 1)
    await function.wait_started()
    failing = await submitted(batcher, 2, -3, 4)
    after = await submitted(batcher, 5)
    function.let.release(10)
    results = await asyncio.gather(*first, *failing, *after, return_exceptions=True)

    assert [results[0], results[4]] == [2, 10]
    assert [str(result) for result in results[1:4]] == ["negative: [2, -3, 4]"] * 3
    assert await batcher.submit(6) == 12


async def test_several_calls_may_be_under_way_and_no_more() -> None:
    calls: list[list[int]] = []
    let = asyncio.Event()

    async def doubled(items: list[int]) -> list[int]:
        calls.append(items)
        await let.wait()
        return [2 * item for item in items]

    batcher = AsyncBatcher(doubled, max_batch=3, max_calls=2)
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
