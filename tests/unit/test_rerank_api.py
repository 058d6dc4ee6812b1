"""`/v1/rerank` and `/v2/rerank` over HTTP, with the reranking model faked."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest
from litestar.testing import TestClient

from gateway.app import create_app
from gateway.errors import InvalidRequest, UpstreamBroken, UpstreamRejected, UpstreamUnavailable
from gateway.rerank import MAX_DOCUMENTS, RerankRequest
from gateway.settings import GatewaySettings
from indexer.index.errors import EncoderUnavailable
from tests.unit.conftest import FakeReader, FakeUpstream
from tests.unit.index_fakes import FakeEncoder

Client = TestClient[Any]
Gateway = Callable[..., Client]
REQUEST = {"model": "default", "query": "What?", "documents": ["aaa", "b", "cc"]}


class ShortestFirst:
    """Scores a passage of n characters by 1/n."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []
        self.failure: Exception | None = None

    async def start(self) -> None:
        pass

    def check(self) -> None:
        pass

    async def scores(self, question: str, passages: Sequence[str], *_: object) -> list[float]:
        self.asked.append((question, list(passages)))
        if self.failure is not None:
            raise self.failure
        return [1 / max(1, len(passage)) for passage in passages]

    async def close(self) -> None:
        pass


@pytest.fixture
def reranker() -> ShortestFirst:
    return ShortestFirst()


@pytest.fixture
def gateway(upstream: FakeUpstream, reader: FakeReader, encoder: FakeEncoder) -> Iterator[Gateway]:
    """A started gateway with this reranker and these settings over the fakes."""
    with ExitStack() as stack:

        def start(reranker: ShortestFirst | None, **stated: Any) -> Client:
            app = create_app(
                GatewaySettings(**stated), servers=[upstream], reader=reader,
                load_encoder=lambda: encoder, reranker=reranker,
            )  # fmt: skip
            client = stack.enter_context(TestClient(app, base_url="http://127.0.0.1"))
            ends = time.monotonic() + 10
            while client.get("/health/ready").status_code != 200:
                assert time.monotonic() < ends
            return client

        yield start


@pytest.fixture
def client(gateway: Gateway, reranker: ShortestFirst) -> Client:
    return gateway(reranker, reranker_model="org/reranker")


def ranked(client: Client, path: str = "/v1/rerank", **fields: Any) -> dict[str, Any]:
    response = client.post(path, json=REQUEST | fields)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    assert set(body) == {"id", "model", "results"}
    assert body["id"].startswith("rerank-")
    return body


def refused(client: Client, status: int = 400, **fields: Any) -> dict[str, Any]:
    response = client.post("/v1/rerank", json=REQUEST | fields)
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
def test_documents_come_back_best_first_with_their_places_scores_and_texts(
    client: Client, reranker: ShortestFirst, path: str
) -> None:
    assert ranked(client, path)["results"] == [
        {"index": 1, "relevance_score": 1.0, "document": {"text": "b"}},
        {"index": 2, "relevance_score": 0.5, "document": {"text": "cc"}},
        {"index": 0, "relevance_score": 1 / 3, "document": {"text": "aaa"}},
    ]
    assert reranker.asked == [("What?", ["aaa", "b", "cc"])]


def test_documents_may_be_objects_of_which_the_text_counts(
    client: Client, reranker: ShortestFirst
) -> None:
    given = ["b", {"text": "aaa", "title": "x"}, {"text": ""}]
    results = ranked(client, documents=given)["results"]

    assert [each["index"] for each in results] == [0, 2, 1]
    assert [each["document"] for each in results] == [{"text": t} for t in ("b", "", "aaa")]
    assert reranker.asked == [("What?", ["b", "aaa", ""])]


@pytest.mark.parametrize(
    ("top_n", "places"), [(1, [1]), (2, [1, 2]), (9, [1, 2, 0]), (None, [1, 2, 0])]
)
def test_as_many_come_back_as_are_wanted(
    client: Client, top_n: int | None, places: list[int]
) -> None:
    assert [each["index"] for each in ranked(client, top_n=top_n)["results"]] == places


