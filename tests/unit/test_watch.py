"""The indexer waits for uploads: what it looks at, what it outlives, and what it tells."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import indexer.__main__ as command_line
from indexer.index.embedding import Encoder
from indexer.index.errors import IndexUnavailable, LeaseHeld, LibraryUnavailable
from indexer.index.library import ExpiresAfter, Library, Marker, VectorStore
from indexer.uploads.indexing import Indexing
from indexer.uploads.means import Processed
from indexer.uploads.watch import Watch
from tests.unit.index_fakes import FakeEncoder
from tests.unit.upload_fakes import (
    TENANT,
    Stack,
    StoreWriter,
    UploadsInThisProcess,
    add_file,
    add_store,
    aged,
    attached,
)


class Ended(BaseException):
    """What ends a watch that would go on for ever."""


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(str(tmp_path / "library"))


@pytest.fixture
def stack(library: Library) -> Stack:
    return Stack(library)


class Watched:
    """A watch whose pauses are the test's: `rounds` is called, one after the other, in them."""

    def __init__(self, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[Processed] = []
        self.complaints: list[str] = []
        self.now = time.monotonic()
        self._monkeypatch = monkeypatch
        self._watch = Watch(
            stack.library, Indexing(stack.means), self.told.append, self.complaints.append
        )

    def once(self) -> list[str]:
        self.told.clear()
        self._watch.once()
        return [each.vector_store for each in self.told]

    def forever(self, *rounds: Callable[[], Any]) -> None:
        waiting = iter(rounds)

        def pause(_: float) -> None:
            for act in waiting:
                act()
                return
            raise Ended

        clock = SimpleNamespace(sleep=pause, monotonic=lambda: self.now, time=time.time)
        self._monkeypatch.setattr("indexer.uploads.watch.time", clock)
        with pytest.raises(Ended):
            self._watch.forever(1.0)

    def let_pass(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def watched(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(stack, monkeypatch)


def test_once_brings_every_store_of_every_tenant_up_to_date(
    library: Library, stack: Stack, watched: Watched
) -> None:
    mine, theirs, empty = add_store(library), add_store(library, tenant="b"), add_store(library)
    attached(library, mine, "mine", "1.txt")
    library.attach("b", theirs.id, add_file(library, "theirs", "2.txt", tenant="b"), {})

    assert set(watched.once()) == {mine.id, theirs.id}
    assert stack.writers[theirs.id].texts() == ["theirs"]
    assert library.pending() == []
    assert empty.id not in stack.writers


def test_what_a_dead_gateway_left_without_a_marker_is_found(
    library: Library, watched: Watched, stack: Stack
) -> None:
    store = add_store(library)

    def change_without_marker() -> None:
        attached(library, store, "text", "1.txt")
        library.clear(library.pending())

    watched.forever(change_without_marker, lambda: None, lambda: watched.let_pass(60))
    assert stack.writers[store.id].texts() == ["text"]
    assert len(watched.told) == 1


def test_a_marked_store_is_indexed_at_once_and_no_other_is_looked_at(
    library: Library, watched: Watched
) -> None:
    first, second = add_store(library), add_store(library)
    attached(library, first, "1", "1.txt")
    attached(library, second, "2", "2.txt")
    watched.forever(
        watched.told.clear, lambda: attached(library, first, "3", "3.txt"), lambda: None
    )

    assert [(each.vector_store, each.completed) for each in watched.told] == [(first.id, 2)]


def test_a_change_during_a_pass_is_not_lost(
    library: Library, stack: Stack, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = add_store(library)
    attached(library, store, "first", "1.txt")
    process = Indexing.process

    def changed_meanwhile(self: Indexing, tenant: str, store_id: str) -> Processed | None:
        processed = process(self, tenant, store_id)
        if len(library.members(TENANT, store.id)) == 1:
            attached(library, store, "second", "2.txt")
        return processed

    monkeypatch.setattr(Indexing, "process", changed_meanwhile)
    watched.forever(lambda: None)
    assert sorted(stack.writers[store.id].texts()) == ["first", "second"]
    assert library.pending() == []


def test_an_index_that_milvus_lost_is_made_again_at_start(
    library: Library, stack: Stack, watched: Watched
) -> None:
    store = add_store(library)
    attached(library, store, "text", "1.txt")
    watched.once()
    stack.writers[store.id] = StoreWriter()
    watched.once()

    assert stack.writers[store.id].texts() == ["text"]


def test_a_held_lease_keeps_no_other_store_waiting(
    library: Library, stack: Stack, watched: Watched
) -> None:
    held, free = add_store(library), add_store(library)
    attached(library, held, "held", "1.txt")
    attached(library, free, "free", "2.txt")
    stack.writers[held.id].failure = LeaseHeld("another run has the lease")

    def released() -> None:
        assert stack.writers[free.id].texts() == ["free"]
        assert {marker.store_id for marker in library.pending()} == {held.id}
        stack.writers[held.id].failure = None

    watched.forever(
        lambda: None, lambda: watched.let_pass(6), released, lambda: watched.let_pass(6)
    )
    assert watched.complaints == [f"{held.id}: another run has the lease"]
    assert stack.writers[held.id].texts() == ["held"]
    assert library.pending() == []


def test_once_raises_what_kept_a_store_when_all_others_are_done(
    library: Library, stack: Stack, watched: Watched
) -> None:
    stores = [add_store(library) for _ in range(3)]
    for number, store in enumerate(stores):
        attached(library, store, str(number), "a.txt")
    stack.writers[stores[0].id].failure = LeaseHeld("another run has the lease")

    with pytest.raises(LeaseHeld):
        watched.once()
    assert [each.completed for each in watched.told] == [1, 1]


@pytest.mark.parametrize("failure", [RuntimeError("no process"), MemoryError(), KeyError("x")])
def test_a_store_that_fails_unexpectedly_keeps_no_other_waiting(
    library: Library, stack: Stack, watched: Watched, failure: Exception
) -> None:
    failing, other = add_store(library), add_store(library)
    attached(library, failing, "failing", "1.txt")
    attached(library, other, "other", "2.txt")
    stack.writers[failing.id].failure = failure
    watched.forever(lambda: None)

    assert [each.vector_store for each in watched.told] == [other.id]
    assert len(watched.complaints) == 1


def test_milvus_away_is_outlived_and_told_once(
    library: Library, stack: Stack, watched: Watched
) -> None:
    store = add_store(library)
    attached(library, store, "text", "1.txt")
    stack.writers[store.id].failure = IndexUnavailable("Milvus is away")

    def back() -> None:
        stack.writers[store.id].failure = None

    watched.forever(lambda: None, lambda: None, back)
    assert watched.complaints == ["Milvus is away; it is tried until it works"]
    assert stack.writers[store.id].texts() == ["text"]


def test_the_storage_away_is_outlived(
    library: Library, stack: Stack, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = add_store(library)
    attached(library, store, "text", "1.txt")
    pending = library.pending

    def away() -> list[Marker]:
        raise LibraryUnavailable("the storage is away")

    monkeypatch.setattr(library, "pending", away)
    watched.forever(lambda: None, lambda: monkeypatch.setattr(library, "pending", pending))
    assert len(watched.complaints) == 1
    assert stack.writers[store.id].texts() == ["text"]


def test_what_has_expired_is_deleted(library: Library, stack: Stack, watched: Watched) -> None:
    expired = add_store(library, expires_after=ExpiresAfter(days=1))
    used = add_store(library, expires_after=ExpiresAfter(days=1))
    past = add_file(library, "past", expires_at=int(time.time()) - 1)
    future = add_file(library, "future", expires_at=int(time.time()) + 1000)
    for store in (expired, used):
        library.attach_all(TENANT, store.id, [(past, {}), (future, {})])
    watched.once()
    aged(library, expired, 86_401)
    watched.once()

    assert [store.id for store in library.stores(TENANT)] == [used.id]
    assert [file.id for file in library.files(TENANT)] == [future]
    assert stack.writers[used.id].texts() == ["future"]
    assert stack.writers[expired.id].calls[-1] == "remove"


def test_two_watchers_at_once_converge(library: Library, tmp_path: Path) -> None:
    stacks = [Stack(library), Stack(Library(str(tmp_path / "library")))]
    stacks[1].writers = stacks[0].writers
    stores = [add_store(library) for _ in range(4)]
    for store in stores:
        attached(library, store, "text", "1.txt")
        stacks[0].writers[store.id].lease = _one_at_a_time(  # type: ignore[method-assign]
            stacks[0].writers[store.id]
        )

    def run(stack: Stack) -> None:
        told: list[Processed] = []
        for _ in range(5):
            try:
                Watch(stack.library, Indexing(stack.means), told.append, print).once()
            except LeaseHeld:
                continue
            return

    threads = [threading.Thread(target=run, args=[stack]) for stack in stacks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(stacks[0].writers[store.id].texts() == ["text"] for store in stores)
    assert library.pending() == []


def _one_at_a_time(writer: StoreWriter) -> Any:
    lock, lease = threading.Lock(), writer.lease

    @contextmanager
    def held(duration_s: float) -> Any:
        if not lock.acquire(blocking=False):
            raise LeaseHeld("another run has the lease")
        try:
            with lease(duration_s) as given:
                yield given
        finally:
            lock.release()

    return held


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, stack: Stack, tmp_path: Path) -> Callable[..., int]:
    """`watch` as the command line puts it together, with fakes of Milvus and the model."""

    @contextmanager
    def workers(task: Any, **_: Any) -> Any:
        yield UploadsInThisProcess(task._settings)

    monkeypatch.setattr(
        command_line, "IndexWriter", lambda settings: stack.writers[settings.knowledge_base]
    )
    monkeypatch.setattr(command_line, "Workers", workers)
    monkeypatch.setattr(Encoder, "load", lambda _, **__: FakeEncoder())
    return lambda *flags: command_line.main(
        ["watch", "--once", f"--library-url={tmp_path}/library", *flags]
    )


@pytest.fixture
def store(library: Library) -> VectorStore:
    return add_store(library)


def test_the_command_tells_of_each_store_in_a_line(
    command: Callable[..., int],
    library: Library,
    store: VectorStore,
    capsys: pytest.CaptureFixture[str],
) -> None:
    attached(library, store, "text", "1.txt")
    assert command() == 0
    told = capsys.readouterr()
    assert told.out.startswith(f"{store.id}: 1 completed, 0 failed, 0 removed; 1 chunks embedded")
    assert told.err == ""
    library.delete_store(TENANT, store.id)
    assert command() == 0
    assert capsys.readouterr().out == f"{store.id}: deleted, with its index\n"
    assert command() == 0
    assert capsys.readouterr().out == ""


def test_the_command_tells_machines_one_object_for_each_store(
    command: Callable[..., int],
    library: Library,
    store: VectorStore,
    capsys: pytest.CaptureFixture[str],
) -> None:
    attached(library, store, "text", "1.txt")
    attached(library, store, b"\0", "1.bin")
    assert command("--json") == 4

    told = json.loads(capsys.readouterr().out)
    assert (told["vector_store"], told["tenant"]) == (store.id, TENANT)
    assert (told["completed"], told["failed"]) == (1, 1)


@pytest.mark.parametrize(
    ("failure", "exit_code"), [(LeaseHeld("held"), 5), (IndexUnavailable("away"), 3)]
)
def test_the_command_exits_with_what_kept_it(
    command: Callable[..., int],
    library: Library,
    stack: Stack,
    store: VectorStore,
    failure: Exception,
    exit_code: int,
) -> None:
    attached(library, store, "text", "1.txt")
    stack.writers[store.id].failure = failure

    assert command() == exit_code


@pytest.mark.usefixtures("command")
def test_a_watch_without_a_library_says_what_to_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["watch", "--once"]) == 2
    assert "GROUNDSERVE_LIBRARY_URL" in capsys.readouterr().err
    assert command_line.main(["watch", "--once", "--library-url=nosuch://x"]) == 3
    assert capsys.readouterr().err.startswith("error: nosuch://x cannot be used")
