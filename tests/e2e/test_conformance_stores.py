"""Files, vector stores and what is found in them have exactly the shape of openai-python 3."""

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from openai.pagination import SyncCursorPage, SyncPage
from openai.types import (
    FileDeleted,
    FileObject,
    VectorStore,
    VectorStoreDeleted,
    VectorStoreSearchResponse,
)
from openai.types.vector_stores import (
    FileContentResponse,
    VectorStoreFile,
    VectorStoreFileBatch,
    VectorStoreFileDeleted,
)

from tests.e2e.wire import Wire, strictly

if TYPE_CHECKING:
    from tests.e2e.conftest import Stack

STORES, FILES = "/vector_stores", "/files"
TEXT = b"# The market\n\nThe market of Port Vennel is held on Thursdays.\n"


@pytest.fixture(scope="module")
def wire(stack: "Stack") -> Iterator[Wire]:
    with Wire(stack.gateway_url) as wire:
        yield wire


@pytest.fixture(scope="module")
def uploaded(wire: Wire) -> FileObject:
    content = {"file": ("market.md", TEXT)}
    answer = wire.answer("POST", FILES, files=content, data={"purpose": "assistants"})
    file: FileObject = strictly(FileObject, answer)
    return file


@pytest.fixture(scope="module")
def store(wire: Wire) -> VectorStore:
    asked = {"name": "Conformance", "metadata": {"for": "tests"}, "expires_after": None}
    made: VectorStore = strictly(VectorStore, wire.post(STORES, asked))
    return made


@pytest.fixture(scope="module")
def held(wire: Wire, store: VectorStore, uploaded: FileObject) -> VectorStoreFile:
    """The file in the store, when it is indexed."""
    attributes = {"kind": "event", "seats": 12.5, "open": True}
    path = f"{STORES}/{store.id}/files"
    file = strictly(
        VectorStoreFile, wire.post(path, {"file_id": uploaded.id, "attributes": attributes})
    )
    assert file.status == "in_progress"
    ended: VectorStoreFile = _ended(wire, VectorStoreFile, f"{path}/{file.id}")
    return ended


def _ended(wire: Wire, kind: Any, path: str) -> Any:
    """What is at `path` as soon as it is no longer in progress."""
    end = time.monotonic() + 60
    while (found := strictly(kind, wire.get(path))).status == "in_progress":
        assert time.monotonic() < end, found
        time.sleep(0.2)
    return found


def _page(wire: Wire, kind: Any, path: str, **query: Any) -> list[Any]:
    """What a list holds, whose own fields must agree with it."""
    raw = wire.get(path, **query)
    page = strictly(SyncCursorPage[kind], raw)
    told = json.loads(raw)
    assert told["object"] == "list"
    assert isinstance(told["has_more"], bool)
    ids = [each.id for each in page.data]
    assert [told["first_id"], told["last_id"]] == ([ids[0], ids[-1]] if ids else [None, None])
    return list(page.data)


def _found(wire: Wire, store: str, **asked: Any) -> list[VectorStoreSearchResponse]:
    raw = wire.post(f"{STORES}/{store}/search", asked)
    told = json.loads(raw)
    assert told["object"] == "vector_store.search_results.page"
    query = asked["query"]
    assert told["search_query"] == (query if isinstance(query, list) else [query])
    assert (told["has_more"], told["next_page"]) == (False, None)
    found: list[VectorStoreSearchResponse] = strictly(SyncPage[VectorStoreSearchResponse], raw).data
    assert all(0 <= each.score <= 1 for each in found)
    assert found == sorted(found, key=lambda each: -each.score)
    return found


def test_a_file_is_uploaded_and_read_back(wire: Wire, uploaded: FileObject) -> None:
    assert (uploaded.filename, uploaded.bytes) == ("market.md", len(TEXT))
    assert strictly(FileObject, wire.get(f"{FILES}/{uploaded.id}")) == uploaded
    assert uploaded in _page(wire, FileObject, FILES, purpose="assistants", order="desc")


def test_a_store_is_made_changed_and_listed(wire: Wire, store: VectorStore, stack: "Stack") -> None:
    assert (store.name, store.metadata) == ("Conformance", {"for": "tests"})
    changed = strictly(VectorStore, wire.post(f"{STORES}/{store.id}", {"name": "Changed"}))
    assert (changed.name, changed.metadata) == ("Changed", {"for": "tests"})
    ids = [each.id for each in _page(wire, VectorStore, STORES)]
    assert {store.id, stack.knowledge_base} <= set(ids)
    [first] = _page(wire, VectorStore, STORES, limit=1)
    [second] = _page(wire, VectorStore, STORES, limit=1, after=first.id)
    assert [first.id, second.id] == ids[:2]


def test_a_file_of_a_store_is_listed_and_told(
    wire: Wire, store: VectorStore, held: VectorStoreFile
) -> None:
    assert (held.status, held.last_error) == ("completed", None)
    assert held.attributes == {"kind": "event", "seats": 12.5, "open": True}
    path = f"{STORES}/{store.id}/files"
    assert held in _page(wire, VectorStoreFile, path)
    assert held.id in [each.id for each in _page(wire, VectorStoreFile, path, filter="completed")]
    parts = strictly(SyncPage[FileContentResponse], wire.get(f"{path}/{held.id}/content")).data
    assert "Thursdays" in "".join(part.text or "" for part in parts)


