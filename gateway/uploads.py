"""The library of uploads as this gateway sees it: one tenant's, and off the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar

from gateway.errors import UploadsDisabled, VectorStoreNotFound
from indexer.index.errors import NotInLibrary
from indexer.index.library import Library

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 16
"""Questions that the library answers at the same time; each may wait for a storage far away."""


class Uploads:
    """What `tenant` has in the library, if there is one. Here alone it is told whose it is."""

    def __init__(self, library: Library | None, tenant: str) -> None:
        self.tenant = tenant
        self._library = library
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="uploads")

    @property
    def are_kept(self) -> bool:
        """Whether there is a library."""
        return self._library is not None

    def check(self) -> None:
        """Raises UploadsDisabled where there is no library."""
        self._present()

    async def ask(
        self, question: Callable[Concatenate[Library, str, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The answer to `question`, which is given the library and the tenant, and may block.

        Raises UploadsDisabled, VectorStoreNotFound, and what else the library raises.
        """
        asked = partial(question, self._present(), self.tenant, *args, **kwargs)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, asked)
        except NotInLibrary as exc:
            if exc.kind == "vector store":
                raise store_not_found(exc.identity) from exc
            raise

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


def store_not_found(store: str, param: str | None = None) -> VectorStoreNotFound:
    """The error for a vector store that is not there; `param` is what the request names it in."""
    return VectorStoreNotFound(f"No vector store found with id {store[:100]!r}.", param)
