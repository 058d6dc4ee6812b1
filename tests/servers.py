"""What may happen to a server of a test: it is killed, stopped without a word, or started again."""

import os
import signal
import time
from collections.abc import Callable

from stack.servers import Server


def kill(server: Server) -> None:
    """As the kernel does where memory ends, with all that it started."""
    _signal(server, signal.SIGKILL)
    assert server.process is not None
    server.process.wait()


def pause(server: Server) -> None:
    """It keeps its connections, and says nothing any more."""
    _signal(server, signal.SIGSTOP)


def resume(server: Server) -> None:
    """After a pause."""
    _signal(server, signal.SIGCONT)


def start_again(server: Server) -> float:
    """Start it after its end; the moment at which it took connections, in monotonic seconds."""
    server.stop()
    server.start()
    ends = time.monotonic() + server.ready_timeout_s
    while server.probe() is not None:
        server.check_alive()
        assert time.monotonic() < ends
        time.sleep(0.02)
    return time.monotonic()


def wait_until(condition: Callable[[], bool], timeout_s: float = 60) -> float:
    """Wait for it; the seconds that it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout_s, "it did not happen in time"
        time.sleep(0.02)
    return time.monotonic() - started


def _signal(server: Server, number: int) -> None:
    assert server.process is not None
    os.killpg(server.process.pid, number)
