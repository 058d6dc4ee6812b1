"""Turns Ctrl-C, SIGTERM and SIGHUP into one exception, raised when nothing started can be lost."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Somebody wants the script to stop. Not an Exception: no handler of errors must swallow it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class _Interrupts:
    def __init__(self) -> None:
        self.hurry = threading.Event()
        """Set by a second signal: what is being stopped gets no more time."""
        self._deferred = False
        self._stopping = False
        self._pending: int | None = None

    def install(self) -> None:
        """Handle the signals from now on, and those that `block` held back."""
        for signum in _SIGNALS:
            signal.signal(signum, self._handle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def block(self) -> None:
        """Hold signals back until the program that replaces this one calls `install`."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)

    def begin_stopping(self) -> None:
        """From now on a signal raises nothing; it sets `hurry`."""
        self._stopping = True

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Hold back a signal that arrives inside until the end: between a start and its record."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self._pending is not None and not self._stopping:
            raise Interrupted(self._pending)

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        if self._stopping:
            self.hurry.set()
        elif self._deferred:
            self._pending = signum
        else:
            raise Interrupted(signum)


interrupts = _Interrupts()
