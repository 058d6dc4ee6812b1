"""Processes that parse: one bad document costs only itself, and none is left behind."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import pytest

from indexer.documents import Content
from indexer.errors import DocumentUnusable
from indexer.parsing import parse
from indexer.parsing.workers import Workers
from tests.unit.parsing_samples import docx, paragraph, pdf
from tests.unit.parsing_tasks import Broken, act

ROOT = Path(__file__).parents[2]
MEMORY_MIB = 256


def content(text: str) -> Content:
    return Content(data=text.encode(), format=".txt")


def deflated_zeros(mebibytes: int) -> bytes:
    packing = zlib.compressobj(9)
    return b"".join(packing.compress(bytes(2**20)) for _ in range(mebibytes)) + packing.flush()


def gone(process_id: int) -> bool:
    """Whether a process has ended; one that only waits to be asked how has ended too."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def until(condition: Any, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.fixture(scope="module")
def shared() -> Iterator[Workers[object]]:
    with Workers(act, processes=1, timeout_s=20, memory_mib=MEMORY_MIB) as workers:
        yield workers


def test_no_process_starts_before_there_is_work() -> None:
    before = threading.active_count()

    with Workers(act, processes=2, timeout_s=20, memory_mib=MEMORY_MIB):
        assert threading.active_count() == before


def test_a_process_serves_one_document_after_the_other(shared: Workers[object]) -> None:
    ids = {shared.submit(content("id")).result() for _ in range(20)}

    assert len(ids) == 1
    assert os.getpid() not in ids


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("crash", "the parser crashed (signal 11)"),
        ("abort", "the parser gave up (signal 6), perhaps for want of memory"),
        ("exit 3", "the parser ended (exit code 3)"),
        ("exit 0", "the parser ended (exit code 0)"),
        ("allocate 512", "parsing needed more than 256 MiB"),
        ("return 200", "parsing needed more than 256 MiB"),
        ("refuse it is damaged", "it is damaged"),
        ("fail so", "its parser failed: ValueError: so"),
        ("panic so", "its parser failed: _Panic: so"),
        ("recurse", "it is nested too deeply"),
        ("fail " + "x" * 9999, "its parser failed: ValueError: " + "x" * 269),
    ],
)
def test_a_bad_document_is_refused_with_its_reason_and_the_next_is_read(
    text: str, reason: str, shared: Workers[object]
) -> None:
    with pytest.raises(DocumentUnusable) as caught:
        shared.submit(content(text)).result(timeout=20)

    assert str(caught.value) == reason
    assert shared.submit(content("length of this")).result(timeout=20) == 7


@pytest.mark.parametrize("text", ["sleep 60", "spin"])
def test_a_document_that_takes_too_long_is_refused_in_time(text: str) -> None:
    with Workers(act, processes=1, timeout_s=0.3, memory_mib=MEMORY_MIB) as workers:
        hanging = workers.submit(content("id")).result(timeout=20)
        begin = time.monotonic()
        with pytest.raises(DocumentUnusable, match=r"^parsing took longer than 0\.3 s$"):
            workers.submit(content(text)).result(timeout=20)

        assert 0.3 <= time.monotonic() - begin < 10
        assert gone(int(str(hanging)))
        assert workers.submit(content("length of this")).result(timeout=20) == 7


def test_bad_documents_cost_no_others_however_many_there_are() -> None:
    texts = ["crash", "length ok", "exit 1", "length ok", "sleep 60", "length ok"] * 4

    with Workers(act, processes=2, timeout_s=0.5, memory_mib=MEMORY_MIB) as workers:
        futures = [workers.submit(content(text)) for text in texts]
        results = [future.exception(timeout=60) or future.result() for future in futures]

    assert [result == 2 for result in results] == [text == "length ok" for text in texts]


def test_memory_that_was_needed_once_is_given_back(shared: Workers[object]) -> None:
    first = shared.submit(content("id")).result()

    assert shared.submit(content("touch 200")).result() == first
    assert shared.submit(content("id")).result() != first


def test_large_documents_and_large_results_pass(shared: Workers[object]) -> None:
    assert shared.submit(content("length " + "x" * 30_000_000)).result() == 30_000_000
    assert len(str(shared.submit(content("return 30")).result())) == 30 << 20


def test_a_result_that_cannot_be_sent_is_refused(shared: Workers[object]) -> None:
    with pytest.raises(DocumentUnusable, match="its parser failed"):
        shared.submit(content("unpicklable")).result(timeout=20)

    assert shared.submit(content("length of this")).result(timeout=20) == 7


