"""Puts what waits at the same time into one call. Knows nothing of what is called.

What waits is bounded, and callers take turns where several wait.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Sequence
from concurrent.futures import Executor
from contextvars import Context
from typing import Any, Generic, TypeVar, cast

from prometheus_client import Counter as MetricCounter
from prometheus_client import Gauge

from gateway.access.callers import caller
from gateway.errors import Overloaded
from gateway.waiting import FairQueue, QueueBounds

LENGTHS = Gauge(
    "groundserve_queue_length",
    "Questions, texts or searches that wait for their turn.",
    ["queue"],
    multiprocess_mode="livesum",
)
REFUSED = MetricCounter(
    "groundserve_queue_refused",
    "What was refused because too much waited already.",
    ["queue"],
)
PACE_WEIGHT = 0.2
"""Of the last call, in the average of how long one takes."""

GIL_TURN_S = 0.0001
"""How long a thread that computes waits for an event loop that has much to do. It gives the
interpreter away at each step of a model, hundreds of times for a text: at Python's own 5 ms eight
questions took three times as long beside a busy loop as alone, so they take 1.3 times as long."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Call:
    """A call that is under way, for some that wait."""

    __slots__ = ("is_abandoned", "is_over", "waiting", "worker")

    def __init__(self, waiting: int, worker: "asyncio.Task[Any]") -> None:
        self.waiting = waiting
        self.worker = worker
        self.is_abandoned = self.is_over = False

    def failure_of(self, cancelled: asyncio.CancelledError) -> Exception | None:
        """What it fails with that `cancelled` ends; None where everybody left it.

        Raises that where the worker is to end.
        """
        if self.is_abandoned:
            return None
        if self.worker.cancelling():
            raise cancelled
        return RuntimeError("the call was cancelled, and nobody asked for that")


class _Entry(Generic[Item, Result]):
    """One item, and who waits for its result."""

    __slots__ = ("call", "caller", "future", "item", "kind")

    def __init__(
        self, item: Item, kind: Hashable, who: str, future: "asyncio.Future[Result]"
    ) -> None:
        self.item = item
        self.kind = kind
        self.caller = who
        self.future = future
        self.call: _Call | None = None


