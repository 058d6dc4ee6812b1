"""Reads documents ahead of who needs them, in threads. Knows nothing of sources or of the index."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from indexer.documents import Content, SourceDocument
from indexer.errors import DocumentUnusable

WAITING_MAX_BYTES = 64 << 20
"""Beyond this no thread reads on, but for the document that is due next."""

Outcome = Content | DocumentUnusable | None


def read_ahead(
    documents: Iterable[SourceDocument],
    known_version: Callable[[SourceDocument], str],
    threads: int = 8,
    ahead: int = 64,
) -> Generator[tuple[SourceDocument, Outcome], None, None]:
    """Each of `documents`, in order, with what reading it gave.

    That is its content, None where it has not changed since its known version, or the
    DocumentUnusable it raised (DocumentGone is one). Other exceptions are raised here, when it is
    their document's turn. At most `ahead` documents wait, and WAITING_MAX_BYTES of contents beside
    what each thread reads at the moment. `documents` and `known_version` are called in the
    consumer's thread alone; when that stops early, the reads that have begun are waited for.
    """
    gate = _Gate(WAITING_MAX_BYTES)
    waiting: deque[tuple[SourceDocument, Future[Outcome]]] = deque()
    executor = ThreadPoolExecutor(threads, thread_name_prefix="read")

    def due() -> tuple[SourceDocument, Outcome]:
        document, future = waiting.popleft()
        outcome = future.result()
        gate.taken(_size(outcome))
        return document, outcome

    try:
        for place, document in enumerate(documents):
            read = executor.submit(_read, document, known_version(document), gate, place)
            waiting.append((document, read))
            while len(waiting) >= ahead or (waiting and waiting[0][1].done()):
                yield due()
        while waiting:
            yield due()
    finally:
        gate.open_for_all()
        executor.shutdown(cancel_futures=True)


class _Gate:
    """Holds reads back while the contents that wait are too large.

    The document that is due next always passes: threads take documents in order, so that it has
    begun before any that is held back, and the consumer never waits for one that waits for it.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._due = 0
        self._is_open = False
        self._changed = threading.Condition()

    def wait(self, place: int) -> bool:
        """Until the document at `place` may be read; False when nobody wants it any more."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_open or place == self._due or self._held_bytes < self._max_bytes
            )
            return not self._is_open

    def holds(self, size: int) -> None:
        with self._changed:
            self._held_bytes += size

    def taken(self, size: int) -> None:
        with self._changed:
            self._held_bytes -= size
            self._due += 1
            self._changed.notify_all()

    def open_for_all(self) -> None:
        with self._changed:
            self._is_open = True
            self._changed.notify_all()


def _read(document: SourceDocument, known_version: str, gate: _Gate, place: int) -> Outcome:
    if not gate.wait(place):
        return None
    try:
        content = document.read(known_version)
    except DocumentUnusable as exc:
        return exc
    gate.holds(_size(content))
    return content


def _size(outcome: Outcome) -> int:
    return len(outcome.data) if isinstance(outcome, Content) else 0
