"""Work that is moved into a thread: order, failures, and a consumer that stops early."""

import threading
import time
from collections.abc import Generator

import pytest

from indexer.engines.streams import ahead


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "ahead"]


def test_the_items_come_in_their_order() -> None:
    assert list(ahead((number for number in range(1000)), 3)) == list(range(1000))
    assert list(ahead((number for number in range(0)), 3)) == []
    assert threads() == []


def test_they_are_made_while_the_consumer_works_but_no_more_than_may_wait() -> None:
    made: list[int] = []

    def items() -> Generator[int, None, None]:
        for number in range(10):
            made.append(number)
            yield number

    stream = ahead(items(), 2)
    assert next(stream) == 0
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    assert made == [0, 1, 2, 3], "one was taken, two wait, one has no place"
    stream.close()


def test_a_failure_comes_after_the_items_before_it() -> None:
    def items() -> Generator[int, None, None]:
        yield 1
        yield 2
        raise ValueError("broken")

    received: list[int] = []
    with pytest.raises(ValueError, match="broken"):
        received.extend(ahead(items(), 5))
    stream = ahead(items(), 5)
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(ValueError, match="broken"):
        next(stream)
    assert threads() == []


def test_a_consumer_that_stops_early_ends_the_thread_and_closes_the_items() -> None:
    closed = threading.Event()

    def items() -> Generator[int, None, None]:
        try:
            number = 0
            while True:
                yield (number := number + 1)
        finally:
            closed.set()

    stream = ahead(items(), 2)
    assert next(stream) == 1
    stream.close()

    assert closed.wait(5)
    assert threads() == []
