"""Vector stores in the library: members and their versions, outcomes, batches and markers."""

import threading
import time
from pathlib import Path

import msgspec
import pytest

from indexer.index.errors import LibraryUnavailable, NotInLibrary
from indexer.index.library import (
    Attributes,
    ExpiresAfter,
    Library,
    Membership,
    Outcome,
    StoreOutcome,
    VectorStore,
    new_id,
)
from indexer.index.library import names as library_names
from indexer.index.library.attributes import checked_attributes
from tests.unit.upload_fakes import (
    PLACES,
    TENANT,
    add_file,
    add_store,
    aged,
    attached,
    library_at,
)


@pytest.fixture(params=PLACES)
def library(request: pytest.FixtureRequest, tmp_path: Path) -> Library:
    return library_at(request.param, tmp_path)


@pytest.fixture
def store(library: Library) -> VectorStore:
    return add_store(library)


def only(library: Library, store: VectorStore) -> Membership:
    [listed] = library.members(TENANT, store.id)
    return listed


def test_a_store_is_as_it_was_made_and_as_it_was_changed(library: Library) -> None:
    first, second = add_store(library), add_store(library, expires_after=ExpiresAfter(days=2))
    changed = library.change_store(
        TENANT, msgspec.structs.replace(first, name="other", metadata={"a": "b"}, created_at=0)
    )

    assert changed == msgspec.structs.replace(first, name="other", metadata={"a": "b"})
    assert library.store(TENANT, first.id) == changed
    assert {each.id for each in library.stores(TENANT)} == {first.id, second.id}
    assert second.expires_at == second.last_active_at + 2 * 86_400
    assert library.stores("other") == []


def test_a_store_that_is_used_is_written_once_a_minute(
    library: Library, store: VectorStore
) -> None:
    assert library.touch_store(TENANT, store.id) == store
    aged(library, store, 61)
    touched = library.touch_store(TENANT, store.id)

    assert touched.last_active_at >= store.last_active_at
    assert library.store(TENANT, store.id) == touched


def test_an_attached_file_is_a_member_with_its_attributes(
    library: Library, store: VectorStore
) -> None:
    said: Attributes = {"year": 2020.0, "draft": False, "by": "x"}
    file_id = attached(library, store, "text", attributes=said)

    listed = only(library, store)
    assert (listed.file_id, listed.attributes) == (file_id, {})
    [described] = library.described(TENANT, [listed])
    assert described.attributes == said
    assert library.member(TENANT, store.id, file_id) == described


def test_each_change_makes_a_later_version_and_leaves_a_marker(
    library: Library, store: VectorStore
) -> None:
    file_id = attached(library, store, "text", attributes={"a": "1"})
    versions = [only(library, store).version]
    library.change_member(TENANT, store.id, file_id, {"a": "2"})
    versions.append(only(library, store).version)
    library.attach(TENANT, store.id, file_id, {"a": "3"})
    versions.append(only(library, store).version)

    assert versions == sorted(set(versions))
    assert library.member(TENANT, store.id, file_id).attributes == {"a": "3"}
    markers = library.pending()
    assert {(marker.tenant, marker.store_id) for marker in markers} == {(TENANT, store.id)}
    assert len(markers) == 3
    library.clear(markers[:2])
    assert library.pending() == markers[2:]


def test_many_files_are_attached_together_or_none(library: Library, store: VectorStore) -> None:
    ids = [add_file(library, str(number)) for number in range(20)]
    unknown = new_id("file")
    with pytest.raises(NotInLibrary) as caught:
        library.attach_all(TENANT, store.id, [(each, {}) for each in [*ids, unknown]])
    assert caught.value.identity == unknown
    assert library.members(TENANT, store.id) == []
    assert library.pending() == []

    made = library.attach_all(TENANT, store.id, [(each, {"n": each}) for each in [*ids, ids[0]]])
    assert [each.file_id for each in made] == ids
    assert {each.file_id for each in library.members(TENANT, store.id)} == set(ids)
    assert len(library.pending()) == 1


def test_a_detached_file_is_no_member_and_stays(library: Library, store: VectorStore) -> None:
    file_id = attached(library, store, "text")
    library.detach(TENANT, store.id, file_id)

    assert library.members(TENANT, store.id) == []
    assert library.file(TENANT, file_id)
    with pytest.raises(NotInLibrary, match="file in this vector store"):
        library.detach(TENANT, store.id, file_id)
    with pytest.raises(NotInLibrary):
        library.change_member(TENANT, store.id, file_id, {})


