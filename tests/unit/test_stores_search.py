"""`/v1/vector_stores/{id}/search` over HTTP: what is searched for, where, and what comes back."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openai.types import VectorStoreSearchResponse

from gateway.access.request_guard import RequestGuard
from gateway.errors import UpstreamUnavailable
from gateway.models import Models
from gateway.retrieval.catalogue import Catalogue
from gateway.retrieval.options import Wanted
from gateway.retrieval.retriever import Retrieved, Retriever
from gateway.settings import GatewaySettings
from gateway.stages import Stages
from gateway.stores.search import StoreSearch
from gateway.understanding import QUESTION_CHARS, Understanding
from gateway.uploads import Uploads
from indexer.index.errors import IndexUnavailable
from indexer.index.library import StoreOutcome, new_id
from indexer.index.records import Hit
from tests.unit.conftest import FakeAnswer, MakeHit
from tests.unit.stores_fakes import TENANT, Stores, error_of, stores_in

HANDBOOK = "/v1/vector_stores/handbook/search"
NOBODYS = "vs_" + "0" * 32
YEAR = {"type": "gte", "key": "year", "value": 2020}


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with stores_in(tmp_path) as stores:
        yield stores


@pytest.fixture
def hit(make_hit: MakeHit) -> Hit:
    attributes = {"year": 2024, "product": "router", "nested": {"a": 1}}
    return make_hit(document_id="d1", source="docs/a.md", attributes=attributes)


def said_of(stores: Stores) -> list[str]:
    """The questions of the last search."""
    return [query.text for query in stores.reader.searches[-1][1]]


def test_a_result_is_a_chunk_of_a_file(stores: Stores, hit: Hit) -> None:
    stores.reader.found["handbook"] = [hit]

    response = stores.client.post(HANDBOOK, json={"query": "What do llamas eat?"})
    told = response.json()
    assert (told["object"], told["search_query"]) == (
        "vector_store.search_results.page",
        ["What do llamas eat?"],
    )
    assert (told["has_more"], told["next_page"]) == (False, None)
    [result] = told["data"]
    found = VectorStoreSearchResponse.model_validate_json(msgspec.json.encode(result), strict=True)
    assert (found.file_id, found.filename, found.score) == ("d1", "a.md", 0.9)
    assert found.attributes == {"year": 2024, "product": "router"}
    assert [part.text for part in found.content] == ["Llamas eat grass."]
    assert (result["chunk_id"], result["start_index"], result["end_index"]) == ("c1", 0, 5)
    assert "search;dur=" in response.headers["server-timing"]


def test_the_sdk_reads_the_results(stores: Stores, hit: Hit) -> None:
    stores.reader.found["handbook"] = [hit]

    page = stores.sdk.vector_stores.search("handbook", query=["a", "b"])
    assert [result.score for result in page] == [0.9]
    assert said_of(stores) == ["a", "b"]


def test_of_a_question_without_end_the_beginning_is_searched_with(stores: Stores) -> None:
    told = stores.client.post(HANDBOOK, json={"query": ["zq " * 100_000, "b"]}).json()

    assert told["search_query"] == said_of(stores) == [("zq " * 100_000)[:QUESTION_CHARS], "b"]


@pytest.mark.parametrize(("wanted", "limit"), [(None, 40), (1, 40), (50, 50)])
def test_so_many_results_are_given_as_are_asked_for(
    stores: Stores, make_hit: MakeHit, wanted: int | None, limit: int
) -> None:
    stores.reader.found["handbook"] = [
        make_hit(chunk_id=f"c{at}", document_id=f"d{at}", text=f"word{at} " * 9) for at in range(60)
    ]
    said = {"query": "x", "max_num_results": wanted}

    assert len(stores.client.post(HANDBOOK, json=said).json()["data"]) == (wanted or 10)
    assert stores.reader.searches[-1][2].limit == limit


def test_filter_and_threshold_are_kept(stores: Stores, make_hit: MakeHit) -> None:
    stores.reader.found["handbook"] = [
        make_hit(chunk_id="c1", score=0.9),
        make_hit(chunk_id="c2", document_id="d2", text="Something else.", score=0.3),
    ]
    said = {
        "query": "x",
        "filters": YEAR,
        "ranking_options": {"ranker": "auto", "score_threshold": 0.5},
    }

    [result] = stores.client.post(HANDBOOK, json=said).json()["data"]
    search = stores.reader.searches[-1][2]
    assert (result["chunk_id"], search.tenant) == ("c1", TENANT)
    assert search.where == "(attribute_1 >= 2020.0)"


def test_a_store_without_a_file_that_is_ready_has_no_results(stores: Stores) -> None:
    store = stores.store(stores.file())
    place = f"/v1/vector_stores/{store}/search"

    assert stores.client.post(place, json={"query": "x"}).json()["data"] == []
    wrong = {"query": "x", "filters": {"type": "eq"}}
    assert error_of(stores.client.post(place, json=wrong), 400)["param"] == "filters.key"
    assert stores.reader.searches == []


def test_what_has_become_ready_is_found_at_once(stores: Stores, hit: Hit) -> None:
    store = stores.store(stores.file())
    place = f"/v1/vector_stores/{store}/search"
    stores.reader.found[store] = [hit]
    assert stores.client.post(place, json={"query": "x"}).json()["data"] == []

    stores.index(store)
    assert len(stores.client.post(place, json={"query": "x"}).json()["data"]) == 1
    # Another generation, as soon as it is told of.
    stores.reader.publish(store)
    outcome = stores.library.outcome(TENANT, store)
    later = msgspec.structs.replace(outcome, finished_at=int(time.time()) + 1)
    stores.library.write_outcome(TENANT, store, later)
    assert len(stores.client.post(place, json={"query": "x"}).json()["data"]) == 1
    assert stores.reader.searches[-1][0] == stores.reader.generations[store].collection


def test_who_searches_a_store_uses_it(stores: Stores) -> None:
    store = stores.store()
    kept = stores.library.store(TENANT, store)
    before = msgspec.structs.replace(kept, last_active_at=kept.last_active_at - 1000)
    stores.library.change_store(TENANT, before)

    stores.client.post(f"/v1/vector_stores/{store}/search", json={"query": "x"})
    used = stores.sdk.vector_stores.retrieve(store).last_active_at
    assert used is not None
    assert used >= kept.last_active_at


def test_a_search_that_fails_is_no_empty_result(stores: Stores, hit: Hit) -> None:
    stores.reader.found["handbook"] = [hit]
    stores.reader.failure = IndexUnavailable("Milvus is away")

    error = error_of(stores.client.post(HANDBOOK, json={"query": "x"}), 503)
    assert error["code"] == "index_unavailable"


def test_a_store_whose_index_is_lost_fails(stores: Stores) -> None:
    store = stores.store(stores.file())
    stores.library.write_outcome(TENANT, store, StoreOutcome(is_published=True))

    place = f"/v1/vector_stores/{store}/search"
    assert error_of(stores.client.post(place, json={"query": "x"}), 503)["code"] == "index_missing"


def test_the_model_puts_a_query_anew_where_that_is_wanted(stores: Stores) -> None:
    answer = b'{"choices":[{"message":{"content":"llama diet"},"finish_reason":"stop"}]}'
    stores.upstream.answers += [FakeAnswer([answer]), FakeAnswer([answer])]
    said = {"query": ["what do they eat?", "and drink?"], "rewrite_query": True}

    told = stores.client.post(HANDBOOK, json=said).json()
    assert told["search_query"] == ["llama diet", "llama diet"]
    assert said_of(stores) == ["llama diet", "llama diet"]
    assert len(stores.upstream.posted) == 2


def test_a_query_is_searched_for_as_it_is_where_no_model_helps(stores: Stores) -> None:
    said = {"query": "llamas", "rewrite_query": True}

    stores.upstream.answers += [UpstreamUnavailable("it is gone")] * 3
    assert stores.client.post(HANDBOOK, json=said).json()["search_query"] == ["llamas"]
    stores.upstream.failure = UpstreamUnavailable("it is gone")
    stores.client.get("/v1/models")
    asked = len(stores.upstream.posted)
    assert stores.client.post(HANDBOOK, json=said).json()["search_query"] == ["llamas"]
    assert len(stores.upstream.posted) == asked


def test_a_gateway_that_puts_no_question_anew_does_not_here_either(tmp_path: Path) -> None:
    with stores_in(tmp_path, rewrite_timeout_s=0) as stores:
        said = {"query": "llamas", "rewrite_query": True}
        assert stores.client.post(HANDBOOK, json=said).json()["search_query"] == ["llamas"]
        assert stores.upstream.posted == []


@pytest.mark.anyio
@pytest.mark.usefixtures("acting")
@pytest.mark.parametrize(
    ("ranking", "can_rerank", "rerank"),
    [
        (None, True, True),
        ({}, True, True),
        ({"ranker": "auto"}, True, True),
        ({"ranker": "default-2024-11-15"}, True, True),
        ({"ranker": "none"}, True, False),
        ({"ranker": "auto"}, False, False),
    ],
)
async def test_results_are_ranked_once_more_where_that_is_possible_and_wanted(
    ranking: dict[str, str] | None, *, can_rerank: bool, rerank: bool
) -> None:
    asked: list[Wanted] = []

    class FakeRetriever(Retriever):
        can_rerank = False

        def __init__(self) -> None:
            pass

        async def retrieve(self, _: object, wanted: Wanted, stages: Stages) -> Retrieved:  # noqa: ARG002
            asked.append(wanted)
            return Retrieved(hits=[])

    class NoModels(Models):
        def __init__(self) -> None:
            pass

    FakeRetriever.can_rerank = can_rerank
    catalogue = Catalogue(["handbook"], Uploads(None))
    understanding = Understanding(0, RequestGuard(TENANT))
    search = StoreSearch(GatewaySettings(), FakeRetriever(), catalogue, NoModels(), understanding)
    body = msgspec.json.encode({"query": "x", "ranking_options": ranking})
    await search.answer("handbook", body, Stages())

    [wanted] = asked
    assert (wanted.rerank, wanted.stores) == (rerank, ("handbook",))


def test_a_chat_names_stores_of_the_library_too(stores: Stores, hit: Hit) -> None:
    store = stores.store(stores.file())
    stores.reader.found[store] = [hit]

    def candidates(*ids: str) -> Any:
        said = {
            "model": "default",
            "messages": [{"role": "user", "content": "What do llamas eat all day long?"}],
            "retrieval": {"vector_store_ids": list(ids), "dry_run": True},
        }
        return stores.client.post("/v1/chat/completions", json=said)

    def found(response: Any) -> list[Any]:
        context = response.json()["choices"][0]["message"]["context"]
        return [each["chunk_id"] for each in context["retrieval"]["candidates"]]

    assert found(candidates(store)) == []  # and nothing of another store
    assert stores.reader.searches == []
    stores.index(store)
    assert found(candidates(store)) == ["c1"]
    assert found(candidates("handbook", store)) == ["c1"]
    error = error_of(candidates("handbook", new_id("vector store")), 404)
    assert error["param"] == "retrieval.vector_store_ids[1]"


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """For requests that change nothing: starting a gateway takes longer than they do."""
    with stores_in(tmp_path_factory.mktemp("library")) as stores:
        yield stores


@pytest.mark.parametrize(
    ("param", "said"),
    [
        ("query", {}),
        ("query", {"query": None}),
        ("query", {"query": 1}),
        ("query", {"query": " \n"}),
        ("query", {"query": []}),
        ("query", {"query": ["x"] * 11}),
        ("query[1]", {"query": ["x", ""]}),
        ("query[0]", {"query": [None]}),
        ("max_num_results", {"query": "x", "max_num_results": 0}),
        ("max_num_results", {"query": "x", "max_num_results": 51}),
        ("rewrite_query", {"query": "x", "rewrite_query": "yes"}),
        ("ranking_options.ranker", {"query": "x", "ranking_options": {"ranker": "best"}}),
        (
            "ranking_options.score_threshold",
            {"query": "x", "ranking_options": {"score_threshold": 1.1}},
        ),
        ("filters", {"query": "x", "filters": []}),
        ("filters.type", {"query": "x", "filters": {"type": "like"}}),
        ("filters.key", {"query": "x", "filters": {**YEAR, "key": "color"}}),
        (
            "filters.filters[0].value",
            {"query": "x", "filters": {"type": "or", "filters": [{**YEAR, "value": "a"}]}},
        ),
        ("limit", {"query": "x", "limit": 1}),
    ],
)
def test_what_is_wrong_with_a_search_is_named(
    untouched: Stores, param: str, said: dict[str, Any]
) -> None:
    assert error_of(untouched.client.post(HANDBOOK, json=said), 400)["param"] == param


@pytest.mark.parametrize("store", ["vs_1", NOBODYS, "tickets", "x" * 3000])
def test_a_store_that_is_not_there_is_not_searched(untouched: Stores, store: str) -> None:
    response = untouched.client.post(f"/v1/vector_stores/{store}/search", json={"query": "x"})

    assert error_of(response, 404)["code"] == "vector_store_not_found"
