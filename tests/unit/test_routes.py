"""The application over HTTP, with vLLM, Milvus and the embedding model faked."""

import re
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from litestar.testing import TestClient

from gateway.app import create_app
from gateway.errors import UpstreamBroken, UpstreamRejected, UpstreamUnavailable
from gateway.settings import GatewaySettings
from indexer.index.errors import EncoderUnavailable, IndexUnavailable, KnowledgeBaseMissing

if TYPE_CHECKING:
    from tests.unit.conftest import FakeReader, FakeUpstream
    from tests.unit.index_fakes import FakeEncoder

CHAT = "/v1/chat/completions"
QUESTION: dict[str, Any] = {
    "model": "default",
    "messages": [{"role": "user", "content": "What do llamas eat?"}],
}

Client = TestClient[Any]


def error_of(response: Any) -> dict[str, Any]:
    """The inside of an OpenAI error body, after a look at what every error has."""
    assert response.headers["content-type"].startswith("application/json")
    assert re.fullmatch("req_[0-9a-f]{24}", response.headers["x-request-id"])
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    error: dict[str, Any] = body["error"]
    return error


def test_a_running_process_is_live_whatever_is_away(
    client: Client, upstream: "FakeUpstream", reader: "FakeReader"
) -> None:
    upstream.failure, reader.failure = UpstreamUnavailable("x"), IndexUnavailable("x")

    response = client.get("/health/live")
    assert (response.status_code, response.json()) == (200, {"status": "live"})


def test_a_gateway_with_all_its_parts_is_ready(client: Client) -> None:
    response = client.get("/health/ready")

    assert (response.status_code, response.json()) == (200, {"status": "ready"})


@pytest.mark.parametrize(
    ("failures", "missing"),
    [
        ({"upstream": UpstreamUnavailable("vLLM gone")}, {"vllm": "vLLM gone"}),
        ({"upstream": UpstreamBroken("odd answer")}, {"vllm": "odd answer"}),
        ({"reader": IndexUnavailable("Milvus gone")}, {"milvus": "Milvus gone"}),
        ({"reader": KnowledgeBaseMissing("no alias")}, {"milvus": "no alias"}),
        (
            {"upstream": UpstreamUnavailable("a"), "reader": IndexUnavailable("b")},
            {"vllm": "a", "milvus": "b"},
        ),
    ],
)
def test_a_gateway_that_misses_parts_names_each_with_the_reason_until_it_is_back(
    client: Client,
    upstream: "FakeUpstream",
    reader: "FakeReader",
    failures: dict[str, Exception],
    missing: dict[str, str],
) -> None:
    upstream.failure, reader.failure = failures.get("upstream"), failures.get("reader")
    response = client.get("/health/ready")

    assert response.status_code == 503
    assert response.json() == {"status": "not ready", "missing": missing}
    upstream.failure = reader.failure = None
    assert client.get("/health/ready").status_code == 200


def test_a_model_server_without_a_model_is_not_ready(
    client: Client, upstream: "FakeUpstream"
) -> None:
    upstream.served = []

    assert "no model loaded" in client.get("/health/ready").json()["missing"]["vllm"]


def test_an_encoder_that_cannot_be_loaded_is_named(
    upstream: "FakeUpstream", reader: "FakeReader"
) -> None:
    def fail() -> "FakeEncoder":
        raise EncoderUnavailable("no such model")

    app = create_app(GatewaySettings(), servers=[upstream], reader=reader, load_encoder=fail)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        ends = time.monotonic() + 10
        while "loading" in (missing := client.get("/health/ready").json()["missing"])["encoder"]:
            assert time.monotonic() < ends
        assert missing["encoder"] == "no such model"
        response = client.post(CHAT, json=QUESTION)

    assert response.status_code == 503
    assert error_of(response)["code"] == "encoder_unavailable"


def test_an_index_of_another_encoder_is_not_searched(
    client: Client, upstream: "FakeUpstream", reader: "FakeReader"
) -> None:
    theirs = reader.generation.fingerprint
    other = msgspec.structs.replace(theirs.encoder, revision="2")
    reader.generation = msgspec.structs.replace(
        reader.generation, fingerprint=msgspec.structs.replace(theirs, encoder=other)
    )

    assert "revision '2' is not '1'" in client.get("/health/ready").json()["missing"]["milvus"]
    response = client.post(CHAT, json=QUESTION)
    assert (response.status_code, error_of(response)["code"]) == (503, "index_mismatch")
    assert upstream.posted == []