def test_a_deleted_file_leaves_every_store(library: Library) -> None:
    stores = [add_store(library) for _ in range(3)]
    file_id = attached(library, stores[0], "text")
    kept = attached(library, stores[0], "kept")
    library.attach(TENANT, stores[1].id, file_id, {})
    library.clear(library.pending())
    library.delete_file(TENANT, file_id)

    assert only(library, stores[0]).file_id == kept
    assert library.members(TENANT, stores[1].id) == []
    marked = {marker.store_id for marker in library.pending()}
    assert marked == {stores[0].id, stores[1].id}


def test_a_cancelled_member_stays_and_is_not_to_be_indexed(
    library: Library, store: VectorStore
) -> None:
    file_id = attached(library, store, "text", attributes={"a": "1"})
    before = only(library, store)
    library.cancel(TENANT, store.id, [before])

    cancelled = library.member(TENANT, store.id, file_id)
    assert (cancelled.is_cancelled, cancelled.version) == (True, before.version)
    assert cancelled.attributes == {"a": "1"}
    library.attach(TENANT, store.id, file_id, {})
    assert not only(library, store).is_cancelled


def test_cancelling_what_has_changed_meanwhile_changes_nothing(
    library: Library, store: VectorStore
) -> None:
    file_id = attached(library, store, "text")
    before = only(library, store)
    library.change_member(TENANT, store.id, file_id, {"a": "2"})
    library.cancel(TENANT, store.id, [before])

    assert not only(library, store).is_cancelled


def test_of_two_versions_that_a_dead_writer_left_the_later_counts(
    library: Library, store: VectorStore
) -> None:
    file_id = attached(library, store, "text", attributes={"a": "1"})
    older = only(library, store)
    newer = library.change_member(TENANT, store.id, file_id, {"a": "2"})
    library._write_member(TENANT, older)

    assert only(library, store).version == newer.version
    assert library.member(TENANT, store.id, file_id).attributes == {"a": "2"}
    library.detach(TENANT, store.id, file_id)
    assert library.members(TENANT, store.id) == []


def test_a_change_survives_a_clock_that_goes_back(
    library: Library, store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_id = attached(library, store, "text")
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now - 3600 * 10**9)
    library.change_member(TENANT, store.id, file_id, {"a": "later"})

    assert library.member(TENANT, store.id, file_id).attributes == {"a": "later"}


