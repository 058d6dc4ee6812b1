"""Documents are read ahead in order, within bounds, and the reading ends when nobody needs it."""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from indexer.documents import Content
from indexer.errors import DocumentGone, DocumentUnusable
from indexer.sources import reading
from indexer.sources.reading import read_ahead


class FakeDocument:
    """Counts how many of its kind are read at once."""

    def __init__(self, name: str, read: Callable[[str], Content | None]) -> None:
        self.name = self.uri = name
        self.tenant = "t"
        self.is_read = False
        self._read = read

    def read(self, known_version: str = "") -> Content | None:
        content = self._read(known_version)
        self.is_read = True
        return content


def content(data: bytes = b"x") -> Content:
    return Content(data=data, format=".txt")


def given(each: Content, _: str) -> Content:
    return each


def no_version(_: object) -> str:
    return ""


def reads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("read")]


def raising(error: Exception) -> Callable[[str], Content | None]:
    def read(_: str) -> Content | None:
        raise error

    return read


def test_results_come_in_the_order_of_the_listing() -> None:
    def slow_first(number: int) -> Callable[[str], Content]:
        def read(_: str) -> Content:
            time.sleep(0.05 if number % 5 == 0 else 0)
            return content(str(number).encode())

        return read

    documents = [FakeDocument(str(number), slow_first(number)) for number in range(40)]

    found = list(read_ahead(documents, no_version, threads=4, ahead=8))

    assert [document.name for document, _ in found] == [str(number) for number in range(40)]
    assert [each.data.decode() for _, each in found if isinstance(each, Content)] == [
        str(number) for number in range(40)
    ]
    assert reads() == []


def test_documents_are_read_at_the_same_time() -> None:
    together = threading.Barrier(4, timeout=5)

    def read(_: str) -> Content:
        together.wait()
        return content()

    documents = [FakeDocument(str(number), read) for number in range(4)]

    assert len(list(read_ahead(documents, no_version, threads=4))) == 4


def test_known_versions_are_shown_and_errors_are_values() -> None:
    gone, unusable = DocumentGone("gone"), DocumentUnusable("broken")
    documents = [
        FakeDocument("same", lambda version: None if version == "v-same" else content()),
        FakeDocument("gone", raising(gone)),
        FakeDocument("broken", raising(unusable)),
        FakeDocument("other", lambda version: content(version.encode())),
    ]

    found = [each for _, each in read_ahead(documents, lambda document: f"v-{document.name}")]

    assert found == [None, gone, unusable, content(b"v-other")]


def test_an_unexpected_error_is_raised_in_its_turn() -> None:
    documents = [
        FakeDocument("a", lambda _: content()),
        FakeDocument("b", raising(ZeroDivisionError())),
        FakeDocument("c", lambda _: content()),
    ]
    found = read_ahead(documents, no_version)

    assert next(found)[0].name == "a"
    with pytest.raises(ZeroDivisionError):
        next(found)
    assert reads() == []


def test_no_more_is_listed_than_is_read_ahead() -> None:
    listed = []
    release = threading.Event()

    def read(_: str) -> Content:
        release.wait(5)
        return content()

    def listing() -> Iterator[FakeDocument]:
        for number in range(100):
            listed.append(number)
            if number == 7:
                release.set()
            yield FakeDocument(str(number), read)

    found = read_ahead(listing(), no_version, threads=2, ahead=8)
    next(found)

    assert len(listed) == 8
    assert len(list(found)) == 99


def test_a_first_result_does_not_wait_for_a_slow_listing() -> None:
    def listing() -> Iterator[FakeDocument]:
        first = FakeDocument("first", lambda _: content())
        yield first
        while not first.is_read:
            time.sleep(0.01)
        time.sleep(0.05)
        yield FakeDocument("second", lambda _: content())
        raise AssertionError("the first result was not asked for until now")

    assert next(read_ahead(listing(), no_version))[0].name == "first"


def all_listed_first(count: int) -> tuple[list[FakeDocument], Iterator[FakeDocument]]:
    """Documents of 60 bytes, and a listing whose first one is read when all are listed."""
    listed = threading.Event()

    def read_late(_: str) -> Content:
        listed.wait(5)
        return content(b"x" * 60)

    documents = [FakeDocument("0", read_late)]
    documents += [FakeDocument(str(each), lambda _: content(b"x" * 60)) for each in range(1, count)]

    def listing() -> Iterator[FakeDocument]:
        yield from documents
        time.sleep(0.1)  # in which the threads read as far as they may
        listed.set()

    return documents, listing()


def test_large_contents_hold_the_reading_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "WAITING_MAX_BYTES", 100)
    documents, listing = all_listed_first(30)
    found = read_ahead(listing, no_version, threads=2, ahead=40)

    next(found)

    # Two that wait reach the limit; when the first is taken, one more may have begun.
    assert sum(document.is_read for document in documents) <= 4
    assert len(list(found)) == 29
    assert all(document.is_read for document in documents)


def test_one_content_above_the_limit_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "WAITING_MAX_BYTES", 10)
    sizes = [1, 1000, 1000] * 20
    contents = [content(b"x" * size) for size in sizes]
    documents = [FakeDocument("x", partial(given, each)) for each in contents]

    assert len(list(read_ahead(documents, no_version, threads=8, ahead=16))) == 60


def test_a_consumer_that_stops_early_leaves_no_thread_and_no_read_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "WAITING_MAX_BYTES", 10)
    documents, listing = all_listed_first(30)
    found = read_ahead(listing, no_version, threads=4, ahead=40)

    next(found)
    found.close()

    assert reads() == []
    assert sum(document.is_read for document in documents) < 10


def test_what_the_listing_raises_is_raised() -> None:
    def listing() -> Iterator[FakeDocument]:
        yield FakeDocument("a", lambda _: content())
        raise DocumentUnusable("listing")

    with pytest.raises(DocumentUnusable, match="listing"):
        list(read_ahead(listing(), no_version))
    assert reads() == []