def test_models_are_what_vllm_serves_and_default(client: Client, upstream: "FakeUpstream") -> None:
    upstream.served = ["org/model-a", "adapter"]
    body = client.get("/v1/models").json()

    assert body["object"] == "list"
    assert [model["id"] for model in body["data"]] == ["org/model-a", "adapter", "default"]
    assert {model["max_model_len"] for model in body["data"]} == {4096}


def test_while_no_model_is_served_the_list_is_empty(
    client: Client, upstream: "FakeUpstream"
) -> None:
    upstream.served = []

    assert client.get("/v1/models").json() == {"object": "list", "data": []}


@pytest.mark.parametrize("name", ["org/model-a", "default"])
def test_a_model_is_retrieved_by_the_name_it_was_asked_by(client: Client, name: str) -> None:
    response = client.get(f"/v1/models/{name}")

    assert response.status_code == 200
    assert response.json() == {"id": name, "object": "model", "max_model_len": 4096}


def test_a_model_that_is_not_served_is_not_found(client: Client) -> None:
    response = client.get("/v1/models/org/other")

    assert response.status_code == 404
    assert (error_of(response)["code"], error_of(response)["param"]) == ("model_not_found", "model")


def test_models_of_a_server_that_is_away_are_unavailable(
    client: Client, upstream: "FakeUpstream"
) -> None:
    upstream.failure = UpstreamUnavailable("away")

    response = client.get("/v1/models")
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    assert error_of(response)["code"] == "model_unavailable"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/unknown", 404, "unknown_url"),
        ("GET", "/", 404, "unknown_url"),
        ("GET", CHAT, 405, "method_not_supported"),
        ("DELETE", "/v1/models/org/model-a", 405, "method_not_supported"),
    ],
)
def test_an_unknown_path_or_method_is_refused_in_openais_shape(
    client: Client, method: str, path: str, status: int, code: str
) -> None:
    response = client.request(method, path)

    assert (response.status_code, error_of(response)["code"]) == (status, code)
    assert error_of(response)["type"] == "invalid_request_error"


def test_a_body_that_is_too_large_is_refused(client: Client, upstream: "FakeUpstream") -> None:
    response = client.post(CHAT, content=b" " * 2001)

    assert (response.status_code, error_of(response)["code"]) == (413, "request_too_large")
    assert upstream.posted == []


def test_a_wrong_body_is_refused_before_anything_is_asked(
    client: Client, upstream: "FakeUpstream", reader: "FakeReader"
) -> None:
    response = client.post(CHAT, json=QUESTION | {"retrieval": {"max_num_results": 0}})

    problem = error_of(response)
    assert (response.status_code, problem["param"]) == (400, "retrieval.max_num_results")
    assert (upstream.posted, reader.searches) == ([], [])


@pytest.mark.usefixtures("answer")
@pytest.mark.parametrize("path", ["/health/live", CHAT, "/v1/unknown"])
def test_a_request_keeps_the_id_it_brought(client: Client, path: str) -> None:
    method = "POST" if path == CHAT else "GET"
    response = client.request(method, path, json=QUESTION, headers={"x-request-id": "mine-1"})

    assert response.headers["x-request-id"] == "mine-1"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("param", ["input_tokens", "input_text"])
def test_a_rejection_by_vllm_reaches_the_client_as_an_openai_error(
    client: Client, upstream: "FakeUpstream", stream: bool, param: str
) -> None:
    upstream.answers.append(UpstreamRejected("too long", 400, param))
    response = client.post(CHAT, json=QUESTION | {"stream": stream})

    assert response.status_code == 400
    problem = error_of(response)
    assert (problem["code"], problem["param"]) == ("context_length_exceeded", "messages")


def test_an_unexpected_failure_tells_the_client_nothing_of_its_text(
    client: Client, upstream: "FakeUpstream"
) -> None:
    upstream.answers.append(RuntimeError("secret"))
    response = client.post(CHAT, json=QUESTION)

    assert (response.status_code, error_of(response)["code"]) == (500, "internal_error")
    assert "secret" not in response.text


def test_leaving_closes_what_was_opened(
    upstream: "FakeUpstream", reader: "FakeReader", encoder: "FakeEncoder"
) -> None:
    app = create_app(
        GatewaySettings(), servers=[upstream], reader=reader, load_encoder=lambda: encoder
    )
    with TestClient(app, base_url="http://127.0.0.1") as client:
        client.get("/health/live")
        assert (upstream.closed, reader.closed) == (0, 0)

    assert (upstream.closed, reader.closed) == (1, 1)