def test_texts_come_back_unless_they_are_not_wanted(client: Client) -> None:
    bare = ranked(client, return_documents=False)["results"]

    assert all(set(each) == {"index", "relevance_score"} for each in bare)
    for said in (True, None):
        assert ranked(client, return_documents=said)["results"][0]["document"] == {"text": "b"}


def test_documents_of_one_score_keep_their_order(client: Client) -> None:
    results = ranked(client, documents=["aa", "b", "cc", "dd"])["results"]

    assert [each["index"] for each in results] == [1, 0, 2, 3]


def test_the_model_goes_by_its_names_and_answers_tell_no_folder(
    gateway: Gateway, client: Client, reranker: ShortestFirst
) -> None:
    for name in ("reranker", "org/reranker", "default"):
        assert ranked(client, model=name)["model"] == "reranker"
    served = gateway(reranker, reranker_model="org/reranker", reranker_url="http://a/v1")
    assert ranked(served)["model"] == "org/reranker"

    error = refused(client, 404, model="rerank-v3.5")
    assert (error["param"], error["code"]) == ("model", "model_not_found")


def test_where_no_model_is_configured_that_is_said(gateway: Gateway) -> None:
    error = refused(gateway(None), 404)

    assert error["code"] == "model_not_found"
    assert "No reranking model is configured" in error["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"query": None}, "query"),
        ({"query": ""}, "query"),
        ({"query": {"text": "a"}}, "query"),
        ({"documents": None}, "documents"),
        ({"documents": []}, "documents"),
        ({"documents": "a"}, "documents"),
        ({"documents": ["a", 2]}, "documents[1]"),
        ({"documents": ["a", None]}, "documents[1]"),
        ({"documents": ["a", {"image": "x"}]}, "documents[1]"),
        ({"documents": ["a", {"text": 3}]}, "documents[1].text"),
        ({"documents": ["a"] * (MAX_DOCUMENTS + 1)}, "documents"),
        ({"top_n": 0}, "top_n"),
        ({"top_n": "1"}, "top_n"),
        ({"return_documents": 1}, "return_documents"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        RerankRequest.read(msgspec.json.encode(REQUEST | fields))

    assert refused.value.param == param


def test_what_is_wrong_does_not_reach_the_model(client: Client, reranker: ShortestFirst) -> None:
    assert refused(client, documents=["a", 2])["param"] == "documents[1]"
    assert reranker.asked == []


def server_said(status: int) -> UpstreamBroken:
    failure = UpstreamBroken("the rerank server: too long")
    failure.__cause__ = UpstreamRejected("too long", status)
    return failure


@pytest.mark.parametrize(
    ("failure", "status", "param"),
    [
        (server_said(400), 400, "documents"),
        (server_said(401), 502, None),
        (UpstreamBroken("the rerank server: odd"), 502, None),
        (UpstreamUnavailable("the rerank server: away"), 503, None),
        (EncoderUnavailable("still loading"), 503, None),
    ],
)
def test_what_the_model_refuses_is_the_clients_and_what_fails_is_not(
    client: Client, reranker: ShortestFirst, failure: Exception, status: int, param: str | None
) -> None:
    reranker.failure = failure
    error = refused(client, status)

    assert (error["message"], error["param"]) == (str(failure), param)


def test_an_answer_tells_how_long_it_took(client: Client) -> None:
    response = client.post("/v1/rerank", json=REQUEST)

    assert response.headers["server-timing"].startswith("rerank;dur=")
    assert response.headers["content-type"] == "application/json"


def test_a_query_is_charged_for_with_each_document(
    gateway: Gateway, reranker: ShortestFirst
) -> None:
    client = gateway(reranker, reranker_model="org/reranker", tokens_per_minute=100_000)
    body = REQUEST | {"query": "q" * 400, "documents": ["d"] * 50}
    charged = len(client.post("/v1/rerank", json=body).request.content) // 4
    listed = client.get("/v1/models")

    used = 100_000 - int(listed.headers["x-ratelimit-remaining-tokens"])
    assert used == charged + 49 * 100
