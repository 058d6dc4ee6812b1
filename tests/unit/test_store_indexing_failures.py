"""What cannot be indexed: which files are told so, and that nothing of them is found."""

from pathlib import Path

import pytest

from indexer.index.errors import (
    EncodingFailed,
    IndexUnavailable,
    LeaseLost,
    NotInLibrary,
)
from indexer.index.library import Attributes, Library, StoreOutcome, VectorStore
from indexer.uploads.declaration import declaration
from indexer.uploads.indexing import Indexing
from tests.unit.upload_fakes import (
    TENANT,
    Stack,
    StoreWriter,
    add_file,
    add_store,
    attached,
    indexed,
    outcome,
)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(str(tmp_path / "library"))


@pytest.fixture
def stack(library: Library) -> Stack:
    return Stack(library)


@pytest.fixture
def store(library: Library) -> VectorStore:
    return add_store(library)


@pytest.fixture
def writer(stack: Stack, store: VectorStore) -> StoreWriter:
    return stack.writers[store.id]


def test_nothing_old_is_served_where_nothing_new_can_be_built(
    stack: Stack, store: VectorStore, writer: StoreWriter, library: Library
) -> None:
    old = attached(library, store, "old", "1.txt")
    indexed(stack, store)
    library.detach(TENANT, store.id, old)
    broken = attached(library, store, b"%PDF nothing", "2.pdf", {"new": 1})
    indexed(stack, store)

    assert writer.texts() == []
    assert outcome(library, store, broken).status == "failed"


@pytest.mark.parametrize(
    ("name", "data", "code", "reason"),
    [
        ("a.bin", b"\0\1", "unsupported_file", "no known format"),
        ("noname", b"text", "unsupported_file", "no known format"),
        ("a.tar.gz", b"text", "unsupported_file", "no known format"),
        ("a.pdf", b"%PDF nothing", "invalid_file", "damaged"),
        ("a.txt", b"", "invalid_file", "no text"),
        ("a.docx", b"PK\3\4", "invalid_file", ""),
    ],
)
def test_a_file_that_cannot_be_used_fails_with_its_reason_and_alone(
    stack: Stack,
    store: VectorStore,
    writer: StoreWriter,
    library: Library,
    name: str,
    data: bytes,
    code: str,
    reason: str,
) -> None:
    good = attached(library, store, "good text", "good.txt")
    bad = attached(library, store, data, name)
    processed = indexed(stack, store)

    failed = outcome(library, store, bad)
    assert (failed.status, failed.error_code) == ("failed", code)
    assert reason in failed.error_message
    assert outcome(library, store, good).status == "completed"
    assert writer.texts() == ["good text"]
    assert (processed.completed, processed.failed, processed.error) == (1, 1, "")
    indexed(stack, store)
    assert stack.workers.prepared == [], "what is in the file has not changed"
    assert outcome(library, store, bad) == failed


def test_a_file_whose_new_attributes_fail_is_not_found_with_the_old_ones(
    stack: Stack, store: VectorStore, writer: StoreWriter, library: Library
) -> None:
    file_id = attached(library, store, "text", "1.txt", {"year": 1})
    attached(library, store, "other", "2.txt", {"year": 2})
    indexed(stack, store)
    library.change_member(TENANT, store.id, file_id, {"year": "MMXX"})
    indexed(stack, store)

    failed = outcome(library, store, file_id)
    assert failed.error_message == (
        "attribute 'year' is a string, and a number in another file of the vector store"
    )
    assert writer.texts() == ["other"]
    library.change_member(TENANT, store.id, file_id, {"year": 3})
    indexed(stack, store)
    assert sorted(writer.texts()) == ["other", "text"]


def test_a_conflict_ends_with_the_file_that_was_there_first(
    stack: Stack, store: VectorStore, writer: StoreWriter, library: Library
) -> None:
    first = attached(library, store, "first", "1.txt", {"year": 1})
    second = attached(library, store, "second", "2.txt", {"year": "x"})
    indexed(stack, store)
    assert writer.texts() == ["first"]
    library.detach(TENANT, store.id, first)
    indexed(stack, store)

    assert writer.texts() == ["second"]
    assert outcome(library, store, second).status == "completed"


