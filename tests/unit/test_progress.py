"""What people see while a command works."""

import io
import threading
from collections.abc import Iterator

import pytest
from rich.console import Console

from indexer import progress
from indexer.errors import SourceUnusable
from indexer.progress import DocumentProgress


@pytest.fixture
def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Console:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    return Console(file=io.StringIO(), force_terminal=False)


def _told(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _counted(shown: DocumentProgress) -> None:
    assert shown._counting is not None
    shown._counting.join(10)


def test_a_terminal_is_told_how_many_are_done_of_how_many(terminal: Console) -> None:
    with DocumentProgress(terminal, "indexing") as shown:
        shown.begin(range(4))
        _counted(shown)
        shown.on_document("a.md")
        shown._bar.refresh()

    assert "1/4" in _told(terminal)
    assert "/s" in _told(terminal)
    assert "left" in _told(terminal)


def test_a_log_gets_lines_and_no_bar(log: Console) -> None:
    with DocumentProgress(log, "indexing") as shown:
        shown.begin(None)
        shown.on_document("a.md")

    [line] = _told(log).splitlines()
    assert line.startswith("indexing: 1 documents, ")
    assert line.endswith("/s (a.md)")


def test_lines_in_a_log_keep_their_distance(log: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 3600.0)
    with DocumentProgress(log, "indexing") as shown:
        for number in range(100):
            shown.on_document(str(number))

    assert _told(log) == ""


def test_what_begins_anew_counts_from_zero(log: Console) -> None:
    with DocumentProgress(log, "repairing") as shown:
        for _ in range(2):
            shown.begin(range(1))
            _counted(shown)
            shown.on_document("a.md")

    assert [line.split(",")[0] for line in _told(log).splitlines()] == [
        "repairing: 1 of 1 documents"
    ] * 2


def test_sources_that_cannot_be_listed_leave_the_number_open(log: Console) -> None:
    def listed() -> Iterator[int]:
        yield 1
        raise SourceUnusable("the folder went away")

    with DocumentProgress(log, "indexing") as shown:
        shown.begin(listed())
        _counted(shown)
        shown.on_document("a.md")

    assert _told(log).startswith("indexing: 1 documents, ")


def test_counting_ends_with_the_command(terminal: Console) -> None:
    went_on = threading.Event()

    def endless() -> Iterator[int]:
        while True:
            went_on.set()
            yield 1

    with DocumentProgress(terminal, "indexing") as shown:
        shown.begin(endless())
        assert went_on.wait(10)

    assert "count" not in [thread.name for thread in threading.enumerate()]
