"""The library of uploads as this gateway sees it: the caller's own, and off the event loop."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

from gateway.access.callers import caller
from gateway.access.permissions import check_may_write
from gateway.batching import Batcher
from gateway.errors import UploadsDisabled, VectorStoreNotFound
from gateway.waiting import QueueBounds
from indexer.index.errors import NotInLibrary
from indexer.index.library import Library

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 16
"""Questions that the library answers at the same time; each may wait for a storage far away."""


class Uploads:
    """What the caller has in the library, if there is one. Here alone it is told whose it is."""

    def __init__(
        self,
        library: Library | None,
        bounds: QueueBounds = QueueBounds(),  # noqa: B008 - immutable
    ) -> None:
        """`bounds` are those of what waits for a thread."""
        self._library = library
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="uploads")
        self._work = Batcher[Callable[[], Any], Any](
            "uploads", _done, self._threads, 1, THREADS, bounds=bounds
        )

    @property
    def are_kept(self) -> bool:
        """Whether there is a library."""
        return self._library is not None

    def check_change(self) -> None:
        """Raises PermissionDenied, and UploadsDisabled where there is no library."""
        check_may_write()
        self._present()

    async def ask(
        self, question: Callable[Concatenate[Library, str, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The answer to `question`, which is given the library and the tenant, and may block.

        It changes nothing that a client sees. Raises UploadsDisabled, VectorStoreNotFound,
        Overloaded, and what else the library raises.
        """
        asked = partial(question, self._present(), caller().tenant, *args, **kwargs)
        try:
            return await self.in_thread(asked)
        except NotInLibrary as exc:
            if exc.kind == "vector store":
                raise store_not_found(exc.identity) from exc
            raise

    async def change(
        self, change: Callable[Concatenate[Library, str, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The same for what does change something. Raises PermissionDenied as well."""
        self.check_change()
        return await self.ask(change, *args, **kwargs)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do `work`, which may block, and to which nobody needs to be told whose it is.

        Raises Overloaded, and what `work` does.
        """
        done: T = await self._work.submit(work)
        return done

    async def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _present(self) -> Library:
        if self._library is None:
            raise UploadsDisabled(
                "This gateway takes no uploads: its setting GROUNDSERVE_LIBRARY_URL names no place "
                "for them. Vector stores that the indexer fills can be read and searched."
            )
        return self._library


def _done(works: list[Callable[[], Any]]) -> list[Any]:
    return [work() for work in works]


def store_not_found(store: str, param: str | None = None) -> VectorStoreNotFound:
    """The error for a vector store that is not there; `param` is what the request names it in."""
    return VectorStoreNotFound(f"No vector store found with id {store[:100]!r}.", param)
