"""Chat over HTTP: grounded or refused, plain and streaming, with everything behind it faked."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from litestar.testing import TestClient

from gateway.citations import annotations, context
from gateway.errors import UpstreamBroken, UpstreamRejected
from indexer.index.errors import (
    EncodingFailed,
    IndexFailure,
    IndexRefused,
    IndexUnavailable,
    KnowledgeBaseMissing,
)
from indexer.index.records import Hit

if TYPE_CHECKING:
    from tests.unit.conftest import FakeAnswer, FakeReader, FakeUpstream
    from tests.unit.index_fakes import FakeEncoder

CHAT = "/v1/chat/completions"
RELAYED = b'{"any" :  "bytes","choices": [{"finish_reason":"stop"}]}'
ASKED = "What do llamas eat?"
QUESTION: dict[str, Any] = {"model": "default", "messages": [{"role": "user", "content": ASKED}]}
STREAM = [
    b'data: {"choices":[{"index":0,"delta":{"content":"Grass [1]."},"finish_reason":null}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
    b"data: [DONE]\n\n",
]

Client = TestClient[Any]


def events(content: bytes) -> list[Any]:
    """The events of a stream, decoded; [DONE] as it stands."""
    data = [part.removeprefix(b"data: ") for part in content.split(b"\n\n") if part]
    return [part if part == b"[DONE]" else msgspec.json.decode(part) for part in data]


def sent(upstream: "FakeUpstream") -> dict[str, Any]:
    """The one body that vLLM got."""
    [(path, body)] = upstream.posted
    assert path == "/chat/completions"
    return msgspec.json.decode(body, type=dict[str, Any])


def test_a_plain_answer_has_context_and_annotations(
    client: Client, answer: "FakeAnswer", hits: Sequence[Hit]
) -> None:
    response = client.post(CHAT, json=QUESTION)

    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/json")
    assert response.json()["choices"][0]["message"] == {
        "content": "Grass [1].",
        "context": context(ASKED, hits[:2], invalid_citations=0),
        "annotations": annotations("Grass [1].", hits[:2]),
    }
    assert answer.closed == 1


def test_vllm_gets_the_prompt_the_served_model_and_the_defaults(
    client: Client, answer: "FakeAnswer", upstream: "FakeUpstream"
) -> None:
    client.post(CHAT, json=QUESTION | {"model": "default", "user": "u"})

    body = sent(upstream)
    assert (body["model"], body["user"]) == ("org/model-a", "u")
    assert (body["temperature"], body["top_p"]) == (0.2, 0.95)
    prompt = body["messages"][0]["content"]
    assert prompt.endswith(f"Question: {ASKED}")
    assert "Llamas eat grass." in prompt
    assert answer.closed == 1


@pytest.mark.usefixtures("answer")
def test_the_search_is_for_the_question_among_the_rows_of_the_tenant(
    client: Client, reader: "FakeReader", encoder: "FakeEncoder"
) -> None:
    client.post(CHAT, json=QUESTION | {"retrieval": {"max_num_results": 3}})

    assert encoder.calls == [[f"query: {ASKED}"]]
    [(collection, [query], search)] = reader.searches
    assert (collection, query.text, search.tenant) == ("documents__g1", ASKED, "acme")
    assert query.vector is not None
    assert query.vector.shape == (4,)


def test_a_stream_comes_as_events_with_context_and_annotations(
    client: Client, answer: "FakeAnswer", hits: Sequence[Hit]
) -> None:
    answer.pieces = STREAM
    response = client.post(CHAT, json=QUESTION | {"stream": True})

    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache, no-transform"
    assert response.headers["x-request-id"]
    first, last, done = events(response.content)
    assert first["choices"][0]["delta"]["context"] == context(ASKED, hits[:2])
    assert last["choices"][0]["delta"]["annotations"] == annotations("Grass [1].", hits[:2])
    assert done == b"[DONE]"
    assert answer.closed == 1


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("switch", [False, {"enabled": False}])
def test_without_retrieval_nothing_is_searched_and_the_answer_is_relayed_as_it_is(
    client: Client,
    answer: "FakeAnswer",
    reader: "FakeReader",
    encoder: "FakeEncoder",
    upstream: "FakeUpstream",
    stream: bool,
    switch: object,
) -> None:
    answer.pieces = STREAM if stream else [RELAYED]
    reader.failure = IndexUnavailable("Milvus is away, and nobody needs it")
    response = client.post(CHAT, json=QUESTION | {"retrieval": switch, "stream": stream})

    assert (response.status_code, response.content) == (200, b"".join(answer.pieces))
    assert (reader.searches, encoder.calls) == ([], [])
    assert sent(upstream)["messages"] == QUESTION["messages"]
    assert answer.closed == 1


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (IndexUnavailable("away"), 503, "index_unavailable"),
        (KnowledgeBaseMissing("dropped"), 503, "index_missing"),
        (IndexRefused("no"), 502, "index_failed"),
    ],
)
def test_where_the_index_fails_there_is_an_error_and_never_an_ungrounded_answer(
    client: Client,
    reader: "FakeReader",
    upstream: "FakeUpstream",
    stream: bool,
    failure: IndexFailure,
    status: int,
    code: str,
) -> None:
    reader.failure = failure
    response = client.post(CHAT, json=QUESTION | {"stream": stream})

    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert ("retry-after" in response.headers) is (status == 503)
    assert upstream.posted == []


def test_where_the_encoder_fails_there_is_an_error_too(
    client: Client, encoder: "FakeEncoder", upstream: "FakeUpstream"
) -> None:
    encoder.failure = EncodingFailed("out of memory")
    response = client.post(CHAT, json=QUESTION)

    assert (response.status_code, response.json()["error"]["code"]) == (500, "encoding_failed")
    assert upstream.posted == []


@pytest.mark.usefixtures("answer")
def test_a_search_that_fails_once_is_made_again_in_what_is_published_now(
    client: Client, reader: "FakeReader"
) -> None:
    reader.search_failures = [KnowledgeBaseMissing("dropped")]
    reader.generation = msgspec.structs.replace(reader.generation, collection="documents__g2")

    assert client.post(CHAT, json=QUESTION).status_code == 200
    assert [search[0] for search in reader.searches][-1] == "documents__g2"
    assert len(reader.searches) == 2


@pytest.mark.usefixtures("answer")
def test_a_question_that_finds_nothing_is_asked_as_it_is_with_an_empty_context(
    client: Client, reader: "FakeReader", upstream: "FakeUpstream"
) -> None:
    reader.hits = []
    message = client.post(CHAT, json=QUESTION).json()["choices"][0]["message"]

    assert message["context"]["citations"] == message["annotations"] == []
    assert sent(upstream)["messages"] == QUESTION["messages"]


@pytest.mark.usefixtures("answer")
def test_the_time_of_each_stage_is_told(client: Client) -> None:
    timing = client.post(CHAT, json=QUESTION).headers["server-timing"]

    stages = ["admit", "rewrite", "embed", "search", "fit", "first_token"]
    assert re.fullmatch(", ".join(rf"{stage};dur=\d+\.\d" for stage in stages), timing)


def test_a_plain_answer_that_breaks_off_is_an_error(client: Client, answer: "FakeAnswer") -> None:
    answer.pieces, answer.failure = [b'{"choices":['], UpstreamBroken("broke off")
    response = client.post(CHAT, json=QUESTION)

    assert (response.status_code, response.json()["error"]["code"]) == (502, "model_answer_broken")
    assert answer.closed == 1


def test_a_plain_answer_that_is_no_completion_is_an_error(
    client: Client, answer: "FakeAnswer"
) -> None:
    answer.pieces = [b"<html>"]
    response = client.post(CHAT, json=QUESTION)

    assert (response.status_code, response.json()["error"]["code"]) == (502, "model_answer_broken")
    assert answer.closed == 1


@pytest.mark.parametrize("retrieval", [True, False])
def test_a_stream_that_breaks_off_ends_with_an_error_event(
    client: Client, answer: "FakeAnswer", retrieval: bool
) -> None:
    answer.pieces, answer.failure = STREAM[:1], UpstreamBroken("broke off")
    response = client.post(CHAT, json=QUESTION | {"stream": True, "retrieval": retrieval})

    first, error = events(response.content)
    assert first["choices"][0]["delta"]["content"] == "Grass [1]."
    assert error["error"]["code"] == "model_answer_broken"
    assert answer.closed == 1


@pytest.mark.parametrize("model", ["default", "default:retrieval"])
def test_a_model_that_was_swapped_unnoticed_is_asked_for_by_its_new_name(
    client: Client, answer: "FakeAnswer", upstream: "FakeUpstream", model: str
) -> None:
    upstream.answers.insert(0, UpstreamRejected("no such model", 404))
    upstream.served = ["org/model-b"]
    response = client.post(CHAT, json=QUESTION | {"model": model})

    assert response.status_code == 200
    asked = [msgspec.json.decode(body)["model"] for _, body in upstream.posted]
    assert asked[-1] == "org/model-b"
    assert len(asked) == 2
    assert answer.closed == 1


@pytest.mark.usefixtures("answer")
def test_a_model_that_was_named_and_is_gone_is_not_exchanged_for_another(
    client: Client, upstream: "FakeUpstream"
) -> None:
    upstream.answers.insert(0, UpstreamRejected("no such model", 404))
    response = client.post(CHAT, json=QUESTION | {"model": "org/model-a"})

    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
    assert len(upstream.posted) == 1


def test_an_unknown_model_is_refused_without_asking_vllm_for_an_answer(
    client: Client, upstream: "FakeUpstream"
) -> None:
    response = client.post(CHAT, json=QUESTION | {"model": "gpt-4"})

    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
    assert upstream.posted == []
