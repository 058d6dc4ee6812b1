"""Completions, messages and Azure's paths over HTTP, with everything behind them faked."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from litestar.testing import TestClient
from openai.types import Completion

from gateway.citations import annotations, context
from gateway.errors import UpstreamBroken, UpstreamRejected, UpstreamUnavailable
from indexer.index.records import Hit

if TYPE_CHECKING:
    from tests.unit.conftest import FakeAnswer, FakeReader, FakeUpstream

Client = TestClient[Any]

RELAYED = b'{"any" :  "bytes","choices": [{"finish_reason":"stop"}]}'
RELAYED_MESSAGE = b'{"any" :  "bytes","type":"message","stop_reason" :"end_turn"}'
ASKED = "What do llamas eat?"
PROMPT: dict[str, Any] = {"model": "default", "prompt": ASKED}
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": ASKED}]}
MESSAGE = CHAT | {"model": "default", "max_tokens": 9}
COMPLETION = (
    b'{"id":"c","object":"text_completion","created":1,"model":"m",'
    b'"choices":[{"index":0,"text":"Grass [1].","logprobs":null,"finish_reason":"stop"}]}'
)
SAID = (
    b'{"id":"m","type":"message","role":"assistant","model":"m",'
    b'"content":[{"type":"text","text":"Grass [1]."}],'
    b'"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":2}}'
)
DELTA = '"index":0,"delta":{"type":"text_delta","text":"Grass [1]."}'
SAID_IN_EVENTS = [
    f'event: {name}\ndata: {{"type":"{name}",{fields}}}\n\n'.encode()
    for name, fields in (
        ("message_start", '"message":{"id":"m","content":[]}'),
        ("content_block_delta", DELTA),
        ("content_block_stop", '"index":0'),
        ("message_delta", '"delta":{"stop_reason":"end_turn"}'),
        ("message_stop", '"usage":null'),
    )
]


def sent(upstream: "FakeUpstream") -> tuple[str, dict[str, Any]]:
    """Where the one request to vLLM went, and what stood in it."""
    [(path, body)] = upstream.posted
    return path, msgspec.json.decode(body, type=dict[str, Any])


def errors(content: bytes) -> dict[str, Any]:
    """The error of the last event of a stream."""
    last = content.strip().split(b"\n\n")[-1]
    found: dict[str, Any] = msgspec.json.decode(last.partition(b"data: ")[2])["error"]
    return found


def test_a_completion_is_relayed_and_nothing_is_searched(
    client: Client, answer: "FakeAnswer", reader: "FakeReader", upstream: "FakeUpstream"
) -> None:
    answer.pieces = [RELAYED]
    response = client.post("/v1/completions", json=PROMPT)

    assert (response.status_code, response.content) == (200, RELAYED)
    assert reader.searches == []
    assert sent(upstream) == ("/completions", PROMPT | {"model": "org/model-a"})
    assert answer.closed == 1


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"retrieval": True}, {}),
        ({"retrieval": {"mode": "hybrid"}}, {}),
        ({}, {"x-groundserve-retrieval": "true"}),
        ({"model": "default:retrieval"}, {}),
    ],
)
def test_a_completion_stands_on_documents_where_that_is_asked_for(
    client: Client,
    answer: "FakeAnswer",
    upstream: "FakeUpstream",
    hits: Sequence[Hit],
    fields: dict[str, Any],
    headers: dict[str, str],
) -> None:
    answer.pieces = [COMPLETION]
    response = client.post("/v1/completions", json=PROMPT | fields, headers=headers)

    [choice] = response.json()["choices"]
    assert choice["context"] == context(ASKED, hits[:2], invalid_citations=0)
    assert choice["annotations"] == annotations("Grass [1].", hits[:2])
    assert Completion.model_validate(response.json(), strict=True)
    path, body = sent(upstream)
    assert (path, body["model"], body["temperature"]) == ("/completions", "org/model-a", 0.2)
    assert "Llamas eat grass." in body["prompt"]


@pytest.mark.parametrize("fields", [{"retrieval": True}, {"model": "default:retrieval"}])
def test_token_ids_are_never_answered_without_the_documents_that_were_asked_for(
    client: Client, upstream: "FakeUpstream", fields: dict[str, Any]
) -> None:
    response = client.post("/v1/completions", json=PROMPT | {"prompt": [1, 2]} | fields)

    assert (response.status_code, response.json()["error"]["param"]) == (400, "prompt")
    assert upstream.posted == []


def test_a_stream_of_a_completion_that_breaks_off_ends_with_an_error(
    client: Client, answer: "FakeAnswer"
) -> None:
    answer.pieces, answer.failure = [b"data: " + COMPLETION + b"\n\n"], UpstreamBroken("broke off")
    response = client.post("/v1/completions", json=PROMPT | {"stream": True})

    assert response.headers["content-type"].startswith("text/event-stream")
    assert errors(response.content)["code"] == "model_answer_broken"


def test_a_message_is_relayed_and_nothing_is_searched(
    client: Client, answer: "FakeAnswer", reader: "FakeReader", upstream: "FakeUpstream"
) -> None:
    answer.pieces = [RELAYED_MESSAGE]
    headers = {"anthropic-version": "2023-06-01", "x-api-key": "k"}
    response = client.post("/v1/messages", json=MESSAGE, headers=headers)

    assert (response.status_code, response.content) == (200, RELAYED_MESSAGE)
    assert reader.searches == []
    assert sent(upstream) == ("/messages", MESSAGE | {"model": "org/model-a"})
    assert response.headers["request-id"] == response.headers["x-request-id"]


def test_a_message_stands_on_documents_where_that_is_asked_for(
    client: Client, answer: "FakeAnswer", upstream: "FakeUpstream", hits: Sequence[Hit]
) -> None:
    answer.pieces = [SAID]
    message = client.post("/v1/messages", json=MESSAGE | {"retrieval": True}).json()

    assert message["context"] == context(ASKED, hits[:2], invalid_citations=0)
    [citation] = message["content"][0]["citations"]
    assert (citation["search_result_index"], citation["cited_text"]) == (0, hits[0].text)
    assert "Llamas eat grass." in sent(upstream)[1]["messages"][0]["content"]


def test_a_stream_of_a_message_has_context_and_citations(
    client: Client, answer: "FakeAnswer"
) -> None:
    answer.pieces = SAID_IN_EVENTS
    content = client.post(
        "/v1/messages", json=MESSAGE | {"retrieval": True, "stream": True}
    ).content

    first, text, citation, *rest = content.strip().split(b"\n\n")
    assert b'"context":{' in first
    assert b"citations_delta" in citation
    assert [text + b"\n\n", *(event + b"\n\n" for event in rest)] == SAID_IN_EVENTS[1:]


def test_tokens_of_a_message_are_counted_with_the_documents_it_asks_for(
    client: Client, answer: "FakeAnswer", upstream: "FakeUpstream"
) -> None:
    answer.pieces = [b'{"input_tokens":3}']
    body = CHAT | {"model": "default", "retrieval": True}
    response = client.post("/v1/messages/count_tokens", json=body)

    assert response.json() == {"input_tokens": 3}
    path, counted = sent(upstream)
    assert path == "/messages/count_tokens"
    assert "Llamas eat grass." in counted["messages"][0]["content"]


def test_a_refusal_is_a_message_and_asks_no_model(
    client: Client, reader: "FakeReader", upstream: "FakeUpstream"
) -> None:
    reader.hits = []
    body = MESSAGE | {"retrieval": {"in_scope": "refuse"}}
    message = client.post("/v1/messages", json=body).json()
    events = client.post("/v1/messages", json=body | {"stream": True}).content
    counted = client.post("/v1/messages/count_tokens", json=body).json()

    assert message["content"][0]["text"].startswith("The documents hold nothing")
    assert message["content"][0]["text"].encode() in events
    assert counted == {"input_tokens": 0}
    assert upstream.posted == []


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"{", 400, "invalid_request_error"),
        (msgspec.json.encode(MESSAGE | {"max_tokens": None}), 400, "invalid_request_error"),
        (msgspec.json.encode(MESSAGE | {"model": "gpt"}), 404, "not_found_error"),
        (b'"' + b"x" * 3000 + b'"', 413, "request_too_large"),
    ],
)
def test_what_is_wrong_with_a_message_is_told_in_anthropics_words(
    client: Client, body: bytes, status: int, kind: str
) -> None:
    response = client.post(
        "/v1/messages", content=body, headers={"content-type": "application/json"}
    )

    assert (response.status_code, response.json()["type"]) == (status, "error")
    assert response.json()["error"]["type"] == kind
    assert response.json()["request_id"] == response.headers["request-id"]


def test_a_wrong_method_or_path_is_told_in_anthropics_words_too(client: Client) -> None:
    assert client.get("/v1/messages").json()["type"] == "error"
    assert client.post("/v1/messages/batches").json()["error"]["type"] == "not_found_error"


@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [
        (UpstreamRejected("too long", 400), 400, "invalid_request_error"),
        (UpstreamUnavailable("away"), 503, "overloaded_error"),
        (UpstreamRejected("crashed", 500), 502, "api_error"),
    ],
)
def test_what_vllm_says_is_told_in_anthropics_words(
    client: Client, upstream: "FakeUpstream", failure: Exception, status: int, kind: str
) -> None:
    upstream.answers = [failure] * 3
    response = client.post("/v1/messages", json=MESSAGE)

    assert (response.status_code, response.json()["error"]["type"]) == (status, kind)
    assert ("retry-after" in response.headers) is (status == 503)


def test_each_request_has_an_id_of_its_own(client: Client) -> None:
    ids = [client.get("/v1/messages").headers["request-id"] for _ in range(2)]

    assert len(set(ids)) == 2


@pytest.mark.parametrize("name", ["default", "org/model-a"])
def test_a_deployment_names_the_model_of_a_chat(
    client: Client, answer: "FakeAnswer", upstream: "FakeUpstream", name: str, hits: Sequence[Hit]
) -> None:
    source = {"type": "azure_search", "parameters": {"top_n_documents": 1, "in_scope": True}}
    response = client.post(
        f"/openai/deployments/{name}/chat/completions?api-version=2024-10-21",
        json=CHAT | {"model": "ignored", "data_sources": [source]},
        headers={"api-key": "k"},
    )

    assert answer.closed == 1
    message = response.json()["choices"][0]["message"]
    assert message["context"] == context(ASKED, hits[:1], invalid_citations=0)
    path, body = sent(upstream)
    assert (path, body["model"]) == ("/chat/completions", "org/model-a")
    assert "data_sources" not in body


def test_a_deployment_completes_and_embeds(
    client: Client, answer: "FakeAnswer", upstream: "FakeUpstream"
) -> None:
    answer.pieces = [COMPLETION]
    completion = client.post("/openai/deployments/default/completions", json={"prompt": ASKED})
    known = client.post("/v1/embeddings", json={"model": "?", "input": "x"}).json()["error"]
    named = client.post("/openai/deployments/other/embeddings", json={"input": "x"}).json()["error"]

    assert completion.content == COMPLETION
    assert sent(upstream)[0] == "/completions"
    assert (known["code"], named["code"]) == ("model_not_found", "model_not_found")
    assert "'other'" in named["message"]


@pytest.mark.parametrize(
    "path", ["default/audio/speech", "completions", "default", "default/chat/completions/x"]
)
def test_a_deployment_does_nothing_else(client: Client, path: str) -> None:
    response = client.post(f"/openai/deployments/{path}", json=CHAT)

    assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_url")


@pytest.mark.parametrize(
    ("parameters", "status", "param"),
    [
        ({"top_n_documents": 0}, 400, "top_n_documents"),
        ({"filter": "size eq 1"}, 400, "filter.key"),
        ({"index_name": "nowhere"}, 404, "index_name[0]"),
    ],
)
def test_a_wrong_data_source_is_named(
    client: Client, parameters: dict[str, Any], status: int, param: str
) -> None:
    source = {"type": "milvus", "parameters": parameters}
    response = client.post(
        "/openai/deployments/default/chat/completions", json=CHAT | {"data_sources": [source]}
    )

    assert response.status_code == status
    assert response.json()["error"]["param"] == f"data_sources[0].parameters.{param}"


@pytest.mark.usefixtures("answer")
def test_the_plain_client_finds_openais_paths_below_openai(client: Client) -> None:
    listed = client.get("/openai/v1/models").json()["data"]
    chat = client.post("/openai/v1/chat/completions", json=CHAT | {"model": "default"})

    assert "default" in [model["id"] for model in listed]
    assert chat.json()["choices"][0]["message"]["context"]
