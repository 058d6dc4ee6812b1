"""Runs a task on documents in processes of its own. Knows processes, not what the task does.

A document may make its parser hang, crash, or fill the memory. Each process serves one document
at a time over a pipe of its own, so that such an end concerns that document and nothing else.
The pools of pebble and of the standard library share a pipe and its locks among their workers:
one that dies at the wrong moment takes other documents with it, or is waited for for ever.

Processes come from a fork server that has imported the parsers: one that ended is replaced in
milliseconds, and none inherits the threads and libraries of the program.
"""

import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from indexer.documents import Content
from indexer.errors import DocumentUnusable
from indexer.parsing import FORMATS
from indexer.parsing.worker_process import OUT_OF_MEMORY, Answer, serve

T = TypeVar("T")


class Workers(Generic[T]):
    """Up to `processes` processes that run `task`; each starts when there is work for it.

    `task` is pickled once for each process: a function of a module, or an object whose class
    is one's. A process may take `memory_mib` of memory beside what it has when it starts.
    Modules named in `preload` are imported once for all processes, as the parsers are.
    """

    def __init__(
        self,
        task: Callable[[Content], T],
        *,
        processes: int,
        timeout_s: float,
        memory_mib: int,
        preload: Sequence[str] = (),
    ) -> None:
        self._task = task
        self._timeout_s = timeout_s
        self._memory_mib = memory_mib
        self._preload = [*_PARSERS, *preload]
        self._threads = ThreadPoolExecutor(processes, "parsing")
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._alive: set[_Process] = set()
        self._closed = threading.Event()

    def submit(self, content: Content) -> "Future[T]":
        """What `task` makes of `content`, once it is done.

        `result()` raises DocumentUnusable when the task does, and when it fails in any other
        way, crashes, or needs more time or memory than it may; CancelledError after `close`;
        RuntimeError when no process can be started.
        """
        return self._threads.submit(self._run, content)

    def close(self) -> None:
        """Ends all processes at once, whatever they are doing. May be called again."""
        with self._lock:
            self._closed.set()
            alive = [*self._alive]
        for process in alive:
            process.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for process in alive:
            self._end(process)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes it."""
        self.close()

    def _run(self, content: Content) -> T:
        process = self._take()
        try:
            answer = process.ask(content, self._timeout_s)
        except TimeoutError:
            process.kill()
            self._end(process)
            raise DocumentUnusable(f"parsing took longer than {self._timeout_s:g} s") from None
        except (EOFError, OSError):
            exit_code = self._end(process)
            if self._closed.is_set():
                raise CancelledError from None
            raise DocumentUnusable(self._cause_of_death(exit_code)) from None
        if answer.last:
            self._end(process)
        else:
            with self._lock:
                self._idle.append(process)
        if answer.reason:
            raise DocumentUnusable(answer.reason)
        return cast("T", answer.result)

    def _take(self) -> "_Process":
        with self._lock:
            if self._closed.is_set():
                raise CancelledError
            if self._idle:
                return self._idle.pop()
        process = _Process(self._task, self._timeout_s, self._memory_mib, self._preload)
        with self._lock:
            self._alive.add(process)
            closed = self._closed.is_set()
        if closed:
            self._end(process)
            raise CancelledError
        return process

    def _end(self, process: "_Process") -> int:
        with self._lock:
            self._alive.discard(process)
        return process.end()

    def _cause_of_death(self, exit_code: int) -> str:
        if exit_code == OUT_OF_MEMORY:
            return f"parsing needed more than {self._memory_mib} MiB"
        if exit_code == -signal.SIGABRT:
            return f"the parser gave up (signal {-exit_code}), perhaps for want of memory"
        if exit_code < 0:
            return f"the parser crashed (signal {-exit_code})"
        return f"the parser ended (exit code {exit_code})"


class _Process:
    """A process with its end of the pipe. Not for several threads at once, but for `kill`."""

    _starting_and_ending = threading.Lock()
    """Starting a process asks all others whether they ended: only one may ask at a time."""

    def __init__(
        self,
        task: Callable[[Content], Any],
        timeout_s: float,
        memory_mib: int,
        preload: Sequence[str],
    ) -> None:
        """Raises RuntimeError when it does not start."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([*preload])
        self._pipe, far_end = context.Pipe()
        self._process = context.Process(
            target=serve, args=(far_end, task, timeout_s, memory_mib), daemon=True, name="parser"
        )
        with self._starting_and_ending, _no_interrupt(), far_end:
            self._process.start()
        try:
            ready = self._pipe.poll(_STARTS_WITHIN_S) and self._pipe.recv()
        except (EOFError, OSError):
            ready = False
        if not ready:
            raise RuntimeError(f"a parsing process did not start: exit code {self.end()}")

    def ask(self, content: Content, timeout_s: float) -> Answer:
        """Raises TimeoutError when it does not answer in time, EOFError when it dies."""
        self._pipe.send(content)
        if not self._pipe.poll(timeout_s):
            raise TimeoutError
        answer: Answer = self._pipe.recv()
        return answer

    def kill(self) -> None:
        """Whoever waits for its answer gets EOFError."""
        with self._starting_and_ending, contextlib.suppress(ValueError):  # it has ended
            self._process.kill()

    def end(self) -> int:
        """Its exit code, negative for the signal that ended it. Only the first call tells."""
        with self._starting_and_ending, contextlib.suppress(ValueError):  # it has ended
            self._pipe.close()
            self._process.join(_ENDS_WITHIN_S)
            if self._process.exitcode is None:
                self._process.kill()
                self._process.join()
            exit_code = self._process.exitcode
            self._process.close()
            return exit_code or 0
        return 0


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """Ctrl-C reaches every process of the terminal; what is started here never hears of it.

    Otherwise it could interrupt the fork server, or a process between its start and its first
    line, with a traceback on the terminal.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_STARTS_WITHIN_S = 60.0
_ENDS_WITHIN_S = 0.5
_PARSERS = sorted({f"indexer.parsing.{module}" for module in FORMATS.values()})
