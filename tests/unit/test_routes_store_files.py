"""`/v1/vector_stores/…/files` over HTTP: what is in a store, and what becomes of it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openai.types.vector_stores import VectorStoreFile, VectorStoreFileDeleted

from indexer.index.errors import IndexUnavailable
from indexer.index.library import new_id
from tests.unit.stores_fakes import INDEXED_AT, TENANT, Stores, entry, error_of, stores_in, strict

PATH = "/v1/vector_stores"
SIZES = {"max_chunk_size_tokens": 200, "chunk_overlap_tokens": 50}
STATIC: Any = {"type": "static", "static": SIZES}


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with stores_in(tmp_path) as stores:
        yield stores


def test_an_attached_file_is_in_progress_and_tells_when_to_ask_again(stores: Stores) -> None:
    file, store = stores.file("guide.md"), stores.store()
    said = {"file_id": file, "attributes": {"year": 2024, "product": "router", "new": True}}

    response = stores.client.post(f"{PATH}/{store}/files", json=said)
    told = strict(VectorStoreFile, response)
    assert (told.id, told.vector_store_id, told.status) == (file, store, "in_progress")
    assert told.attributes == {"year": 2024.0, "product": "router", "new": True}
    assert (told.usage_bytes, told.last_error) == (0, None)
    assert response.json()["filename"] == "guide.md"
    assert int(response.headers["openai-poll-after-ms"]) > 0
    stores.index(store)
    response = stores.client.get(f"{PATH}/{store}/files/{file}")
    told = strict(VectorStoreFile, response)
    assert (told.status, told.usage_bytes) == ("completed", 17)
    assert "openai-poll-after-ms" not in response.headers


def test_a_file_that_could_not_be_indexed_tells_why(stores: Stores) -> None:
    file = stores.file("bad.xyz")
    store = stores.store(file)
    stores.index(store, bad=("unsupported_file", "it is of no known format"))

    told = strict(VectorStoreFile, stores.client.get(f"{PATH}/{store}/files/{file}"))
    assert (told.status, told.usage_bytes) == ("failed", 0)
    assert told.last_error is not None
    assert told.last_error.model_dump() == {
        "code": "unsupported_file",
        "message": "it is of no known format",
    }


def test_other_attributes_put_a_file_in_progress_again(stores: Stores) -> None:
    file = stores.file()
    store = stores.store(file)
    stores.index(store)

    for attributes in ({"year": 2023}, {}, None):
        body = {"attributes": attributes}
        response = stores.client.post(f"{PATH}/{store}/files/{file}", json=body)
        told = strict(VectorStoreFile, response)
        assert (told.status, told.attributes) == ("in_progress", attributes or {})
        assert stores.attributes(store, file) == (attributes or {})


def test_a_detached_file_leaves_its_store_and_stays_a_file(stores: Stores) -> None:
    file = stores.file()
    store = stores.store(file)

    gone = strict(VectorStoreFileDeleted, stores.client.delete(f"{PATH}/{store}/files/{file}"))
    assert (gone.id, gone.deleted) == (file, True)
    for response in (
        stores.client.get(f"{PATH}/{store}/files/{file}"),
        stores.client.delete(f"{PATH}/{store}/files/{file}"),
        stores.client.post(f"{PATH}/{store}/files/{file}", json={"attributes": {}}),
        stores.client.get(f"{PATH}/{store}/files/{file}/content"),
    ):
        assert file in error_of(response, 404)["message"]
    assert stores.sdk.files.retrieve(file).id == file


def test_a_deleted_file_leaves_its_stores(stores: Stores) -> None:
    file = stores.file()
    store = stores.store(file)
    stores.sdk.files.delete(file)

    assert stores.sdk.vector_stores.files.list(store).data == []
    assert stores.sdk.vector_stores.retrieve(store).file_counts.total == 0


def test_files_are_listed_by_their_state_page_by_page(stores: Stores) -> None:
    good = [stores.file(f"{at}.md") for at in range(5)]
    bad = stores.file("bad.md")
    store = stores.store(*good, bad)
    stores.index(store, bad=("invalid_file", "x"))
    late = stores.file("late.md")
    stores.sdk.vector_stores.files.create(store, file_id=late)
    files = stores.sdk.vector_stores.files

    everything = [file.id for file in files.list(store, limit=2)]
    assert everything == [file.id for file in files.list(store, limit=3, order="asc")][::-1]
    assert set(everything) == {*good, bad, late}
    assert {file.id for file in files.list(store, filter="completed", limit=2)} == {*good}
    assert [file.id for file in files.list(store, filter="failed")] == [bad]
    assert [file.id for file in files.list(store, filter="in_progress")] == [late]
    assert files.list(store, filter="cancelled").data == []
    before = files.list(store, before=everything[4], limit=2)
    assert [file.id for file in before.data] == everything[2:4]
    listed = stores.client.get(f"{PATH}/{store}/files").json()["data"]
    for told in listed:
        VectorStoreFile.model_validate_json(msgspec.json.encode(told), strict=True)


def test_the_way_of_cutting_is_that_of_the_store(stores: Stores) -> None:
    file = stores.file()
    store, plain = stores.store(chunking_strategy=STATIC), stores.store()

    for strategy in ({"type": "auto"}, STATIC, None):
        said = {"file_id": file, "chunking_strategy": strategy}
        told = strict(VectorStoreFile, stores.client.post(f"{PATH}/{store}/files", json=said))
        assert told.chunking_strategy is not None
        assert told.chunking_strategy.model_dump() == STATIC
    told = stores.sdk.vector_stores.files.create(plain, file_id=file)
    assert told.chunking_strategy is not None
    assert told.chunking_strategy.type == "other"
    other = {"type": "static", "static": {**SIZES, "chunk_overlap_tokens": 0}}
    for wanted, where in [(other, store), (STATIC, plain)]:
        said = {"file_id": file, "chunking_strategy": wanted}
        error = error_of(stores.client.post(f"{PATH}/{where}/files", json=said), 400)
        assert error["param"] == "chunking_strategy"
        assert "all files of a vector store" in error["message"]


@pytest.mark.parametrize("batch", [True, False])
def test_the_first_files_of_a_store_may_say_how_it_is_cut(stores: Stores, batch: bool) -> None:
    file, store = stores.file(), stores.store()
    files = stores.sdk.vector_stores.files
    if batch:
        stores.sdk.vector_stores.file_batches.create(
            store, file_ids=[file], chunking_strategy=STATIC
        )
    else:
        files.create(store, file_id=file, chunking_strategy=STATIC)

    for told in (files.retrieve(file, vector_store_id=store), files.create(store, file_id=file)):
        assert told.chunking_strategy is not None
        assert told.chunking_strategy.model_dump() == STATIC


def test_the_text_of_a_file_is_what_was_indexed(stores: Stores) -> None:
    file = stores.file()
    store = stores.store(file)

    url = f"{PATH}/{store}/files/{file}/content"
    assert "in_progress" in error_of(stores.client.get(url), 400)["message"]
    stores.index(store)
    [entry_, _] = stores.reader.listed[stores.reader.generations[store].collection][0]
    stores.reader.listed[stores.reader.generations[store].collection] = [(entry_, ["Ä\n", '"b"'])]
    page = stores.sdk.vector_stores.files.content(file, vector_store_id=store)
    assert [(part.type, part.text) for part in page] == [("text", "Ä\n"), ("text", '"b"')]
    response = stores.client.get(url)
    assert response.headers["content-type"] == "application/json"
    told = response.json()
    assert told["object"] == "vector_store.file_content.page"
    assert (told["has_more"], told["next_page"]) == (False, None)


def test_a_text_that_cannot_be_read_has_a_status_of_its_own(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = stores.file()
    store = stores.store(file)
    stores.index(store)

    async def texts(*_: object) -> AsyncIterator[str]:
        if stores.reader.listed:
            raise IndexUnavailable("it is being replaced")
        yield ""

    monkeypatch.setattr(stores.reader, "texts", texts)
    error_of(stores.client.get(f"{PATH}/{store}/files/{file}/content"), 503)


def test_the_documents_of_a_knowledge_base_are_its_files(stores: Stores) -> None:
    files = stores.sdk.vector_stores.files
    expected = [f"d{at}" for at in range(5)]

    for order in ("asc", "desc"):  # they were all made at once
        assert [file.id for file in files.list("handbook", limit=2, order=order)] == expected
    told = strict(VectorStoreFile, stores.client.get(f"{PATH}/handbook/files/d1"))
    assert (told.status, told.created_at, told.attributes) == (
        "completed",
        INDEXED_AT,
        {"year": 2024},
    )
    assert stores.client.get(f"{PATH}/handbook/files/d1").json()["filename"] == "d1.md"
    content = files.content("d1", vector_store_id="handbook")
    assert [part.text for part in content] == ["Text 1."]
    assert files.list("handbook", filter="failed").data == []
    assert len(files.list("handbook", filter="completed").data) == 5
    assert set(stores.reader.asked_for) == {TENANT}


def test_what_a_document_says_of_itself_is_shown_as_far_as_openai_has_room_for_it(
    stores: Stores,
) -> None:
    collection = stores.reader.generations["handbook"].collection
    said = {"nested": {"a": 1}, "none": None, "long": "x" * 600, "k" * 65: 1}
    many = {f"n{at}": at for at in range(20)}
    stores.reader.listed[collection] = [(entry("d1", "k1", attributes={**said, **many}), [])]

    told = strict(VectorStoreFile, stores.client.get(f"{PATH}/handbook/files/d1"))
    assert told.attributes is not None
    assert len(told.attributes) == 16
    assert told.attributes["long"] == "x" * 512
    assert not {"nested", "none", "k" * 65} & set(told.attributes)


@pytest.mark.parametrize(
    ("param", "query"),
    [
        ("limit", {"limit": "101"}),
        ("order", {"order": "up"}),
        ("filter", {"filter": "done"}),
        ("after", {"after": "no-such-file"}),
    ],
)
@pytest.mark.parametrize("kept", [True, False])
def test_a_page_that_cannot_be_is_refused(
    stores: Stores, *, kept: bool, param: str, query: dict[str, str]
) -> None:
    store = stores.store() if kept else "handbook"
    error = error_of(stores.client.get(f"{PATH}/{store}/files", params=query), 400)

    assert error["param"] == param


def test_a_knowledge_base_is_listed_in_one_direction(stores: Stores) -> None:
    response = stores.client.get(f"{PATH}/handbook/files", params={"before": "d3"})

    assert error_of(response, 400)["param"] == "before"


def test_a_document_that_is_not_there_is_not_found(stores: Stores) -> None:
    for file in ("d9", "x" * 1000, '" or tenant != "'):
        for path in ("", "/content"):
            error_of(stores.client.get(f"{PATH}/handbook/files/{file}{path}"), 404)


def test_the_files_of_another_programs_collection_cannot_be_listed(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(stores.reader), "lists_documents", False)

    for path in ("files", "files/d1", "files/d1/content"):
        error = error_of(stores.client.get(f"{PATH}/handbook/{path}"), 400)
        assert "another program" in error["message"]
    assert stores.sdk.vector_stores.retrieve("handbook").file_counts.total == 0


NESTED = '{"file_id": "F", "attributes": {"a": {"b": 1}}}'
MANY = msgspec.json.encode({"file_id": "F", "attributes": {f"a{at}": 1 for at in range(17)}})


@pytest.mark.parametrize(
    ("param", "body"),
    [
        (None, "[]"),
        ("file_id", "{}"),
        ("file_id", '{"file_id": null}'),
        ("file", '{"file_id": "F", "file": 1}'),
        ("attributes", '{"file_id": "F", "attributes": [1]}'),
        ("attributes[...]", NESTED),
        ("attributes", MANY),
        ("attributes", '{"file_id": "F", "attributes": {"": 1}}'),
        ("attributes", '{"file_id": "F", "attributes": {"a b": 1}}'),
        ("attributes", f'{{"file_id": "F", "attributes": {{"{"k" * 65}": 1}}}}'),
        ("attributes", f'{{"file_id": "F", "attributes": {{"k": "{"v" * 513}"}}}}'),
    ],
)
def test_what_is_wrong_with_an_attachment_is_named(
    stores: Stores, param: str | None, body: str | bytes
) -> None:
    store = stores.store()

    error = error_of(stores.client.post(f"{PATH}/{store}/files", content=body), 400)
    assert error["param"] == param
    assert stores.library.members(TENANT, store) == []


def test_a_file_that_is_not_there_cannot_be_attached(stores: Stores) -> None:
    store = stores.store()

    for file in (new_id("file"), "file-1", "../../x", "", "x" * 5000):
        response = stores.client.post(f"{PATH}/{store}/files", json={"file_id": file})
        assert error_of(response, 404)["code"] == "not_found"
