"""Loads a model in a thread, again and again until it is there. Knows no model."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from indexer.index.errors import EncoderUnavailable

AGAIN_S = 5.0
"""Until it is tried again: a hub may have been away, or a folder not there yet."""

Model = TypeVar("Model")
_log = logging.getLogger(__name__)


async def loaded(
    load: Callable[[], Model], thread: Executor, told: Callable[[EncoderUnavailable], None]
) -> Model:
    """What `load` gives in `thread`, tried until it does.

    `told` hears of each failure; the log has it where its reason is another than before.
    """
    reason = ""
    while True:
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, load)
        except EncoderUnavailable as exc:
            told(exc)
            if str(exc) != reason:
                reason = str(exc)
                _log.error("%s; it is tried again every %g s", reason, AGAIN_S)
        await asyncio.sleep(AGAIN_S)
