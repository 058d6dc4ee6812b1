"""What goes on beside the requests, for as long as the gateway does: no error ends it for good."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType

AGAIN_S = 1.0
"""Before something is begun again that has ended with an error that nobody expected."""

_log = logging.getLogger(__name__)


async def kept_going(what: str, work: Callable[[], Awaitable[None]]) -> None:
    """`work` to its end, begun again where an error that nobody expected ends it.

    `what` it is stands in the log then.
    """
    while True:
        with Surviving(what):
            await work()
            return
        await asyncio.sleep(AGAIN_S)


class Surviving:
    """Logs an error that nobody expected and that ends the block; it goes on behind that.

    A library may cancel what waits for it, as grpc does with calls on a channel that is closed:
    that is such an error too, where nobody has cancelled the task.
    """

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        """There is nothing to begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Whether it goes on."""
        if isinstance(failure, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is None or task.cancelling():
                return False
        elif not isinstance(failure, Exception):
            return False
        _log.error("%s goes on after an error that nobody expected", self._what, exc_info=failure)
        return True
