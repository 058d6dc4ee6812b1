"""`/v1/vector_stores` over HTTP: each object as the SDK's types have it, and what is refused."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openai.types import VectorStore
from openai.types.vector_store_deleted import VectorStoreDeleted

from indexer.index.errors import IndexUnavailable
from indexer.index.library import new_id
from tests.unit.stores_fakes import INDEXED_AT, TENANT, Stores, error_of, stores_in, strict

PATH = "/v1/vector_stores"


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with stores_in(tmp_path) as stores:
        yield stores


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """For requests that change nothing: starting a gateway takes longer than they do."""
    with stores_in(tmp_path_factory.mktemp("library")) as stores:
        yield stores


@pytest.fixture(scope="module")
def nowhere() -> Iterator[Stores]:
    """One without a library."""
    with stores_in(None) as stores:
        yield stores


def counts(**stated: int) -> dict[str, int]:
    states = {"in_progress": 0, "completed": 0, "failed": 0, "cancelled": 0, **stated}
    return {**states, "total": sum(states.values())}


def told_counts(store: VectorStore) -> dict[str, int]:
    return store.file_counts.model_dump()


def test_a_new_store_is_what_was_said_of_it(stores: Stores) -> None:
    said = {
        "name": "Manuals",
        "description": "What we sell.",
        "metadata": {"team": "support"},
        "expires_after": {"anchor": "last_active_at", "days": 7},
        "chunking_strategy": {
            "type": "static",
            "static": {"max_chunk_size_tokens": 200, "chunk_overlap_tokens": 100},
        },
    }
    before = int(time.time())
    response = stores.client.post(PATH, json=said, headers={"openai-beta": "assistants=v2"})
    store = strict(VectorStore, response)

    assert (store.name, store.metadata) == ("Manuals", {"team": "support"})
    assert response.json()["description"] == "What we sell."
    assert before <= store.created_at <= time.time()
    assert store.expires_at == store.created_at + 7 * 86_400
    assert (store.status, store.usage_bytes) == ("completed", 0)
    assert told_counts(store) == counts()
    assert strict(VectorStore, stores.client.get(f"{PATH}/{store.id}")) == store


@pytest.mark.parametrize("body", [b"", b"{}", b'{"name":null,"metadata":null,"file_ids":[]}'])
def test_nothing_needs_to_be_said_of_a_new_store(stores: Stores, body: bytes) -> None:
    store = strict(VectorStore, stores.client.post(PATH, content=body))

    assert (store.name, store.metadata, store.expires_after) == ("", {}, None)


def test_a_store_is_in_progress_until_each_of_its_files_has_an_outcome(stores: Stores) -> None:
    good, bad = stores.file("good.md"), stores.file("bad.pdf")
    store = stores.store(good, bad)

    told = stores.sdk.vector_stores.retrieve(store)
    assert (told.status, told_counts(told)) == ("in_progress", counts(in_progress=2))
    stores.index(store, bad=("invalid_file", "it is no PDF"))
    told = strict(VectorStore, stores.client.get(f"{PATH}/{store}"))
    assert (told.status, told.usage_bytes) == ("completed", 17)
    assert told_counts(told) == counts(completed=1, failed=1)
    stores.library.attach(TENANT, store, good, {"year": 2020.0})  # anew
    told = stores.sdk.vector_stores.retrieve(store)
    assert (told.status, told_counts(told)) == ("in_progress", counts(in_progress=1, failed=1))


def test_what_is_said_of_a_store_can_be_changed_and_what_is_not_named_stays(
    stores: Stores,
) -> None:
    store = stores.store(
        name="a", metadata={"k": "v"}, expires_after={"anchor": "last_active_at", "days": 1}
    )

    def update(**said: Any) -> VectorStore:
        return strict(VectorStore, stores.client.post(f"{PATH}/{store}", json=said))

    assert (update(name="b").name, update().metadata) == ("b", {"k": "v"})
    assert update(metadata={"x": "y"}).metadata == {"x": "y"}
    assert update(expires_after={"anchor": "last_active_at", "days": 9}).expires_after is not None
    assert update(expires_after=None).expires_at is None
    assert update(metadata=None, name=None).model_dump(include={"name", "metadata"}) == {
        "name": "",
        "metadata": {},
    }


def test_a_deleted_store_is_gone_and_its_files_are_not(stores: Stores) -> None:
    file = stores.file()
    store = stores.store(file)

    gone = strict(VectorStoreDeleted, stores.client.delete(f"{PATH}/{store}"))
    assert (gone.id, gone.deleted) == (store, True)
    for response in (
        stores.client.get(f"{PATH}/{store}"),
        stores.client.delete(f"{PATH}/{store}"),
        stores.client.post(f"{PATH}/{store}", json={"name": "x"}),
        stores.client.get(f"{PATH}/{store}/files"),
    ):
        assert store in error_of(response, 404)["message"]
    assert stores.sdk.files.retrieve(file).id == file


def test_a_store_that_nobody_used_for_too_long_says_so_and_takes_nothing(stores: Stores) -> None:
    file = stores.file()
    store = stores.store(file, expires_after={"anchor": "last_active_at", "days": 1})
    kept = stores.library.store(TENANT, store)
    long_ago = msgspec.structs.replace(kept, last_active_at=int(time.time()) - 86_401)
    stores.library.change_store(TENANT, long_ago)

    assert stores.sdk.vector_stores.retrieve(store).status == "expired"
    for path, body in [("search", {"query": "x"}), ("files", {"file_id": file})]:
        error_of(stores.client.post(f"{PATH}/{store}/{path}", json=body), 404)
    stores.sdk.vector_stores.update(store, name="still needed")
    assert stores.sdk.vector_stores.retrieve(store).status == "in_progress"


def test_stores_are_listed_newest_first_page_by_page_with_the_knowledge_bases(
    stores: Stores,
) -> None:
    made = [stores.store(name=str(at)) for at in range(5)]
    expected = [*reversed(made), "handbook"]  # indexed long ago

    pages = stores.sdk.vector_stores.list(limit=2)
    assert [store.id for store in pages] == expected
    ascending = stores.sdk.vector_stores.list(limit=4, order="asc")
    assert [store.id for store in ascending] == expected[::-1]
    response = stores.client.get(PATH, params={"limit": 3})
    told = response.json()
    assert (told["first_id"], told["last_id"]) == (expected[0], expected[2])
    assert told["has_more"] is True
    before = stores.sdk.vector_stores.list(before=expected[3], limit=2)
    assert [store.id for store in before.data] == expected[1:3]


def test_who_deletes_the_stores_that_are_listed_sees_all_of_them(stores: Stores) -> None:
    made = {stores.store() for _ in range(5)}
    for store in stores.sdk.vector_stores.list(limit=2):
        if store.id != "handbook":
            stores.sdk.vector_stores.delete(store.id)
            made.remove(store.id)

    assert not made


def test_a_knowledge_base_is_a_store_that_is_read_only(stores: Stores) -> None:
    store = strict(VectorStore, stores.client.get(f"{PATH}/handbook"))

    assert (store.id, store.name, store.created_at) == ("handbook", "handbook", INDEXED_AT)
    assert (store.status, told_counts(store)) == ("completed", counts(completed=5))
    assert set(stores.reader.asked_for) == {TENANT}


def test_a_knowledge_base_that_is_not_indexed_yet_is_in_progress(tmp_path: Path) -> None:
    with stores_in(tmp_path, knowledge_bases="tickets") as stores:
        listed = {each.id: each for each in stores.sdk.vector_stores.list()}
        assert listed["tickets"].status == "in_progress"
        assert listed["handbook"].status == "completed"
        strict(VectorStore, stores.client.get(f"{PATH}/tickets"))


def test_stores_are_not_listed_without_those_that_cannot_be_reached(stores: Stores) -> None:
    stores.store()
    stores.reader.failure = IndexUnavailable("Milvus is away")

    assert error_of(stores.client.get(PATH), 503)["code"] == "index_unavailable"


WRITES: list[tuple[str, str, Any]] = [
    ("POST", "", {"name": "x"}),
    ("DELETE", "", None),
    ("POST", "/files", {"file_id": "file-1"}),
    ("POST", "/files/d0", {"attributes": {}}),
    ("DELETE", "/files/d0", None),
    ("POST", "/file_batches", {"file_ids": ["file-1"]}),
    ("POST", "/file_batches/vsfb_1/cancel", None),
]


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_a_knowledge_base_cannot_be_changed(
    untouched: Stores, method: str, path: str, body: Any
) -> None:
    error = error_of(untouched.client.request(method, f"{PATH}/handbook{path}", json=body), 403)

    assert error["code"] == "vector_store_read_only"
    assert "handbook" in error["message"]


@pytest.mark.parametrize(("method", "path", "body"), [("POST", None, {}), *WRITES])
def test_a_gateway_without_a_library_says_how_to_give_it_one(
    nowhere: Stores, method: str, path: str | None, body: Any
) -> None:
    place = PATH if path is None else f"{PATH}/{new_id('vector store')}{path}"
    error = error_of(nowhere.client.request(method, place, json=body), 403)

    assert error["code"] == "uploads_disabled"
    assert "GROUNDSERVE_LIBRARY_URL" in error["message"]


def test_a_gateway_without_a_library_has_its_knowledge_bases(nowhere: Stores) -> None:
    assert [store.id for store in nowhere.sdk.vector_stores.list()] == ["handbook"]
    missing = f"{PATH}/{new_id('vector store')}"
    for path in ("", "/files", "/files/x", "/file_batches/x"):
        error_of(nowhere.client.get(missing + path), 404)
    error_of(nowhere.client.post(f"{missing}/search", json={"query": "x"}), 404)


LONG = "x" * 600
CUT = (
    '{"chunking_strategy": {"type": "static", "static": '
    '{"max_chunk_size_tokens": %d, "chunk_overlap_tokens": %d}}}'
)


@pytest.mark.parametrize(
    ("param", "body"),
    [
        (None, "[1]"),
        (None, "{"),
        ("nme", '{"nme": "x"}'),
        ("name", '{"name": 1}'),
        ("name", f'{{"name": "{LONG}"}}'),
        ("metadata", '{"metadata": [1]}'),
        ("metadata", msgspec.json.encode({"metadata": {str(at): "" for at in range(17)}})),
        ("metadata[...]", '{"metadata": {"a": 1}}'),
        ("metadata[...]", f'{{"metadata": {{"a": "{LONG}"}}}}'),
        ("metadata", f'{{"metadata": {{"{LONG}": "a"}}}}'),
        ("metadata", '{"metadata": {"": "a"}}'),
        ("expires_after.anchor", '{"expires_after": {"days": 1}}'),
        ("expires_after.days", '{"expires_after": {"anchor": "last_active_at", "days": 366}}'),
        ("expires_after.anchor", '{"expires_after": {"anchor": "created_at", "days": 1}}'),
        ("file_ids", '{"file_ids": "file-1"}'),
        ("file_ids", msgspec.json.encode({"file_ids": ["file-1"] * 501})),
        ("file_ids[0]", '{"file_ids": [1]}'),
        ("chunking_strategy.type", '{"chunking_strategy": {"type": "other"}}'),
        ("chunking_strategy.static", '{"chunking_strategy": {"type": "static"}}'),
        (
            "chunking_strategy.static.max_chunk_size_tokens",
            CUT % (99, 1),
        ),
        (
            "chunking_strategy.static.chunk_overlap_tokens",
            CUT % (100, 51),
        ),
    ],
)
def test_what_is_wrong_with_a_new_store_is_named_and_nothing_is_made(
    untouched: Stores, param: str | None, body: str | bytes
) -> None:
    assert error_of(untouched.client.post(PATH, content=body), 400)["param"] == param
    assert untouched.library.stores(TENANT) == []


def test_a_store_of_a_file_that_is_not_there_is_not_made(stores: Stores) -> None:
    missing = new_id("file")

    for file_ids in ([missing], [stores.file(), missing], ["../x"], [""]):
        error = error_of(stores.client.post(PATH, json={"file_ids": file_ids}), 404)
        assert repr(file_ids[-1]) in error["message"]
    assert stores.library.stores(TENANT) == []


@pytest.mark.parametrize(
    "store", ["vs_1", "%2e%2e%2fx", "vs_" + "0" * 31 + "g", "x" * 3000, "a%00b", "h%C3%A4ndbuch"]
)
def test_an_id_that_no_store_can_have_is_not_found(untouched: Stores, store: str) -> None:
    for path in ("", "/files", "/files/x", "/files/x/content", "/file_batches/y"):
        response = untouched.client.get(f"{PATH}/{store}{path}")
        assert response.status_code == 404, response.text
        assert len(response.text) < 4000


def test_the_stores_of_another_tenant_do_not_exist(tmp_path: Path) -> None:
    with stores_in(tmp_path, tenant="other") as other:
        file = other.sdk.files.create(file=("a.md", b"x"), purpose="assistants").id
        store = other.store(file)
        batch = other.sdk.vector_stores.file_batches.create(store, file_ids=[file]).id
    with stores_in(tmp_path) as stores:
        assert [each.id for each in stores.sdk.vector_stores.list()] == ["handbook"]
        for path in ("", f"/files/{file}", f"/files/{file}/content", f"/file_batches/{batch}"):
            error_of(stores.client.get(f"{PATH}/{store}{path}"), 404)
        error_of(stores.client.post(f"{PATH}/{store}/search", json={"query": "x"}), 404)
        error_of(stores.client.delete(f"{PATH}/{store}"), 404)
        error_of(stores.client.post(PATH, json={"file_ids": [file]}), 404)
