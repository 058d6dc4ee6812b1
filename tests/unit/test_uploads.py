"""What waits for the storage of uploads: bounded, and dropped where its client has left."""

import asyncio
import threading
from collections.abc import AsyncIterator
from functools import partial

import pytest

from gateway.errors import Overloaded
from gateway.uploads import THREADS, Uploads
from gateway.waiting import QueueBounds

pytestmark = pytest.mark.anyio

WAITING = 3


@pytest.fixture
async def uploads() -> AsyncIterator[Uploads]:
    uploads = Uploads(None, QueueBounds(items=WAITING))
    yield uploads
    await uploads.close()


async def test_more_than_may_wait_is_refused_and_who_left_is_not_served(uploads: Uploads) -> None:
    let, done = threading.Event(), []

    def work(number: int) -> int:
        assert let.wait(10)
        done.append(number)
        return number

    asking = []
    for number in range(THREADS + WAITING + 2):
        asking.append(asyncio.create_task(uploads.in_thread(partial(work, number))))
        await asyncio.sleep(0.001)
    refused = await asyncio.wait_for(asyncio.gather(*asking[-2:], return_exceptions=True), 10)
    asking[THREADS].cancel()
    await asyncio.sleep(0.001)
    let.set()
    results = await asyncio.gather(*asking[:-2], return_exceptions=True)

    assert all(isinstance(each, Overloaded) for each in refused)
    assert isinstance(results.pop(THREADS), asyncio.CancelledError)
    assert sorted(done) == [number for number in range(THREADS + WAITING) if number != THREADS]