@pytest.mark.parametrize("failure", [EncodingFailed("not finite"), RuntimeError("unexpected")])
def test_a_store_that_fails_as_a_whole_tells_its_files_and_is_tried_again(
    stack: Stack, store: VectorStore, writer: StoreWriter, library: Library, failure: Exception
) -> None:
    done = attached(library, store, "done", "1.txt")
    indexed(stack, store)
    before = outcome(library, store, done)
    new = attached(library, store, "new", "2.txt")
    stack.encoder.failure = failure
    processed = indexed(stack, store)

    assert processed.error == str(failure)
    failed = outcome(library, store, new)
    assert (failed.status, failed.error_code) == ("failed", "server_error")
    assert outcome(library, store, done) == before
    assert library.outcome(TENANT, store.id).is_published
    assert Indexing(stack.means).is_due(TENANT, store)
    stack.encoder.failure = None
    indexed(stack, store)
    assert sorted(writer.texts()) == ["done", "new"]
    assert not Indexing(stack.means).is_due(TENANT, store)


def test_milvus_away_leaves_files_in_progress(
    stack: Stack, store: VectorStore, writer: StoreWriter, library: Library
) -> None:
    attached(library, store, "text", "1.txt")
    writer.fail_at_upsert = 0
    with pytest.raises(IndexUnavailable):
        indexed(stack, store)

    assert library.outcome(TENANT, store.id) == StoreOutcome()


def test_who_lost_the_lease_tells_nothing(
    stack: Stack,
    store: VectorStore,
    writer: StoreWriter,
    library: Library,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attached(library, store, "text", "1.txt")

    def lost() -> None:
        raise LeaseLost("it was paused")

    monkeypatch.setattr(writer, "check_lease", lost)
    with pytest.raises(LeaseLost):
        indexed(stack, store)
    assert library.outcome(TENANT, store.id) == StoreOutcome()


def test_a_store_that_is_merely_missing_loses_nothing(
    stack: Stack, store: VectorStore, writer: StoreWriter, library: Library
) -> None:
    attached(library, store, "text", "1.txt")
    indexed(stack, store)
    elsewhere = Library(f"{library._objects._root}-which-is-not-mounted")
    other = Stack(elsewhere)
    other.writers[store.id] = writer

    assert Indexing(other.means).process(TENANT, store.id) is None
    assert writer.texts() == ["text"]


def test_a_store_that_is_deleted_while_it_is_indexed_is_not_there(
    stack: Stack, store: VectorStore, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    attached(library, store, "text", "1.txt")
    members = library.members

    def deleted(tenant: str, store_id: str) -> object:
        library.delete_store(tenant, store_id)
        return members(tenant, store_id)

    monkeypatch.setattr(library, "members", deleted)
    with pytest.raises(NotInLibrary):
        indexed(stack, store)


def test_the_later_of_two_files_that_do_not_go_together_is_refused(
    library: Library, store: VectorStore
) -> None:
    many: Attributes = {f"a{number}": "x" for number in range(15)}
    said: list[Attributes] = [{"year": 1}, many, {"year": True}, {"more": 1}, {"bad name": "x"}]
    ids = [attached(library, store, "x", attributes=each) for each in said]
    add_file(library, "no member")
    members = library.described(TENANT, library.members(TENANT, store.id))
    declared, refused = declaration(members, {"year": "string", "old": "string"})

    assert declared == {**dict.fromkeys(sorted(many), "string"), "year": "number"}
    assert set(refused) == set(ids[2:])
    assert "more than 16 attributes" in refused[ids[3]]
    assert "is no name" in refused[ids[4]]


def test_a_file_that_is_too_large_is_not_even_read(
    stack: Stack,
    store: VectorStore,
    writer: StoreWriter,
    library: Library,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("indexer.uploads.contents.READ_MAX_BYTES", 10)
    large = attached(library, store, "eleven char", "1.txt")
    attached(library, store, "ten chars.", "2.txt")
    indexed(stack, store)

    failed = outcome(library, store, large)
    assert (failed.error_code, failed.error_message) == (
        "invalid_file",
        "it is larger than 10 bytes",
    )
    assert writer.texts() == ["ten chars."]
    assert stack.workers.prepared == ["2.txt"]