@pytest.mark.usefixtures("held")
def test_what_is_found_in_a_store_has_its_attributes(wire: Wire, store: VectorStore) -> None:
    [found] = _found(wire, store.id, query="When is the market?")
    assert found.attributes == {"kind": "event", "seats": 12.5, "open": True}
    assert "Thursdays" in found.content[0].text
    sieve = {"type": "and", "filters": [{"type": "gte", "key": "seats", "value": 12}]}
    assert _found(wire, store.id, query="When is the market?", filters=sieve) == [found]
    sieve = {"type": "in", "key": "kind", "value": ["shop"]}
    assert _found(wire, store.id, query="When is the market?", filters=sieve) == []


@pytest.mark.parametrize(
    "asked",
    [
        {"query": "How high is the lighthouse?"},
        {"query": ["How high is the lighthouse?", "Its lamp"], "max_num_results": 1},
        {"query": "lamp", "ranking_options": {"ranker": "none", "score_threshold": 0.0}},
        {"query": "lamp", "rewrite_query": False},
    ],
)
def test_a_knowledge_base_is_searched(wire: Wire, stack: "Stack", asked: dict[str, Any]) -> None:
    found = _found(wire, stack.knowledge_base, **asked)
    assert found[0].filename == "lighthouse.md"
    assert len(found) <= asked.get("max_num_results", 10)


def test_a_knowledge_base_lists_its_documents(wire: Wire, stack: "Stack") -> None:
    path = f"{STORES}/{stack.knowledge_base}/files"
    files = _page(wire, VectorStoreFile, path)
    assert len(files) == 2
    [found] = _found(wire, stack.knowledge_base, query="lighthouse", max_num_results=1)
    assert strictly(VectorStoreFile, wire.get(f"{path}/{found.file_id}")).status == "completed"


def test_a_batch_is_one(wire: Wire, store: VectorStore, uploaded: FileObject) -> None:
    path = f"{STORES}/{store.id}/file_batches"
    batch = strictly(VectorStoreFileBatch, wire.post(path, {"file_ids": [uploaded.id]}))
    ended = _ended(wire, VectorStoreFileBatch, f"{path}/{batch.id}")
    assert ended.file_counts.completed == ended.file_counts.total == 1
    [file] = _page(wire, VectorStoreFile, f"{path}/{batch.id}/files")
    assert file.id == uploaded.id


def test_what_is_deleted_is_gone(wire: Wire) -> None:
    """On a store and a file of its own."""
    content = {"file": ("gone.txt", b"Soon gone.")}
    answer = wire.answer("POST", FILES, files=content, data={"purpose": "assistants"})
    file = strictly(FileObject, answer)
    store = strictly(VectorStore, wire.post(STORES, {"file_ids": [file.id]}))
    member = f"{STORES}/{store.id}/files/{file.id}"
    for kind, path in (
        (VectorStoreFileDeleted, member),
        (FileDeleted, f"{FILES}/{file.id}"),
        (VectorStoreDeleted, f"{STORES}/{store.id}"),
    ):
        deleted = strictly(kind, wire.answer("DELETE", path))
        assert deleted.deleted
        assert deleted.id == path.rpartition("/")[2]
        error = wire.refused(404, path, None, method="GET")
        assert error.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "query"),
        ({"query": 7}, "query"),
        ({"query": []}, "query"),
        ({"query": "x", "max_num_results": 0}, "max_num_results"),
        ({"query": "x", "max_num_results": 51}, "max_num_results"),
        ({"query": "x", "filters": {"type": "like", "key": "a", "value": 1}}, "filters"),
        ({"query": "x", "ranking_options": {"score_threshold": 2}}, "ranking_options"),
        ({"query": "x", "rewrite_query": "yes"}, "rewrite_query"),
    ],
)
def test_a_wrong_search_names_what_is_wrong(
    wire: Wire, stack: "Stack", body: dict[str, Any], param: str
) -> None:
    error = wire.refused(400, f"{STORES}/{stack.knowledge_base}/search", body)
    assert error.type == "invalid_request_error"
    assert (error.param or "").startswith(param)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"{STORES}/vs_none/search", {"query": "x"}),
        (f"{STORES}/vs_none", {"name": "x"}),
        (f"{STORES}/vs_none/files", {"file_id": "file-none"}),
        (f"{STORES}/vs_none/file_batches", {"file_ids": ["file-none"]}),
    ],
)
def test_a_store_that_is_not_there_is_a_404(wire: Wire, path: str, body: dict[str, Any]) -> None:
    assert wire.refused(404, path, body).type == "invalid_request_error"


def test_a_knowledge_base_is_not_written_to(
    wire: Wire, stack: "Stack", uploaded: FileObject
) -> None:
    path = f"{STORES}/{stack.knowledge_base}/files"
    assert wire.refused(403, path, {"file_id": uploaded.id}).type == "invalid_request_error"
