"""deploy/index-loop, the schedule of the indexer in a container."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INDEX_LOOP = ROOT / "deploy" / "index-loop"

StartLoop = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def start_loop(tmp_path: Path) -> Iterator[StartLoop]:
    """Starts the loop with a program in the place of python, given as lines of shell."""
    with ExitStack() as loops:

        def start(program: str) -> subprocess.Popen[str]:
            python = tmp_path / "python"
            python.write_text(f'#!/bin/sh\necho "run $*"\n{program}\n')
            python.chmod(0o755)
            path = f"{tmp_path}:{os.environ['PATH']}"
            loop = subprocess.Popen(
                [INDEX_LOOP, "run", "/documents"],
                env={"PATH": path, "TMPDIR": str(tmp_path), "INDEX_INTERVAL_S": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            loops.enter_context(loop)
            loops.callback(loop.kill)
            return loop

        yield start


def lines(loop: subprocess.Popen[str], count: int) -> list[str]:
    assert loop.stdout is not None
    return [loop.stdout.readline().rstrip("\n") for _ in range(count)]


def test_a_failed_run_is_told_and_the_next_one_comes(start_loop: StartLoop, tmp_path: Path) -> None:
    loop = start_loop("exit 3")

    assert lines(loop, 3) == [
        "run -m indexer run /documents",
        "error: this run ended with exit code 3; the next starts in 1 s",
        "run -m indexer run /documents",
    ]
    assert (tmp_path / "index-failed").exists()


def test_the_service_is_unhealthy_where_the_loop_notes_a_failure() -> None:
    assert '"!", "-e", "/tmp/index-failed"' in (ROOT / "compose.yaml").read_text()


@pytest.mark.parametrize("code", [0, 4, 5])
def test_a_finished_run_ends_the_failure(code: int, start_loop: StartLoop, tmp_path: Path) -> None:
    (tmp_path / "index-failed").touch()

    loop = start_loop(f"exit {code}")

    assert lines(loop, 2) == ["run -m indexer run /documents"] * 2
    assert not (tmp_path / "index-failed").exists()


def test_stopping_it_ends_a_run_at_once(start_loop: StartLoop) -> None:
    loop = start_loop("exec sleep 60")
    lines(loop, 1)

    started = time.monotonic()
    loop.send_signal(signal.SIGTERM)

    assert lines(loop, 1) == [""], "the output ends only when the run is gone too"
    assert loop.wait(timeout=10) == 0
    assert time.monotonic() - started < 20


def test_stopping_it_ends_a_pause_at_once(start_loop: StartLoop) -> None:
    loop = start_loop("exit 3")
    lines(loop, 2)

    loop.send_signal(signal.SIGTERM)

    assert lines(loop, 1) == [""]
    assert loop.wait(timeout=10) == 0


@pytest.mark.parametrize("interval", ["", "0", "1h", "-1"])
def test_an_interval_that_is_none_is_refused(interval: str) -> None:
    ended = subprocess.run(
        [INDEX_LOOP, "run"],
        env={"PATH": os.environ["PATH"], "INDEX_INTERVAL_S": interval},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 2
    assert "INDEX_INTERVAL_S" in ended.stderr
