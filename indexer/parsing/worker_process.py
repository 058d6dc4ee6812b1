"""What a process of the workers does: one task after another, within limits. Knows no pool."""

import multiprocessing
import os
import pickle
import resource
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final

import msgspec

from indexer.documents import Content
from indexer.errors import DocumentUnusable

OUT_OF_MEMORY: Final = 77
"""Exit code of a process that needed more memory than it may."""


class Answer(msgspec.Struct, frozen=True):
    """What became of one document."""

    result: Any = None
    reason: str = ""
    """Why there is no result; empty when there is one."""
    last: bool = False
    """Whether the process has ended, because it would keep the memory it needed for this one."""


def serve(
    connection: Connection, task: Callable[[Content], Any], timeout_s: float, memory_mib: int
) -> None:
    """Answers each Content that arrives with an Answer, after a first one that says it is ready."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program, which ends this
    _end_with_program()
    _limit_memory(memory_mib)
    connection.send(Answer())
    _silence()
    resident = _peak_kib()
    while True:
        try:
            content = connection.recv()
        except EOFError:
            return
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        signal.setitimer(signal.ITIMER_REAL, timeout_s + _GRACE_S)
        reply = _answer(task, content)
        signal.setitimer(signal.ITIMER_REAL, 0)
        grown = _peak_kib() - resident > memory_mib * 1024 * _SHARE_KEPT
        _send(connection, Answer(result=reply.result, reason=reply.reason, last=grown))
        if grown:
            return


def _send(connection: Connection, answer: Answer) -> None:
    try:
        connection.send(answer)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except (AttributeError, TypeError, pickle.PicklingError) as exc:  # nothing was sent yet
        connection.send(Answer(reason=_failure(exc), last=answer.last))


def _failure(exc: BaseException) -> str:
    return f"its parser failed: {type(exc).__name__}: {exc}"[:_LONGEST_REASON]


def _answer(task: Callable[[Content], Any], content: Content) -> Answer:
    try:
        return Answer(result=task(content))
    except DocumentUnusable as exc:
        return Answer(reason=str(exc) or "it is unusable")
    except MemoryError:
        os._exit(OUT_OF_MEMORY)  # what was allocated may not be given back otherwise
    except RecursionError:
        return Answer(reason="it is nested too deeply")
    except BaseException as exc:  # noqa: BLE001  # a panic in Rust is no Exception
        return Answer(reason=_failure(exc))


def _end_with_program() -> None:
    """Ends this process when the program that needs its answers is gone.

    A thread sees it at once, unless the parser never lets another thread run; then the timer
    of the task ends the process, as the default of SIGALRM is.
    """
    program = multiprocessing.parent_process()
    if program is not None:
        watch = threading.Thread(target=_exit_after, args=(program.sentinel,), daemon=True)
        watch.start()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _exit_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _limit_memory(memory_mib: int) -> None:
    """Beside what the interpreter and the libraries take up before any document is read."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is expected, and its core is huge
    try:
        pages = int(_MEMORY_OF_THIS_PROCESS.read_text().split()[0])
    except OSError:  # not Linux, where alone the kernel keeps this limit
        return
    limit = pages * resource.getpagesize() + memory_mib * 2**20
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(
        resource.RLIMIT_AS, (limit if most == resource.RLIM_INFINITY else min(limit, most), most)
    )


def _silence() -> None:
    """What libraries print about broken documents is not the run's output."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


_GRACE_S = 5.0
_SHARE_KEPT = 0.5
_LONGEST_REASON = 300
_MEMORY_OF_THIS_PROCESS = Path("/proc/self/statm")