def test_processes_know_the_parsers_and_not_the_encoder(shared: Workers[object]) -> None:
    assert shared.submit(content("loaded indexer.parsing.pdf")).result() is True
    assert shared.submit(content("loaded trafilatura")).result() is True
    assert shared.submit(content("loaded torch")).result() is False
    assert shared.submit(content("loaded pymilvus")).result() is False


def test_a_task_that_cannot_be_made_is_an_error_of_the_program() -> None:
    with (
        Workers(Broken(), processes=1, timeout_s=5, memory_mib=MEMORY_MIB) as workers,
        pytest.raises(RuntimeError, match="a parsing process did not start: exit code 1"),
    ):
        workers.submit(content("x")).result(timeout=20)


def test_closing_ends_processes_in_the_middle_of_a_document() -> None:
    workers = Workers(act, processes=1, timeout_s=60, memory_mib=MEMORY_MIB)
    process_id = int(str(workers.submit(content("id")).result()))
    running: Future[object] = workers.submit(content("spin"))
    waiting = workers.submit(content("id"))
    assert until(running.running)

    begin = time.monotonic()
    workers.close()
    workers.close()

    assert time.monotonic() - begin < 5
    assert gone(process_id)
    for future in (running, waiting):
        with pytest.raises(CancelledError):
            future.result(timeout=5)
    with pytest.raises(RuntimeError):
        workers.submit(content("id"))


@pytest.mark.parametrize("program", ["print warning of a library"], indirect=True)
def test_what_libraries_print_is_not_shown(program: subprocess.Popen[str]) -> None:
    output, errors = program.communicate(timeout=20)

    assert program.returncode == 0
    assert output.strip().count("\n") == 0
    assert "warning" not in output + errors
    assert errors == ""


def test_documents_are_parsed_under_the_limits() -> None:
    with Workers(parse, processes=1, timeout_s=20, memory_mib=MEMORY_MIB) as workers:
        word = Content(data=docx(paragraph("Text")), format=".docx")
        rows = "".join(f'<p id="{n}">{n}</p>' for n in range(300_000))
        huge = Content(data=f"<main>{rows}{rows}</main>".encode(), format=".html")

        assert workers.submit(word).result(timeout=60).text.strip() == "Text"
        bomb = Content(data=pdf(b"", packed=deflated_zeros(mebibytes=400)), format=".pdf")
        for each in (huge, bomb):
            with pytest.raises(DocumentUnusable, match=r"needed more than 256 MiB|want of memory"):
                workers.submit(each).result(timeout=60)


PROGRAM = """
    import sys, time
    from indexer.documents import Content
    from indexer.parsing.workers import Workers
    from tests.unit.parsing_tasks import act

    def content(text):
        return Content(data=text.encode(), format=".txt")

    with Workers(act, processes=2, timeout_s=60, memory_mib=256) as workers:
        first = workers.submit(content("id")).result()
        busy = workers.submit(content(sys.argv[1]))
        time.sleep(0.2)
        print(first, workers.submit(content("id")).result(), flush=True)
        busy.result()
"""


@pytest.fixture
def program(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A program in a process group of its own, as on a terminal, with a busy and an idle worker."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), request.param],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


@pytest.mark.parametrize("program", ["sleep 60"], indirect=True)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_a_program_that_is_killed(
    program: subprocess.Popen[str], how: signal.Signals
) -> None:
    assert program.stdout is not None
    ids = [int(word) for word in program.stdout.readline().split()]

    program.send_signal(how)
    program.wait(timeout=10)

    assert len(set(ids)) == 2
    assert until(lambda: all(map(gone, ids)))
    assert until(lambda: not group(program.pid))


@pytest.mark.parametrize("program", ["sleep 60"], indirect=True)
def test_ctrl_c_ends_everything_with_one_traceback_at_most(
    program: subprocess.Popen[str],
) -> None:
    assert program.stdout is not None
    ids = [int(word) for word in program.stdout.readline().split()]

    os.killpg(program.pid, signal.SIGINT)
    _, errors = program.communicate(timeout=10)

    assert errors.count("Traceback") == 1
    assert errors.strip().endswith("KeyboardInterrupt")
    assert until(lambda: all(map(gone, ids)))
    assert until(lambda: not group(program.pid))


def group(leader: int) -> list[int]:
    """The processes of a group that have not ended."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == leader and fields[0] != "Z":
            members.append(int(stat.parent.name))
    return members