class AsyncBatcher(Generic[Item, Result]):
    """Calls a function of many items, up to `max_calls` calls at a time.

    An item that finds a call free goes at once; items that come while none is go together in
    the next. Nobody waits for company. A call that everybody has left is cancelled.
    """

    _cancels = True
    """Whether a call ends when it is cancelled."""

    def __init__(  # noqa: PLR0913 - what is called in another way has a keyword
        self,
        name: str,
        function: Callable[[list[Item]], Awaitable[Sequence[Result]]],
        max_batch: int,
        max_calls: int = 1,
        *,
        bounds: QueueBounds = QueueBounds(),  # noqa: B008 - immutable
        kind: Callable[[Item], Hashable] = lambda _: None,
        max_calls_of_a_kind: int | None = None,
        may_be_of_one: Callable[[Exception], bool] = lambda _: True,
    ) -> None:
        """`name` is that of the queue, for errors and metrics.

        Only items of one `kind` go together. Where a call fails with what `may_be_of_one` of its
        items, the others are tried without it.
        """
        self._name = name
        self._function = function
        self._max_batch = max_batch
        self._max_calls = max_calls
        self._bounds = bounds
        self._kind = kind
        self._max_calls_of_a_kind = max_calls_of_a_kind or max_calls
        self._may_be_of_one = may_be_of_one
        self._queue: FairQueue[_Entry[Item, Result]] = FairQueue()
        self._workers: set[asyncio.Task[Any]] = set()
        self._under_way: Counter[Hashable] = Counter()
        self._seconds_an_item = 0.0
        self._length = LENGTHS.labels(name)
        self._refused = REFUSED.labels(name)
        self._told_length = 0

    async def submit(self, item: Item) -> Result:
        """The result for `item`. Raises Overloaded, and what the function raised for it."""
        return (await self.submit_all([item]))[0]

    async def submit_all(self, items: Sequence[Item]) -> list[Result]:
        """The results for `items`, in their order; where one fails, the others are let go.

        Raises Overloaded, and what the function raised.
        """
        entries: list[_Entry[Item, Result]] = []
        try:
            for item in items:
                entries.append(self._put(item))  # noqa: PERF401 - a refusal lets go of these
            return [await entry.future for entry in entries]
        except BaseException:
            for entry in entries:
                self._leave(entry)
            raise

    def _put(self, item: Item) -> _Entry[Item, Result]:
        who = _caller_name()
        if self._is_full:
            self._make_room(who)
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        entry = _Entry[Item, Result](item, self._kind(item), who, future)
        self._queue.put(entry)
        if len(self._workers) < self._max_calls:
            # In a context of its own: it works for others than the one who happens to start it.
            worker = asyncio.create_task(self._work(), context=Context())
            self._workers.add(worker)
        else:
            self._tell_length()
        return entry

    @property
    def _is_full(self) -> bool:
        waiting = len(self._queue)
        seconds = waiting * self._seconds_an_item / self._max_calls
        return waiting >= self._bounds.items or seconds > self._bounds.seconds

    def _make_room(self, who: str) -> None:
        """For an item of `who`, in the place of one who has more that waits. Raises Overloaded."""
        self._refused.inc()
        failure = Overloaded(f"Too much is waiting already ({self._name}). Try again in a moment.")
        last = self._queue.newest_of_longest(who)
        if last is None:
            raise failure
        self._queue.discard(last)
        last.future.set_exception(failure)

    def _leave(self, entry: _Entry[Item, Result]) -> None:
        """Nobody waits for `entry` any more."""
        if entry.future.done() and not entry.future.cancelled():
            entry.future.exception()  # it is known
            return
        entry.future.cancel()
        if entry.call is None:
            # Work whose client has left is dropped before it costs anything.
            self._queue.discard(entry)
            self._tell_length()
            return
        entry.call.waiting -= 1
        if self._cancels and not entry.call.waiting and not entry.call.is_over:
            entry.call.is_abandoned = True
            entry.call.worker.cancel()

    async def _work(self) -> None:
        try:
            while batch := self._queue.take(self._max_batch, self._has_a_call):
                self._tell_length()
                kind = batch[0].kind
                self._under_way[kind] += 1
                try:
                    await self._answer(batch)
                finally:
                    self._under_way[kind] -= 1
                    if not self._under_way[kind]:
                        del self._under_way[kind]
        finally:
            self._workers.discard(_this_task())

    def _has_a_call(self, kind: Hashable) -> bool:
        return self._under_way[kind] < self._max_calls_of_a_kind

    async def _answer(self, batch: list[_Entry[Item, Result]]) -> None:
        """Give each of `batch` its result, or its failure."""
        call = _Call(len(batch), _this_task())
        for entry in batch:
            entry.call = call
        started = time.monotonic()
        failure: Exception | None = None
        answered: list[tuple[_Entry[Item, Result], Result]] = []
        try:
            results = await self._function([entry.item for entry in batch])
            answered = list(zip(batch, results, strict=True))
        except asyncio.CancelledError as exc:
            failure = call.failure_of(exc)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:  # noqa: BLE001 - whatever it is, who waits must hear of it
            # What a panic in a tokenizer raises is no Exception.
            failure = exc if isinstance(exc, Exception) else RuntimeError(repr(exc))
        call.is_over = True
        if call.is_abandoned:
            call.worker.uncancel()
        elif failure is not None:
            await self._fail(batch, failure)
        else:
            seconds = (time.monotonic() - started) / len(batch)
            self._seconds_an_item += PACE_WEIGHT * (seconds - self._seconds_an_item)
            for entry, result in answered:
                if not entry.future.done():
                    entry.future.set_result(result)

    async def _fail(self, batch: list[_Entry[Item, Result]], failure: Exception) -> None:
        """Try halves again where one item may be to blame: less than two calls for each item."""
        left = [entry for entry in batch if not entry.future.done()]
        if len(batch) == 1 or not self._may_be_of_one(failure):
            for entry in left:
                entry.future.set_exception(failure)
            return
        middle = (len(left) + 1) // 2
        for half in (left[:middle], left[middle:]):
            if still := [entry for entry in half if not entry.future.done()]:
                await self._answer(still)

    def _tell_length(self) -> None:
        if len(self._queue) != self._told_length:
            self._told_length = len(self._queue)
            self._length.set(self._told_length)


def take_short_turns() -> None:
    """For a process in which a model computes in a thread beside the event loop."""
    sys.setswitchinterval(GIL_TURN_S)


class Batcher(AsyncBatcher[Item, Result]):
    """Calls a blocking function in threads, which cannot be stopped."""

    _cancels = False

    def __init__(  # noqa: PLR0913 - as its base
        self,
        name: str,
        function: Callable[[list[Item]], Sequence[Result]],
        executor: Executor,
        max_batch: int,
        max_calls: int = 1,
        *,
        bounds: QueueBounds = QueueBounds(),  # noqa: B008 - immutable
        may_be_of_one: Callable[[Exception], bool] = lambda _: True,
    ) -> None:
        async def called(items: list[Item]) -> Sequence[Result]:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(executor, function, items)

        super().__init__(
            name, called, max_batch, max_calls, bounds=bounds, may_be_of_one=may_be_of_one
        )


def _this_task() -> "asyncio.Task[Any]":
    return cast("asyncio.Task[Any]", asyncio.current_task())


def _caller_name() -> str:
    """Whose turn it is; what the gateway asks by itself is nobody's."""
    try:
        return caller().name
    except LookupError:
        return ""
