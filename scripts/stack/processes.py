"""Starts programs in process groups of their own, and stops a group with all that it started.

A group of its own also keeps Ctrl-C on a terminal away from a program: who stops when is decided
here.
"""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from stack.interrupts import interrupts

_POLL_S = 0.1


def clean_environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """This program's environment without what would make another Python load other modules."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PYTHONHOME")
    }
    return kept | dict(changes or {})


def keep_loopback_direct() -> None:
    """Keep what goes to 127.0.0.1 away from proxies, here and in all that is started later."""
    for name in ("NO_PROXY", "no_proxy"):
        hosts = os.environ.get(name, "")
        os.environ[name] = ",".join(host for host in (hosts, "127.0.0.1", "localhost") if host)


def start(
    command: Sequence[str], log: Path | None, environment: Mapping[str, str], folder: Path
) -> subprocess.Popen[bytes]:
    """Start `command` in `folder`; its output replaces the file `log`, or goes where ours goes."""
    with interrupts.deferred():
        if log is None:
            return _popen(command, None, environment, folder)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            return _popen(command, output.fileno(), environment, folder)


def _popen(
    command: Sequence[str], output: int | None, environment: Mapping[str, str], folder: Path
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        env=environment,
        cwd=folder,
        start_new_session=True,
    )


def run(
    command: Sequence[str],
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path = Path("/"),
) -> int:
    """Run `command` to its end and return its exit code; an interrupt stops it first."""
    process = start(
        command, log, clean_environment() if environment is None else environment, folder
    )
    try:
        return process.wait()
    finally:
        if process.returncode is None:
            stop_groups({process: 5.0})


def group_lives(process: subprocess.Popen[bytes]) -> bool:
    """Whether the program, or anything it started and left behind, still runs."""
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def stop_groups(grace_s: Mapping[subprocess.Popen[bytes], float]) -> None:
    """Send SIGTERM to the groups of all these programs at once, SIGKILL to what outlives its grace.

    Values are seconds. Returns when all of it is gone. A second Ctrl-C (`interrupts.hurry`) ends
    the grace at once.
    """
    began = time.monotonic()
    living = {process for process in grace_s if group_lives(process)}
    for process in living:
        _signal(process, signal.SIGTERM)
    while living := {process for process in living if group_lives(process)}:
        for process in living:
            if time.monotonic() - began > grace_s[process] or interrupts.hurry.is_set():
                _signal(process, signal.SIGKILL)
        time.sleep(_POLL_S)


def _signal(process: subprocess.Popen[bytes], signum: signal.Signals) -> None:
    try:
        os.killpg(process.pid, signum)
    except ProcessLookupError:
        return


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log file; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 64 * 1024))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])
