"""Puts what waits at the same time into one call. Knows nothing of what is called."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Calls a blocking function of many items in a thread, one call at a time.

    An item that finds the thread idle goes at once; items that come meanwhile go together in
    the next call. Nobody waits for company.
    """

    def __init__(
        self, function: Callable[[list[Item]], Sequence[Result]], executor: Executor, max_batch: int
    ) -> None:
        self._function = function
        self._executor = executor
        self._max_batch = max_batch
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Result:
        """The result for `item`. Raises what the function raised for the call that held it."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            # Work whose client has left is dropped before it costs anything.
            batch = [entry for entry in self._waiting[: self._max_batch] if not entry[1].done()]
            del self._waiting[: self._max_batch]
            if not batch:
                continue
            try:
                results = await loop.run_in_executor(
                    self._executor, self._function, [item for item, _ in batch]
                )
                answered = list(zip(batch, results, strict=True))
            except Exception as exc:  # noqa: BLE001 - whatever it is, who waits must hear of it
                for _, future in batch:
                    if not future.done():
                        future.set_exception(exc)
            else:
                for (_, future), result in answered:
                    if not future.done():
                        future.set_result(result)
