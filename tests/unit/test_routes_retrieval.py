"""Every option of `retrieval` over HTTP: what it does, and what is refused."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from litestar.testing import TestClient
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gateway.app import create_app
from gateway.settings import GatewaySettings
from indexer.index.collection import Generation
from indexer.index.records import Fingerprint, Hit
from tests.unit.index_fakes import IDENTITY

if TYPE_CHECKING:
    from tests.unit.conftest import FakeAnswer, FakeReader, FakeUpstream
    from tests.unit.index_fakes import FakeEncoder

CHAT = "/v1/chat/completions"
ASKED = "How much grass do llamas eat a day?"
REFUSAL = "That is in no document."
Client = TestClient[Any]
Gateway = Callable[..., Client]


class Halves:
    """Scores each passage by where it comes: 0.5, 0.25 and so on, the last one best."""

    async def start(self) -> None:
        pass

    def check(self) -> None:
        pass

    async def scores(self, question: str, passages: Sequence[str], *_: object) -> list[float]:  # noqa: ARG002
        return [0.5**each for each in range(len(passages), 0, -1)]

    async def close(self) -> None:
        pass


@pytest.fixture
def gateway(
    upstream: "FakeUpstream", reader: "FakeReader", encoder: "FakeEncoder"
) -> Iterator[Gateway]:
    """A started gateway with these settings over the fakes."""
    declared = Fingerprint(
        encoder=IDENTITY, chunker="c", attributes={"public": "boolean", "year": "integer"}
    )
    reader.generation = Generation("documents__g1", declared)
    with ExitStack() as stack:

        def start(*, reranker: Any = None, **settings: Any) -> Client:
            app = create_app(
                GatewaySettings(refusal=REFUSAL, **settings),
                servers=[upstream], reader=reader, load_encoder=lambda: encoder, reranker=reranker,
            )  # fmt: skip
            client = stack.enter_context(TestClient(app, base_url="http://127.0.0.1"))
            ends = time.monotonic() + 10
            while client.get("/health/ready").status_code != 200:
                assert time.monotonic() < ends
            return client

        yield start


def request(retrieval: Any, content: Any = ASKED, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content}]
    return {"model": "default", "messages": messages, "retrieval": retrieval} | fields


def post(client: Client, retrieval: Any, content: Any = ASKED, **fields: Any) -> dict[str, Any]:
    """The message of a plain answer, which the SDK can read."""
    response = client.post(CHAT, json=request(retrieval, content, **fields))
    assert response.status_code == 200, response.text
    message: dict[str, Any] = response.json()["choices"][0]["message"]
    return message


def ids(message: dict[str, Any]) -> list[str]:
    return [each["chunk_id"] for each in message["context"]["citations"]]


@pytest.mark.usefixtures("answer")
@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ({"mode": "dense"}, {"mode": "dense"}),
        ({"mode": "bm25"}, {"mode": "bm25"}),
        ({"mode": "hybrid", "text_weight": 0.25}, {"mode": "hybrid", "text_weight": 0.25}),
        ({"candidates": 50}, {"candidates": 50, "limit": 50}),
        ({"max_num_results": 40}, {"limit": 40}),
        ({}, {"mode": "hybrid", "limit": 40, "candidates": 40, "text_weight": None, "where": ""}),
        (None, {"mode": "hybrid"}),
        (True, {"mode": "hybrid"}),
        ({"filters": {"type": "gte", "key": "year", "value": 2020}},
         {"where": "(attribute_1 >= 2020)"}),
        ({"filters": {"type": "or", "filters": [
            {"type": "eq", "key": "public", "value": True},
            {"type": "in", "key": "year", "value": [1, 2]}]}},
         {"where": "((attribute_0 == true) or (attribute_1 in [1, 2]))"}),
    ],
)  # fmt: skip
def test_an_option_reaches_the_search_and_nothing_of_it_reaches_vllm(
    gateway: Gateway,
    reader: "FakeReader",
    upstream: "FakeUpstream",
    said: Any,
    seen: dict[str, Any],
) -> None:
    post(gateway(), said)

    [(_, _, search)] = reader.searches
    assert {name: getattr(search, name) for name in seen} == seen
    [(_, body)] = upstream.posted
    assert "retrieval" not in msgspec.json.decode(body)


@pytest.mark.usefixtures("answer")
@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"max_num_results": 1}, ["c1"]),
        ({"max_num_results": 3}, ["c1", "c2", "c3"]),
        ({"max_num_results": 3, "score_threshold": 0.6}, ["c1", "c2"]),
        ({"max_num_results": 3, "score_threshold": 1}, []),
        ({"max_num_results": 3, "rerank": True}, ["c3", "c2", "c1"]),
        ({"max_num_results": 3, "rerank": False}, ["c1", "c2", "c3"]),
    ],
)
def test_an_option_decides_what_the_model_gets(
    gateway: Gateway, said: dict[str, Any], kept: list[str]
) -> None:
    client = gateway(reranker=Halves() if "rerank" in said else None)

    assert ids(post(client, said)) == kept


@pytest.mark.usefixtures("answer")
def test_a_document_gets_its_configured_share(gateway: Gateway) -> None:
    client = gateway(document_share=0.4, max_num_results=3)

    assert ids(post(client, {})) == ["c1", "c2"]


@pytest.mark.usefixtures("answer")
def test_neighbours_are_put_to_a_hit(gateway: Gateway, reader: "FakeReader") -> None:
    reader.around = [
        msgspec.structs.replace(reader.hits[0], chunk_id="n", ordinal=1, start=5, end=21,
                                text=" And hay, and so on.")
    ]  # fmt: skip
    message = post(gateway(), {"neighbours": 1, "max_num_results": 1})

    assert reader.asked_around[0][3] == 1
    [citation] = message["context"]["citations"]
    assert citation["content"] == "Llamas eat grass. And hay, and so on."


def test_several_queries_are_asked_of_the_model_and_searched(
    gateway: Gateway, reader: "FakeReader", upstream: "FakeUpstream", answer: "FakeAnswer"
) -> None:
    rewriting = msgspec.json.encode({"choices": [{"message": {"content": "Food of llamas"}}]})
    upstream.answers.insert(0, type(answer)([rewriting]))
    message = post(gateway(), {"num_queries": 2, "explain": True})

    assert [query.text for query in reader.searches[0][1]] == [ASKED, "Food of llamas"]
    assert message["context"]["retrieval"]["queries"] == [ASKED, "Food of llamas"]
    assert len(upstream.posted) == 2


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, {"in_scope": True}),
        ({}, {"in_scope": "refuse"}),
        ({"when_nothing_found": "refuse"}, {}),
        ({"when_nothing_found": "refuse"}, {"in_scope": None}),
        ({"when_nothing_found": "fail"}, {"in_scope": True}),
        ({"relevance_threshold": 0.95, "found": True}, {"in_scope": True}),
        ({"found": True}, {"in_scope": True, "score_threshold": 0.95}),
    ],
)
def test_a_refusal_says_the_configured_sentence_and_asks_no_model(
    gateway: Gateway,
    reader: "FakeReader",
    upstream: "FakeUpstream",
    settings: dict[str, Any],
    said: dict[str, Any],
    stream: bool,
) -> None:
    if not settings.get("found"):
        reader.hits = []
    client = gateway(**{name: each for name, each in settings.items() if name != "found"})
    response = client.post(CHAT, json=request(said, stream=stream))

    assert response.status_code == 200
    assert upstream.posted == []
    if not stream:
        [choice] = ChatCompletion.model_validate_json(response.content).choices
        assert (choice.message.content, choice.finish_reason) == (REFUSAL, "stop")
        assert choice.message.model_extra is not None
        assert choice.message.model_extra["context"]["citations"] == []
        return
    *parts, done = [part for part in response.text.split("\n\n") if part]
    assert done == "data: [DONE]"
    chunks = [ChatCompletionChunk.model_validate_json(p.removeprefix("data: ")) for p in parts]
    assert [chunk.choices[0].delta.content for chunk in chunks] == [REFUSAL, None]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, "stop"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].model == "org/model-a"


@pytest.mark.usefixtures("answer")
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, {}),
        ({"when_nothing_found": "refuse"}, {"in_scope": False}),
        ({"when_nothing_found": "fail"}, {"in_scope": "answer"}),
    ],
)
def test_where_that_is_wanted_nothing_found_is_answered_without_context(
    gateway: Gateway,
    reader: "FakeReader",
    upstream: "FakeUpstream",
    settings: dict[str, Any],
    said: dict[str, Any],
) -> None:
    reader.hits = []

    assert post(gateway(**settings), said)["content"] == "Grass [1]."
    [(_, body)] = upstream.posted
    assert msgspec.json.decode(body)["messages"] == [{"role": "user", "content": ASKED}]


@pytest.mark.parametrize("stream", [True, False])
def test_nothing_found_may_be_an_error(
    gateway: Gateway, reader: "FakeReader", upstream: "FakeUpstream", stream: bool
) -> None:
    reader.hits = []
    response = gateway().post(CHAT, json=request({"in_scope": "fail"}, stream=stream))

    assert (response.status_code, response.json()["error"]["code"]) == (404, "nothing_found")
    assert upstream.posted == []


@pytest.mark.parametrize("stream", [True, False])
def test_a_dry_run_explains_and_asks_no_model(
    gateway: Gateway, hits: Sequence[Hit], upstream: "FakeUpstream", stream: bool
) -> None:
    response = gateway(reranker=Halves()).post(
        CHAT, json=request({"dry_run": True, "max_num_results": 1}, stream=stream)
    )

    assert response.status_code == 200
    assert upstream.posted == []
    if stream:
        first, *_ = response.text.split("\n\n")
        message = msgspec.json.decode(first.removeprefix("data: "))["choices"][0]["delta"]
    else:
        message = response.json()["choices"][0]["message"]
    told = message["context"]["retrieval"]
    assert message["content"] == ""
    assert told["queries"] == [ASKED]
    assert told["prompt"].endswith(f"Question: {ASKED}")
    assert hits[2].text in told["prompt"]
    assert {"rewrite", "embed", "search", "rerank", "fit"} <= told["milliseconds"].keys()
    assert [(each["chunk_id"], each["kept"]) for each in told["candidates"]] == [
        ("c3", True), ("c2", False), ("c1", False),
    ]  # fmt: skip
    assert told["candidates"][0]["scores"].keys() == {"dense", "bm25", "hybrid", "rerank"}
    assert told["candidates"][0]["reason"] == ""
    assert all(each["reason"] for each in told["candidates"][1:])


@pytest.mark.parametrize("in_scope", ["fail", "refuse", "answer"])
def test_a_dry_run_tells_why_nothing_was_found(
    gateway: Gateway, upstream: "FakeUpstream", in_scope: str
) -> None:
    said = {"dry_run": True, "in_scope": in_scope, "score_threshold": 0.99}
    message = post(gateway(), said)

    told = message["context"]["retrieval"]
    assert (message["content"], told["prompt"]) == ("", None)
    assert {each["reason"] for each in told["candidates"]} == {"its score is below 0.99"}
    assert upstream.posted == []


@pytest.mark.usefixtures("answer")
def test_an_explanation_comes_with_the_answer_where_it_is_asked_for(gateway: Gateway) -> None:
    client = gateway()
    message = post(client, {"explain": True})

    assert message["content"] == "Grass [1]."
    assert [each["kept"] for each in message["context"]["retrieval"]["candidates"]][:2] == [
        True
    ] * 2


@pytest.mark.usefixtures("answer")
def test_nothing_is_explained_that_nobody_asked_for(gateway: Gateway) -> None:
    assert "retrieval" not in post(gateway(), {})["context"]


WRONG: list[tuple[Any, str]] = [
    ("yes", "retrieval"),
    (7, "retrieval"),
    ([], "retrieval"),
    ({"no_such": 1}, "retrieval"),
    ({"enabled": "yes"}, "retrieval.enabled"),
    *[({"max_num_results": each}, "retrieval.max_num_results") for each in (0, 51, "3", 1.5)],
    *[({"mode": each}, "retrieval.mode") for each in ("sparse", 1, "")],
    *[({"text_weight": each}, "retrieval.text_weight") for each in (-0.1, 1.1, "1")],
    *[({"candidates": each}, "retrieval.candidates") for each in (0, 201)],
    *[({"score_threshold": each}, "retrieval.score_threshold") for each in (-0.1, 1.01)],
    ({"rerank": "yes"}, "retrieval.rerank"),
    ({"rerank": True}, "retrieval.rerank"),
    *[({"neighbours": each}, "retrieval.neighbours") for each in (-1, 6)],
    *[({"num_queries": each}, "retrieval.num_queries") for each in (0, 6)],
    *[({"in_scope": each}, "retrieval.in_scope") for each in ("maybe", 1)],
    ({"explain": 1}, "retrieval.explain"),
    ({"dry_run": None}, "retrieval.dry_run"),
    ({"dry_run": True, "enabled": False}, "retrieval.dry_run"),
    ({"filters": "year = 2020"}, "retrieval.filters"),
    ({"filters": []}, "retrieval.filters"),
    ({"filters": {"type": "is", "key": "year", "value": 1}}, "retrieval.filters.type"),
    ({"filters": {"type": "eq", "key": "size", "value": 1}}, "retrieval.filters.key"),
    ({"filters": {"type": "eq", "key": "year", "value": "x"}}, "retrieval.filters.value"),
    ({"filters": {"type": "and", "filters": [{"type": "eq", "key": "tenant", "value": "x"}]}},
     "retrieval.filters.filters[0].key"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "param"), WRONG, ids=lambda each: str(each)[:60])
def test_a_wrong_value_is_the_clients_fault_and_named(
    gateway: Gateway, upstream: "FakeUpstream", said: Any, param: str
) -> None:
    client = gateway()
    for stream in (True, False):
        response = client.post(CHAT, json=request(said, stream=stream))

        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert upstream.posted == []


def test_a_dry_run_of_images_alone_is_refused_and_asks_no_model(
    gateway: Gateway, upstream: "FakeUpstream"
) -> None:
    image = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    response = gateway().post(CHAT, json=request({"dry_run": True}, image))

    assert (response.status_code, response.json()["error"]["param"]) == (400, "retrieval.dry_run")
    assert upstream.posted == []


@pytest.mark.usefixtures("answer")
def test_a_client_that_waits_for_less_than_a_silent_milvus_is_answered_without_it(
    gateway: Gateway, reader: "FakeReader", monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*_: object) -> None:
        await asyncio.Event().wait()

    client = gateway(when_unavailable="degrade", milvus_timeout_s=60)
    monkeypatch.setattr(reader, "search", silent)
    answered = client.post(CHAT, json=request(None), headers={"x-groundserve-timeout": "6"})

    assert (answered.status_code, answered.headers["x-groundserve-degraded"]) == (200, "milvus")
