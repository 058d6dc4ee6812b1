"""Puts what waits at the same time into one call. Knows nothing of what is called."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class AsyncBatcher(Generic[Item, Result]):
    """Calls a function of many items, up to `max_calls` calls at a time.

    An item that finds a call free goes at once; items that come while none is go together in
    the next. Nobody waits for company.
    """

    def __init__(
        self,
        function: Callable[[list[Item]], Awaitable[Sequence[Result]]],
        max_batch: int,
        max_calls: int = 1,
    ) -> None:
        self._function = function
        self._max_batch = max_batch
        self._max_calls = max_calls
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._workers: list[asyncio.Task[None]] = []

    async def submit(self, item: Item) -> Result:
        """The result for `item`. Raises what the function raised for the call that held it."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._workers = [worker for worker in self._workers if not worker.done()]
        if len(self._workers) < self._max_calls:
            self._workers.append(asyncio.create_task(self._work()))
        return await future

    async def _work(self) -> None:
        while self._waiting:
            # Work whose client has left is dropped before it costs anything.
            batch = [entry for entry in self._waiting[: self._max_batch] if not entry[1].done()]
            del self._waiting[: self._max_batch]
            if not batch:
                continue
            try:
                results = await self._function([item for item, _ in batch])
                answered = list(zip(batch, results, strict=True))
            except Exception as exc:  # noqa: BLE001 - whatever it is, who waits must hear of it
                for _, future in batch:
                    if not future.done():
                        future.set_exception(exc)
            else:
                for (_, future), result in answered:
                    if not future.done():
                        future.set_result(result)


class Batcher(AsyncBatcher[Item, Result]):
    """Calls a blocking function in a thread, one call at a time."""

    def __init__(
        self, function: Callable[[list[Item]], Sequence[Result]], executor: Executor, max_batch: int
    ) -> None:
        async def called(items: list[Item]) -> Sequence[Result]:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(executor, function, items)

        super().__init__(called, max_batch)
