"""`/v1/vector_stores/…/file_batches` over HTTP: files that are put into a store together."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openai.types.vector_stores import VectorStoreFileBatch

from indexer.index.library import new_id
from tests.unit.stores_fakes import TENANT, Stores, error_of, stores_in, strict

PATH = "/v1/vector_stores"


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with stores_in(tmp_path) as stores:
        yield stores


def told(response: Any) -> tuple[str, dict[str, int]]:
    """Status and counts of a batch, without those that are 0."""
    batch = strict(VectorStoreFileBatch, response)
    counts = batch.file_counts.model_dump()
    return batch.status, {name: count for name, count in counts.items() if count}


def test_a_batch_is_in_progress_until_each_file_has_an_outcome(stores: Stores) -> None:
    good, bad, other, store = (
        stores.file("good.md"),
        stores.file("bad.md"),
        stores.file(),
        stores.store(),
    )
    stores.library.attach(TENANT, store, other)
    said = {"file_ids": [good, bad, good], "attributes": {"year": 2024}}

    response = stores.client.post(f"{PATH}/{store}/file_batches", json=said)
    assert told(response) == ("in_progress", {"in_progress": 2, "total": 2})
    assert int(response.headers["openai-poll-after-ms"]) > 0
    place = f"{PATH}/{store}/file_batches/{response.json()['id']}"
    assert told(stores.client.get(place)) == ("in_progress", {"in_progress": 2, "total": 2})
    assert stores.attributes(store, bad) == {"year": 2024.0}
    stores.index(store, bad=("invalid_file", "x"))
    response = stores.client.get(place)
    assert told(response) == ("completed", {"completed": 1, "failed": 1, "total": 2})
    assert "openai-poll-after-ms" not in response.headers


def test_each_file_of_a_batch_may_have_attributes_of_its_own(stores: Stores) -> None:
    one, two, store = stores.file(), stores.file(), stores.store()
    stores.sdk.vector_stores.file_batches.create(
        store, files=[{"file_id": one, "attributes": {"year": 1}}, {"file_id": two}]
    )

    assert stores.attributes(store, one) == {"year": 1.0}
    assert stores.attributes(store, two) == {}


def test_a_batch_of_which_every_file_failed_has_failed(stores: Stores) -> None:
    file, store = stores.file("bad.md"), stores.store()
    batch = stores.sdk.vector_stores.file_batches.create(store, file_ids=[file])
    stores.index(store, bad=("invalid_file", "x"))

    assert told(stores.client.get(f"{PATH}/{store}/file_batches/{batch.id}"))[0] == "failed"


def test_a_cancelled_batch_keeps_what_is_ready_and_no_more_is_indexed(stores: Stores) -> None:
    ready, waiting, store = stores.file(), stores.file(), stores.store()
    batch = stores.sdk.vector_stores.file_batches.create(store, file_ids=[ready, waiting])
    stores.library.detach(TENANT, store, waiting)
    stores.index(store)
    stores.library.attach(TENANT, store, waiting)
    # Somebody has put it in anew: that is not this batch's.
    place = f"{PATH}/{store}/file_batches/{batch.id}"
    assert told(stores.client.post(f"{place}/cancel"))[0] == "in_progress"
    anew = stores.sdk.vector_stores.file_batches.create(store, file_ids=[waiting])
    response = stores.client.post(f"{PATH}/{store}/file_batches/{anew.id}/cancel")
    assert told(response) == ("cancelled", {"cancelled": 1, "total": 1})
    assert told(stores.client.get(place)) == (
        "cancelled",
        {"completed": 1, "cancelled": 1, "total": 2},
    )
    file = stores.sdk.vector_stores.files.retrieve(waiting, vector_store_id=store)
    assert (file.status, file.last_error) == ("cancelled", None)
    assert stores.sdk.vector_stores.retrieve(store).file_counts.cancelled == 1
    assert told(stores.client.post(f"{place}/cancel"))[0] == "cancelled"  # once more


def test_files_that_have_left_the_store_are_counted_no_more(stores: Stores) -> None:
    one, two, store = stores.file(), stores.file(), stores.store()
    batch = stores.sdk.vector_stores.file_batches.create(store, file_ids=[one, two])
    stores.index(store)

    stores.sdk.vector_stores.files.delete(one, vector_store_id=store)
    place = f"{PATH}/{store}/file_batches/{batch.id}"
    assert told(stores.client.get(place)) == ("completed", {"completed": 1, "total": 1})
    stores.sdk.files.delete(two)
    assert told(stores.client.get(place)) == ("completed", {})


def test_the_files_of_a_batch_are_listed_page_by_page(stores: Stores) -> None:
    other, store = stores.file(), stores.store()
    stores.library.attach(TENANT, store, other)
    files = [stores.file(f"{at}.md") for at in range(5)]
    bad = stores.file("bad.md")
    batches = stores.sdk.vector_stores.file_batches
    batch = batches.create(store, file_ids=[*files, bad]).id
    stores.index(store, bad=("invalid_file", "x"))

    listed = [file.id for file in batches.list_files(batch, vector_store_id=store, limit=2)]
    assert set(listed) == {*files, bad}
    assert len(listed) == 6
    ascending = batches.list_files(batch, vector_store_id=store, limit=4, order="asc")
    assert [file.id for file in ascending] == listed[::-1]
    failed = batches.list_files(batch, vector_store_id=store, filter="failed")
    assert [file.id for file in failed] == [bad]
    response = stores.client.get(
        f"{PATH}/{store}/file_batches/{batch}/files", params={"filter": "x"}
    )
    assert error_of(response, 400)["param"] == "filter"


STATIC = {"max_chunk_size_tokens": 200, "chunk_overlap_tokens": 0}
LARGER = {"max_chunk_size_tokens": 400, "chunk_overlap_tokens": 0}


@pytest.mark.parametrize(
    ("param", "said"),
    [
        ("file_ids", {}),
        ("file_ids", {"file_ids": []}),
        ("file_ids", {"file_ids": ["F"], "files": [{"file_id": "F"}]}),
        ("file_ids", {"file_ids": ["F"] * 501}),
        ("files", {"files": [{"file_id": "F"}] * 501}),
        ("file_ids[1]", {"file_ids": ["F", 1]}),
        ("files[0].file_id", {"files": [{}]}),
        (
            "files[1].attributes",
            {"files": [{"file_id": "F"}, {"file_id": "F", "attributes": {"": 1}}]},
        ),
        ("attributes", {"file_ids": ["F"], "attributes": {"a": "x" * 513}}),
        (
            "chunking_strategy",
            {
                "files": [
                    {"file_id": "F", "chunking_strategy": {"type": "static", "static": STATIC}},
                    {"file_id": "F", "chunking_strategy": {"type": "static", "static": LARGER}},
                ]
            },
        ),
        ("batch", {"batch": 1}),
    ],
)
def test_what_is_wrong_with_a_batch_is_named_and_nothing_is_attached(
    stores: Stores, param: str, said: dict[str, Any]
) -> None:
    file, store = stores.file(), stores.store()
    body = msgspec.json.encode(said).replace(b'"F"', f'"{file}"'.encode())

    response = stores.client.post(f"{PATH}/{store}/file_batches", content=body)
    assert error_of(response, 400)["param"] == param
    assert stores.library.members(TENANT, store) == []


def test_a_batch_with_a_file_that_is_not_there_attaches_none(stores: Stores) -> None:
    file, store, missing = stores.file(), stores.store(), new_id("file")
    said = {"file_ids": [file, missing]}

    error = error_of(stores.client.post(f"{PATH}/{store}/file_batches", json=said), 404)
    assert missing in error["message"]
    assert stores.library.members(TENANT, store) == []


def test_a_batch_that_is_not_there_is_not_found(stores: Stores) -> None:
    file, store, other = stores.file(), stores.store(), stores.store()
    batch = stores.sdk.vector_stores.file_batches.create(store, file_ids=[file]).id

    for place, of in [
        (store, new_id("file batch")),
        (other, batch),
        (store, "x"),
        ("handbook", batch),
    ]:
        for path in ("", "/files"):
            error_of(stores.client.get(f"{PATH}/{place}/file_batches/{of}{path}"), 404)
    for place, of in [(store, new_id("file batch")), (other, batch)]:
        error_of(stores.client.post(f"{PATH}/{place}/file_batches/{of}/cancel"), 404)
