"""Moves the work of a generator into a thread. Knows nothing of what it hands on."""

import queue
import threading
from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")

_STOP_CHECK_S = 0.1


def ahead(items: Generator[T, None, None], size: int) -> Generator[T, None, None]:
    """The same items in the same order, made in a thread while the consumer works.

    At most `size` items wait. What `items` raises is raised here, after the items before it.
    When the consumer stops early, `items` is closed and the thread ends.
    """
    waiting: queue.Queue[T | _End] = queue.Queue(size)
    stopped = threading.Event()

    def put(item: T | _End) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(item, timeout=_STOP_CHECK_S)
            except queue.Full:
                continue
            return True
        return False

    def produce() -> None:
        failure: BaseException | None = None
        try:
            all(put(item) for item in items)
            items.close()
        except BaseException as exc:  # noqa: BLE001  # raised again in the consumer's thread
            failure = exc
        put(_End(failure))

    thread = threading.Thread(target=produce, name="ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := waiting.get(), _End):
            yield item
        if item.failure is not None:
            raise item.failure
    finally:
        stopped.set()
        thread.join()


class _End:
    def __init__(self, failure: BaseException | None) -> None:
        self.failure = failure
