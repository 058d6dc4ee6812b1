"""What people are shown on stderr while a command works: a bar, or a line now and then in a log."""

import threading
import time
from collections.abc import Iterable
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from indexer.errors import SourceUnusable

SECONDS_BETWEEN_LINES = 10.0
"""In a log, where there is no terminal, progress is a line this often."""


class DocumentProgress:
    """A bar on a terminal, a line now and then in a log."""

    def __init__(self, console: Console, verb: str) -> None:
        self._console = console
        self._verb = verb
        self._done = 0
        self._started = self._last_line = time.monotonic()
        self._total: int | None = None
        self._counting: threading.Thread | None = None
        self._stopped = threading.Event()
        self._bar = Progress(
            TextColumn(verb),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, rate="")

    def __enter__(self) -> Self:
        """Show it."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take it away."""
        self._stop_counting()
        self._bar.stop()

    def begin(self, expected: Iterable[object] | None) -> None:
        """Count from zero. `expected` is counted in a thread, to know the time that is left.

        It is None where the documents cannot be listed twice at no cost.
        """
        self._stop_counting()
        self._done, self._total = 0, None
        self._started = self._last_line = time.monotonic()
        if expected is not None:
            self._stopped.clear()
            self._counting = threading.Thread(
                target=self._count, args=[expected], name="count", daemon=True
            )
            self._counting.start()

    def _count(self, expected: Iterable[object]) -> None:
        total = 0
        try:
            for _ in expected:
                if self._stopped.is_set():
                    return
                total += 1
        except SourceUnusable:
            return  # the run itself meets it and says so
        self._total = total
        self._bar.update(self._task, total=total)

    def _stop_counting(self) -> None:
        self._stopped.set()
        if self._counting is not None:
            self._counting.join()
            self._counting = None

    def on_document(self, name: str) -> None:
        """Count a document that is done."""
        self._done += 1
        now = time.monotonic()
        rate = f"{self._done / max(now - self._started, 0.001):.1f}/s"
        if self._console.is_terminal:
            self._bar.update(
                self._task, completed=self._done, total=self._total, description=name, rate=rate
            )
        elif now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            line = f"{self._verb}: {self._done}{self._of_total()} documents, {rate} ({name})"
            self._console.out(line, highlight=False)

    def _of_total(self) -> str:
        return "" if self._total is None else f" of {self._total}"