def test_two_writers_at_once_leave_one_of_their_versions(tmp_path: Path) -> None:
    libraries = [Library(str(tmp_path)) for _ in range(2)]
    store = add_store(libraries[0])
    file_id = attached(libraries[0], store, "text")

    def write(library: Library, writer: int) -> None:
        for number in range(20):
            library.attach(TENANT, store.id, file_id, {"n": f"{writer}.{number}"})

    threads = [
        threading.Thread(target=write, args=(each, number)) for number, each in enumerate(libraries)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for each in libraries:
        said = each.member(TENANT, store.id, file_id).attributes["n"]
        assert said in ("0.19", "1.19")
    assert len(libraries[0].pending()) == 41


def test_an_outcome_is_of_one_version(library: Library, store: VectorStore) -> None:
    file_id = attached(library, store, "text")
    member = only(library, store)
    assert library.outcome(TENANT, store.id) == StoreOutcome()
    done = Outcome(version=member.version, status="completed", usage_bytes=4, chunks=1)
    library.write_outcome(TENANT, store.id, StoreOutcome(files={file_id: done}, is_published=True))

    outcome = library.outcome(TENANT, store.id)
    assert (outcome.of(member), outcome.usage_bytes) == (done, 4)
    changed = library.change_member(TENANT, store.id, file_id, {"a": "b"})
    assert outcome.of(changed) is None


def test_a_batch_names_what_was_made_together(library: Library, store: VectorStore) -> None:
    ids = [add_file(library, str(number)) for number in range(3)]
    members = library.attach_all(TENANT, store.id, [(each, {}) for each in ids])
    batch = library.add_batch(TENANT, store.id, members)

    assert library.batch(TENANT, store.id, batch.id) == batch
    assert batch.members == [(each.file_id, each.version) for each in members]
    with pytest.raises(NotInLibrary, match="file batch"):
        library.batch(TENANT, store.id, new_id("file batch"))
    with pytest.raises(NotInLibrary):
        library.batch(TENANT, add_store(library).id, batch.id)


def test_a_deleted_store_is_gone_for_clients_and_waits_for_the_indexer(
    library: Library, store: VectorStore
) -> None:
    file_id = attached(library, store, "text")
    library.delete_store(TENANT, store.id)

    assert library.stores(TENANT) == []
    assert library.is_deleted(TENANT, store.id)
    assert library.file(TENANT, file_id)
    for ask in (library.store, library.members, library.delete_store):
        with pytest.raises(NotInLibrary, match="vector store"):
            ask(TENANT, store.id)
    with pytest.raises(NotInLibrary):
        library.attach(TENANT, store.id, file_id, {})
    library.forget_store(TENANT, store.id)
    assert library.store_ids(TENANT) == []
    assert not library.is_deleted(TENANT, store.id)


def test_a_change_that_meets_a_deletion_does_not_bring_the_store_back(
    library: Library, store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = library.store

    def deleted_meanwhile(tenant: str, store_id: str) -> VectorStore:
        found = read(tenant, store_id)
        library.delete_store(tenant, store_id)
        return found

    monkeypatch.setattr(library, "store", deleted_meanwhile)
    with pytest.raises(NotInLibrary):
        library.change_store(TENANT, store)
    assert library.stores(TENANT) == []


@pytest.mark.parametrize(
    "identity", ["", "..", "../../x", "file-..", "vs_..", f"vs_{'0' * 32}/../x"]
)
def test_a_hostile_id_is_of_no_store_member_or_batch(tmp_path: Path, identity: str) -> None:
    library = Library(str(tmp_path))
    store = add_store(library)

    for ask in (library.store, library.members, library.delete_store, library.outcome):
        with pytest.raises(NotInLibrary):
            ask(TENANT, identity)
    for ask_member in (library.member, library.detach, library.attach, library.batch):
        with pytest.raises(NotInLibrary):
            ask_member(TENANT, store.id, identity)


def test_a_store_of_another_tenant_is_not_in_the_library(
    library: Library, store: VectorStore
) -> None:
    file_id = attached(library, store, "text")
    foreign = add_file(library, "foreign", tenant="other")

    with pytest.raises(NotInLibrary):
        library.members("other", store.id)
    with pytest.raises(NotInLibrary):
        library.attach("other", store.id, foreign, {})
    with pytest.raises(NotInLibrary):
        library.attach(TENANT, store.id, foreign, {})
    assert only(library, store).file_id == file_id


def test_what_is_no_marker_or_member_is_passed_over(tmp_path: Path) -> None:
    library = Library(str(tmp_path))
    store = add_store(library)
    attached(library, store, "text")
    for path in (
        "pending/notes.txt",
        f"{library_names.members_of(TENANT, store.id)}/notes.txt",
        f"{library_names.stores_of(TENANT)}/notes.txt",
        f"{library_names.files_of(TENANT)}/notes.txt",
    ):
        (tmp_path / path).write_text("")

    assert len(library.pending()) == len(library.members(TENANT, store.id)) == 1
    assert len(library.stores(TENANT)) == len(library.files(TENANT)) == 1


def test_a_marker_comes_after_a_change_that_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library(str(tmp_path))
    store = add_store(library)
    ids = [add_file(library, str(number)) for number in range(3)]
    write = library._write_member

    def full(tenant: str, member: Membership) -> None:
        if member.file_id == ids[2]:
            raise LibraryUnavailable("the disk is full")
        write(tenant, member)

    monkeypatch.setattr(library, "_write_member", full)
    with pytest.raises(LibraryUnavailable):
        library.attach_all(TENANT, store.id, [(each, {}) for each in ids])
    assert len(library.pending()) == 1


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({"a": None}, "no string, number or boolean"),
        ({"a": ["x"]}, "no string, number or boolean"),
        ({"a b": "x"}, "is no name"),
        ({"x" * 65: "x"}, "is no name"),
        ({"": "x"}, "is no name"),
        ({"a": "x" * 513}, "longer than 512"),
        ({"a": float("nan")}, "no finite number"),
        ({"a": 2**53 + 1}, "does not hold exactly"),
        ({str(number): 1 for number in range(17)}, "16 are the most"),
    ],
)
def test_attributes_are_refused_by_name(table: Attributes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        checked_attributes(table)


def test_attributes_are_taken_with_numbers_as_floats() -> None:
    checked = checked_attributes({"a": 1, "b": True, "c": "x"})

    assert checked == {"a": 1.0, "b": True, "c": "x"}
    assert [type(value) for value in checked.values()] == [float, bool, str]
