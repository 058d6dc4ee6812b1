"""The lease on a Milvus Lite server: contenders, owners that die, and owners that wake up."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from indexer.index.collection import IndexWriter
from indexer.index.collection.lease import Lease
from indexer.index.errors import IndexRefused, KnowledgeBaseMissing, LeaseHeld, LeaseLost
from indexer.index.records import EncoderIdentity, Fingerprint
from indexer.index.settings import IndexSettings

FINGERPRINT = Fingerprint(
    encoder=EncoderIdentity(
        model="m",
        revision="r",
        dimension=4,
        pooling="mean",
        normalised=True,
        query_prefix="",
        passage_prefix="",
    ),
    chunker="c",
)


@contextmanager
def writer_of(settings: IndexSettings) -> Iterator[IndexWriter]:
    writer = IndexWriter(settings)
    try:
        yield writer
    finally:
        writer.close()


@pytest.fixture
def other(index_settings: IndexSettings) -> Iterator[IndexWriter]:
    """A second process, as far as Milvus can tell."""
    with writer_of(index_settings) as other:
        yield other


class Clock:
    """The time of all leases, which a test may set forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def time(self) -> float:
        return time.time() + self.ahead_s

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("indexer.index.collection.lease.time", clock)
    return clock


def dead_lease(writer: IndexWriter, name: str) -> Lease:
    """A lease of a minute whose owner has died: nobody renews it."""
    lease = Lease(writer._client, name, duration_s=60, timeout_s=5)
    lease._released.set()
    lease._renewing.join()
    return lease


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_a_second_run_leaves_at_once_and_is_told_who_is_there(
    writer: IndexWriter, other: IndexWriter
) -> None:
    with writer.lease(30):
        started = time.monotonic()
        with pytest.raises(LeaseHeld, match=r"another run has the lease: .+:\d+:"), other.lease(30):
            pass
        assert time.monotonic() - started < 15


def test_a_lease_that_was_given_back_is_free_and_the_next_run_has_a_higher_number(
    writer: IndexWriter, other: IndexWriter
) -> None:
    with writer.lease(30) as first:
        assert [lease.expires_at > time.time() for lease in writer.leases()] == [True]
    assert [lease.expires_at for lease in writer.leases()] == [0]
    with other.lease(30) as second:
        assert second.run > first.run
        assert len(writer.leases()) == 1


def test_a_lease_is_renewed_for_as_long_as_its_owner_lives(
    writer: IndexWriter, other: IndexWriter
) -> None:
    with writer.lease(8) as lease:
        [before], valid_until = writer.leases(), lease._valid_until
        until(lambda: lease._valid_until > valid_until)
        [after] = writer.leases()
        assert after.expires_at > before.expires_at
        lease.check()
        with pytest.raises(LeaseHeld), other.lease(8):
            pass


def test_of_many_contenders_one_gets_the_lease(index_settings: IndexSettings) -> None:
    barrier = threading.Barrier(8)
    outcomes: list[str] = []

    def contend() -> None:
        with writer_of(index_settings) as writer:
            barrier.wait()
            try:
                with writer.lease(30):
                    outcomes.append("held")
                    stay.wait()
            except LeaseHeld:
                outcomes.append("left")

    stay = threading.Event()
    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 30
    while len(outcomes) < 8 and time.monotonic() < deadline:
        time.sleep(0.05)
    stay.set()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["held", *["left"] * 7]


def test_the_lease_of_an_owner_that_died_expires(
    writer: IndexWriter, other: IndexWriter, index_settings: IndexSettings, clock: Clock
) -> None:
    dead = dead_lease(writer, index_settings.knowledge_base)
    with pytest.raises(LeaseHeld), other.lease(30):
        pass
    clock.ahead_s = 60
    with other.lease(30) as lease:
        assert lease.run > dead.run


def test_an_owner_that_wakes_up_after_its_time_may_change_nothing(
    writer: IndexWriter, index_settings: IndexSettings, clock: Clock
) -> None:
    paused = dead_lease(writer, index_settings.knowledge_base)
    writer._lease = paused
    generation = writer.create(FINGERPRINT)
    clock.ahead_s = 60
    changes: list[Callable[[], object]] = [
        lambda: writer.create(FINGERPRINT),
        lambda: writer.publish(generation),
        lambda: writer.drop(generation),
        lambda: writer.flush(generation),
        lambda: writer.delete_documents(generation, ["x"]),
        lambda: writer.delete_older(generation, ["x"]),
    ]
    for change in changes:
        with pytest.raises(LeaseLost):
            change()


def test_milvus_itself_refuses_to_publish_what_another_run_has_taken_over(
    writer: IndexWriter, other: IndexWriter, index_settings: IndexSettings, clock: Clock
) -> None:
    writer._lease = paused = dead_lease(writer, index_settings.knowledge_base)
    generation = writer.create(FINGERPRINT)
    clock.ahead_s = 60
    with other.lease(30) as lease:
        taken = other.adopt(generation)
        assert taken.number == lease.run
        # As if the pause came between the look at the clock and the call to Milvus.
        paused._valid_until = math.inf
        with pytest.raises(KnowledgeBaseMissing):
            writer.publish(generation)
        assert writer.published() is None
        other.publish(taken)
        assert [found.collection for found in other.generations()] == [taken.collection]


def test_a_lease_that_a_later_run_took_over_is_lost_at_the_next_renewal(
    writer: IndexWriter, other: IndexWriter, index_settings: IndexSettings
) -> None:
    with writer.lease(8) as lease:
        other._client.drop_collection(f"{index_settings.knowledge_base}__lease_{lease.run}")
        until(lambda: lease._valid_until == 0)  # and not only when its time is over
        with pytest.raises(LeaseLost):
            lease.check()


def test_nothing_is_changed_without_the_lease(writer: IndexWriter) -> None:
    with pytest.raises(LeaseLost, match="without the lease"):
        writer.create(FINGERPRINT)


def test_a_collection_of_somebody_else_under_the_name_of_a_lease_is_refused(
    writer: IndexWriter, index_settings: IndexSettings
) -> None:
    writer._client.create_collection(f"{index_settings.knowledge_base}__lease_3", dimension=2)
    with pytest.raises(IndexRefused, match="is no lease"), writer.lease(5):
        pass


def test_a_lease_that_another_is_making_is_waited_for(
    writer: IndexWriter, other: IndexWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Milvus Lite takes a name before anybody can read what it stands for."""
    with writer.lease(30) as held:
        read, looks = Lease._read, []

        def not_yet(lease: Lease, number: int) -> object:
            looks.append(number)
            return None if len(looks) < 3 else read(lease, number)

        monkeypatch.setattr(Lease, "_read", not_yet)
        monkeypatch.setattr(Lease, "_numbers", lambda *_: [])

        with pytest.raises(LeaseHeld), other.lease(30):
            pass

    assert looks[:3] == [held.run] * 3
