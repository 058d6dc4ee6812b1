"""Valid requests with something wrong in them, for each API: refused in its own shape, and soon."""

import copy
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litestar.testing import TestClient

from gateway.app import create_app
from gateway.settings import GatewaySettings
from indexer.index.collection import Generation
from indexer.index.records import Fingerprint, Hit
from tests.integration.telling_vllm import Telling
from tests.unit.conftest import FakeReader
from tests.unit.index_fakes import IDENTITY, FakeEncoder

MOST_S = 1.0
PARTS = [
    {"type": "text", "text": "What do llamas eat?"},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
OPTIONS = {
    "max_num_results": 2,
    "filters": {"type": "and", "filters": [{"type": "in", "key": "year", "value": [2024]}]},
    "vector_store_ids": ["documents"],
    "score_threshold": 0.1,
}
SAMPLING = {
    "n": 1,
    "stop": ["a"],
    "temperature": 0.5,
    "logit_bias": {"1": 1},
    "stream_options": {"include_usage": True},
    "response_format": {"type": "json_object"},
    "chat_template_kwargs": {"a": 1},
}
VALID: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": "default",
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f"}}]},
            {"role": "tool", "tool_call_id": "c", "content": "x"},
            {"role": "user", "content": PARTS},
        ],
        "tools": [TOOL],
        "retrieval": OPTIONS,
        "logprobs": True,
        "top_logprobs": 2,
        **SAMPLING,
    },
    "/openai/deployments/default/chat/completions": {
        "messages": [{"role": "user", "content": "What?"}],
        "data_sources": [
            {
                "type": "azure_search",
                "parameters": {"top_n_documents": 2, "filter": "year ge 2023", "strictness": 3},
            }
        ],
    },
    "/v1/completions": {"model": "default", "prompt": ["a"], "retrieval": OPTIONS, **SAMPLING},
    "/v1/responses": {
        "model": "default",
        "instructions": "Be short.",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "What?"}]},
            {"type": "function_call_output", "call_id": "c", "output": "x"},
        ],
        "tools": [{"type": "file_search", "vector_store_ids": ["documents"], "filters": None}],
        "metadata": {"a": "b"},
        "include": ["file_search_call.results"],
        "text": {"format": {"type": "text"}},
    },
    "/v1/messages": {
        "model": "default",
        "max_tokens": 9,
        "system": [{"type": "text", "text": "a"}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c"}]},
        ],
        "retrieval": OPTIONS,
    },
    "/v1/messages/count_tokens": {
        "model": "default",
        "messages": [{"role": "user", "content": "a"}],
        "tools": [{"name": "f", "input_schema": {}}],
    },
    "/v1/embeddings": {"model": "model", "input": ["a", "b"], "dimensions": 4, "user": "u"},
    "/v1/rerank": {"model": "m", "query": "q", "documents": ["a", {"text": "b"}], "top_n": 1},
    "/v1/vector_stores": {"name": "a", "metadata": {"a": "b"}, "expires_after": {"days": 1}},
    "/v1/vector_stores/documents/search": {
        "query": ["a"],
        "filters": OPTIONS["filters"],
        "max_num_results": 3,
        "ranking_options": {"score_threshold": 0.1},
    },
}
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 1, 2**31, 2**63, 10**400, 1e308, -0.0, 1e-320]),
    st.sampled_from(["", "\x00", "a" * 5000, "\u2028", "ÿ😀", "${7*7}", '"] or tenant != "', "-1"]),
    st.sampled_from(["file:///etc/passwd", "http://[::1]/", "data:,", "../../etc/passwd"]),
    st.just([]),
    st.just({}),
    st.sampled_from([[[]], [{}], [None] * 3000, {"type": "text"}, {"url": "http://a"}, {"": {}}]),
    st.integers(1, 100).map(lambda deep: json.loads("[" * deep + "]" * deep)),
)
RAW = st.sampled_from(
    [
        b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b'"\\ud800"', b'"\xff"', b"[" * 2000,
        b'{"a":1,"a":2}', b" " * 200_000 + b"1", b"\xef\xbb\xbf", b"tru", b"1 2",
    ]
)  # fmt: skip


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a body, the body itself excepted."""
    if place:
        yield place
    inside = value.items() if isinstance(value, dict) else ()
    for key, each in enumerate(value) if isinstance(value, list) else inside:
        yield from places(each, (*place, key))


def put(body: dict[str, Any], place: tuple[Any, ...], value: Any) -> None:
    target: Any = body
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value


@pytest.fixture(scope="module")
def gateway() -> Iterator[TestClient[Any]]:
    hit = Hit(
        chunk_id="c1", document_id="d1", source="a.md", title="A", heading_path="A", start=0, end=5,
        text="Llamas eat grass.", score=0.9,
    )  # fmt: skip
    reader = FakeReader([hit])
    fingerprint = Fingerprint(encoder=IDENTITY, chunker="c", attributes={"year": "integer"})
    reader.generation = Generation("documents__g1", fingerprint)
    app = create_app(
        GatewaySettings(embedding_model_name="model", rewrite_timeout_s=0),
        servers=[Telling("org/model-a")],
        reader=reader,
        load_encoder=FakeEncoder,
    )
    with TestClient(app, base_url="http://127.0.0.1") as client:
        ends = time.monotonic() + 10
        while client.get("/health/ready").status_code != 200:
            assert time.monotonic() < ends
        yield client


def check(client: TestClient[Any], path: str, content: bytes) -> int:
    began = time.perf_counter()
    response = client.post(path, content=content, headers={"content-type": "application/json"})
    took_s = time.perf_counter() - began

    assert response.status_code < 500, response.text
    assert took_s < MOST_S
    if response.status_code >= 400:
        body = response.json()
        assert isinstance(body["error"]["message"], str)
        if path.startswith("/v1/messages"):
            assert body["type"] == "error"
        else:
            assert set(body["error"]) == {"message", "type", "param", "code"}
    return response.status_code


@pytest.mark.parametrize("path", VALID)
def test_a_request_with_something_wrong_in_it_is_answered_in_shape_and_in_time(
    path: str, gateway: TestClient[Any]
) -> None:
    valid = VALID[path]
    somewhere = list(places(valid))

    @settings(
        max_examples=60,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(st.lists(st.tuples(st.sampled_from(somewhere), VALUES), min_size=1, max_size=3))
    def changed(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
        body = copy.deepcopy(valid)
        for place, value in changes:
            try:
                put(body, place, copy.deepcopy(value))
            except (KeyError, IndexError, TypeError):  # an earlier change took the place away
                continue
        check(gateway, path, json.dumps(body).encode())

    @settings(
        max_examples=25,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(st.sampled_from(somewhere), RAW)
    def broken(place: tuple[Any, ...], raw: bytes) -> None:
        body = copy.deepcopy(valid)
        put(body, place, "PLACEHOLDER")
        content = json.dumps(body).encode().replace(b'"PLACEHOLDER"', raw)
        assert check(gateway, path, content) == 400

    changed()
    broken()


@pytest.mark.parametrize("path", VALID)
def test_what_is_changed_there_is_valid(path: str, gateway: TestClient[Any]) -> None:
    status = check(gateway, path, json.dumps(VALID[path]).encode())
    # There is no reranking model here, and no place for uploads.
    assert status == {"/v1/rerank": 404, "/v1/vector_stores": 403}.get(path, 200)


@pytest.mark.parametrize("path", VALID)
@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate", "gzip, identity"])
def test_a_body_that_would_have_to_be_unpacked_is_refused(
    path: str, coding: str, gateway: TestClient[Any]
) -> None:
    response = gateway.post(path, content=b"\x1f\x8b", headers={"content-encoding": coding})

    assert response.status_code == 400
    assert "content encoding" in response.json()["error"]["message"]
