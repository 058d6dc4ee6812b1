"""One vector store is indexed: what is found of it, and what its files are told."""

from pathlib import Path

import pytest

from indexer.index.library import Chunking, Library, StoreOutcome, VectorStore
from indexer.uploads.documents import format_of_upload
from indexer.uploads.indexing import Indexing
from tests.unit.index_fakes import IDENTITY, FakeEncoder
from tests.unit.run_fakes import embedded, long_text
from tests.unit.upload_fakes import (
    TENANT,
    Stack,
    StoreWriter,
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


def test_a_file_is_found_under_its_id_its_name_and_its_attributes(
    stack: Stack, store: VectorStore, writer: StoreWriter, library: Library
) -> None:
    html = (
        "<html><head><title>Llamas</title><link rel=canonical href='https://x.org/'></head>"
        "<body><main><h1>Llamas</h1><p>They eat grass.</p></main></body></html>"
    )
    file_id = attached(library, store, html, "page.html", {"year": 2020, "by": "me"})
    processed = indexed(stack, store)

    [row] = writer.rows()
    assert (row.document_id, row.source) == (file_id, f"{file_id}/page.html")
    assert (row.tenant, row.title) == (TENANT, "Llamas")
    assert row.attributes == {"year": 2020.0, "by": "me"}
    published = writer.published()
    assert published is not None
    assert published.fingerprint.attributes == {"by": "string", "year": "number"}
    assert (processed.completed, processed.failed) == (1, 0)
    done = outcome(library, store, file_id)
    assert (done.status, done.usage_bytes, done.chunks) == ("completed", len(row.text), 1)
    assert library.outcome(TENANT, store.id).is_published


def test_what_a_file_says_of_itself_is_no_attribute(
    stack: Stack, store: VectorStore, writer: StoreWriter, library: Library
) -> None:
    attached(library, store, "---\nyear: ours\nowner: me\n---\n# A\n\nText.", "a.md", {"year": 1})
    indexed(stack, store)

    assert [row.attributes for row in writer.rows()] == [{"year": 1.0}]


def test_a_text_without_a_title_bears_the_name_of_its_file(
    stack: Stack, store: VectorStore, writer: StoreWriter, library: Library
) -> None:
    attached(library, store, "Some text.", "notes.txt")
    indexed(stack, store)

    assert [row.title for row in writer.rows()] == ["notes.txt"]


def test_one_more_file_leaves_the_others_unread(
    stack: Stack, store: VectorStore, writer: StoreWriter, library: Library
) -> None:
    first = attached(library, store, "first text", "1.txt")
    indexed(stack, store)
    (content,) = Path(library._objects._root).rglob(f"contents/{first}")
    content.unlink()  # whoever read it would find it gone
    second = attached(library, store, "second text", "2.txt")
    processed = indexed(stack, store)

    assert stack.workers.prepared == ["2.txt"]
    assert (processed.completed, processed.chunks_embedded, processed.deleted) == (2, 1, 0)
    assert outcome(library, store, first).chunks == outcome(library, store, second).chunks == 1
    assert sorted(writer.texts()) == ["first text", "second text"]


def test_a_file_that_is_attached_again_is_not_made_again(
    stack: Stack, store: VectorStore, library: Library
) -> None:
    file_id = attached(library, store, "text", "1.txt", {"a": "b"})
    indexed(stack, store)
    library.attach(TENANT, store.id, file_id, {"a": "b"})
    indexed(stack, store)

    assert (stack.workers.prepared, embedded(stack.encoder)) == ([], [])
    assert outcome(library, store, file_id).usage_bytes == 4


def test_other_attributes_are_found_and_no_vector_is_made_again(
    stack: Stack, store: VectorStore, writer: StoreWriter, library: Library
) -> None:
    file_id = attached(library, store, "text", "1.txt", {"a": "b"})
    indexed(stack, store)
    library.change_member(TENANT, store.id, file_id, {"a": "c"})
    indexed(stack, store)
    assert [row.attributes for row in writer.rows()] == [{"a": "c"}]
    assert len(writer.generations()) == 1

    library.change_member(TENANT, store.id, file_id, {"new": True})
    processed = indexed(stack, store)
    assert [row.attributes for row in writer.rows()] == [{"new": True}]
    assert (embedded(stack.encoder), processed.chunks_reused) == ([], 1)
    published = writer.published()
    assert published is not None
    assert published.fingerprint.attributes == {"a": "string", "new": "boolean"}


def test_a_detached_file_is_not_found_and_its_declaration_stays(
    stack: Stack, store: VectorStore, writer: StoreWriter, library: Library
) -> None:
    gone = attached(library, store, "gone", "1.txt", {"only": "here"})
    attached(library, store, "kept", "2.txt")
    indexed(stack, store)
    before = writer.published()
    library.detach(TENANT, store.id, gone)
    processed = indexed(stack, store)

    assert (writer.texts(), processed.deleted) == (["kept"], 1)
    published = writer.published()
    assert before is not None
    assert published is not None
    assert published.collection == before.collection
    assert gone not in library.outcome(TENANT, store.id).files


def test_the_last_file_leaves_nothing_behind(
    stack: Stack, store: VectorStore, writer: StoreWriter, library: Library
) -> None:
    file_id = attached(library, store, "text", "1.txt")
    indexed(stack, store)
    stack.encoder.identity = FakeEncoder(IDENTITY).identity
    library.detach(TENANT, store.id, file_id)
    processed = indexed(stack, store)

    assert (writer.texts(), processed.deleted) == ([], 1)
    assert library.outcome(TENANT, store.id).files == {}


def test_a_store_without_files_has_no_index(
    stack: Stack, store: VectorStore, writer: StoreWriter, library: Library
) -> None:
    processed = indexed(stack, store)

    assert (processed.completed, processed.failed) == (0, 0)
    assert writer.published() is None
    assert not library.outcome(TENANT, store.id).is_published


def test_a_cancelled_member_is_not_indexed(
    stack: Stack, store: VectorStore, writer: StoreWriter, library: Library
) -> None:
    attached(library, store, "kept", "1.txt")
    cancelled = attached(library, store, "cancelled", "2.txt")
    library.cancel(TENANT, store.id, [library.member(TENANT, store.id, cancelled)])
    indexed(stack, store)

    assert writer.texts() == ["kept"]
    assert cancelled not in library.outcome(TENANT, store.id).files


def test_a_deleted_file_that_is_still_a_member_leaves(
    stack: Stack, store: VectorStore, writer: StoreWriter, library: Library
) -> None:
    gone = attached(library, store, "gone", "1.txt")
    attached(library, store, "kept", "2.txt")
    indexed(stack, store)
    (record,) = Path(library._objects._root).rglob(f"{gone}.json")
    record.unlink()  # as a gateway leaves it that dies in the middle of deleting
    indexed(stack, store)

    assert writer.texts() == ["kept"]
    assert len(library.members(TENANT, store.id)) == 1


def test_a_run_that_died_before_it_told_is_told_by_the_next_one(
    stack: Stack, store: VectorStore, library: Library
) -> None:
    file_id = attached(library, store, long_text(60), "1.txt")
    indexed(stack, store)
    told = outcome(library, store, file_id)
    library.write_outcome(TENANT, store.id, StoreOutcome())
    indexed(stack, store)

    assert stack.workers.prepared == []
    assert outcome(library, store, file_id) == told
    assert told.chunks > 5


def test_chunks_have_the_size_that_the_store_asks_for(library: Library) -> None:
    store = add_store(library, chunking=Chunking(max_chunk_size_tokens=100, chunk_overlap_tokens=9))
    stack = Stack(library)
    file_id = attached(library, store, "text", "1.txt")
    processed = indexed(stack, store)

    failed = outcome(library, store, file_id)
    assert failed.error_code == "server_error", "the fake encoder has no tokenizer"
    assert "tokenizer" in failed.error_message
    assert processed.error == failed.error_message
    assert Indexing(stack.means).is_due(TENANT, store)


def test_a_deleted_store_loses_its_index_and_then_its_folder(
    stack: Stack, store: VectorStore, writer: StoreWriter, library: Library
) -> None:
    attached(library, store, "text", "1.txt")
    indexed(stack, store)
    library.delete_store(TENANT, store.id)

    assert indexed(stack, store).is_gone
    assert writer.calls[-1] == "remove"
    assert library.store_ids(TENANT) == []
    assert Indexing(stack.means).process(TENANT, store.id) is None


def test_other_means_make_every_store_due(
    stack: Stack, store: VectorStore, library: Library
) -> None:
    attached(library, store, "text", "1.txt")
    indexed(stack, store)

    assert not Indexing(stack.means).is_due(TENANT, store)
    assert Indexing(Stack(library, size=128).means).is_due(TENANT, store)


@pytest.mark.parametrize(
    ("name", "format_"),
    [
        *(("a.md", ".md"), ("A.PDF", ".pdf"), ("a.json", ".txt"), ("a.jsonl", ".txt")),
        *(("a.py", ".py"), ("a.xml", ".txt"), ("a.jsonl.gz", ""), ("a", ""), (".md", "")),
    ],
)
def test_the_name_of_a_file_tells_its_format(name: str, format_: str) -> None:
    assert format_of_upload(name) == format_
