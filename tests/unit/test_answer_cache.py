"""Answers that are given again: to the same request, for the same model and index, and no other."""

import itertools
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from litestar.testing import TestClient

from gateway.access.callers import Caller, acting_as
from gateway.answer_cache import AnswerCache
from gateway.app import create_app
from gateway.models import Loaded
from gateway.routing import Route
from gateway.settings import GatewaySettings
from indexer.index.collection import Generation, RunRecord
from tests.unit.conftest import COMPLETION, FakeAnswer, FakeReader, FakeUpstream
from tests.unit.index_fakes import FakeEncoder

CHAT = "/v1/chat/completions"
ASKED = {"role": "user", "content": "What do llamas eat?"}
QUESTION: dict[str, Any] = {"model": "default", "messages": [ASKED], "temperature": 0}
STREAM = [
    b'data: {"choices":[{"index":0,"delta":{"content":"Grass [1]."}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
    b"data: [DONE]\n\n",
]
Client = TestClient[Any]


@pytest.fixture
def client(upstream: FakeUpstream, reader: FakeReader, encoder: FakeEncoder) -> Iterator[Client]:
    settings = GatewaySettings(answer_cache_mib=0.01, poll_interval_s=0.02)
    app = create_app(settings, servers=[upstream], reader=reader, load_encoder=lambda: encoder)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        while client.get("/health/ready").status_code != 200:
            pass
        yield client


def answers(upstream: FakeUpstream, *pieces: list[bytes]) -> None:
    upstream.answers = [FakeAnswer(each) for each in pieces]


def asked(client: Client, **fields: Any) -> tuple[str, bytes]:
    """Whether the cache answered, and what."""
    response = client.post(CHAT, json=QUESTION | fields)
    assert response.status_code == 200
    return response.headers.get("x-groundserve-cache", ""), response.content


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("retrieval", [True, False])
def test_the_same_request_gets_the_same_answer_and_vllm_is_asked_once(
    client: Client, upstream: FakeUpstream, stream: bool, retrieval: bool
) -> None:
    answers(upstream, STREAM if stream else [COMPLETION])
    first = asked(client, stream=stream, retrieval=retrieval)
    second = asked(client, stream=stream, retrieval=retrieval)

    assert (first[0], second[0]) == ("", "hit")
    assert second[1] == first[1]
    assert (b"annotations" in second[1]) is retrieval
    assert len(upstream.posted) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.1},
        {"seed": 1},
        {"stream": True},
        {"retrieval": {"max_num_results": 1}},
        {"messages": [ASKED | {"content": "What do llamas drink?"}]},
    ],
)
def test_another_request_is_asked(
    client: Client, upstream: FakeUpstream, fields: dict[str, Any]
) -> None:
    answers(upstream, [COMPLETION], STREAM if fields.get("stream") else [COMPLETION])
    asked(client)

    assert asked(client, **fields)[0] == ""
    assert len(upstream.posted) == 2


def test_what_is_not_at_temperature_0_is_not_kept(client: Client, upstream: FakeUpstream) -> None:
    answers(upstream, [COMPLETION], [COMPLETION])

    assert [asked(client, temperature=None)[0] for _ in range(2)] == ["", ""]


@pytest.mark.parametrize("change", ["generation", "run"])
def test_a_new_index_never_serves_an_old_answer(
    client: Client, upstream: FakeUpstream, reader: FakeReader, change: str
) -> None:
    answers(upstream, [COMPLETION], [COMPLETION.replace(b"Grass", b"Hay")])
    asked(client)
    fingerprint = reader.generation.fingerprint
    record = RunRecord(run=2, finished_at=0, seconds=1, documents=1, chunks=1)
    reader.generation = (
        Generation("documents__g2", fingerprint)
        if change == "generation"
        else Generation("documents__g1", fingerprint, record)
    )
    resolved = len(reader.resolved)
    while len(reader.resolved) < resolved + 2:
        client.get("/health/live")

    kind, answer = asked(client)
    assert (kind, b"Hay" in answer) == ("", True)


def test_another_model_under_the_same_name_is_asked(client: Client, upstream: FakeUpstream) -> None:
    answers(upstream, [COMPLETION], [COMPLETION])
    asked(client)
    for served in ([], ["org/model-a"]):
        upstream.served = served
        seen = upstream.asked
        while upstream.asked < seen + 2:
            client.get("/health/live")

    assert asked(client)[0] == ""


@pytest.mark.parametrize(
    "pieces", [STREAM[:2], [*STREAM[:1], b'data: {"error":{"message":"x"}}\n\n']]
)
def test_a_stream_that_is_not_complete_is_not_kept(
    client: Client, upstream: FakeUpstream, pieces: list[bytes]
) -> None:
    answers(upstream, pieces, STREAM)
    assert b"error" in asked(client, stream=True)[1]

    kind, answer = asked(client, stream=True)
    assert (kind, b"error" in answer) == ("", False)


def test_what_is_kept_is_its_tenants() -> None:
    """Whatever stands in names, which are told apart, and not joined."""
    keys = set()
    loaded = [Loaded(name, Route([])) for name in ("m", "m\0" + "0")]
    for tenant, model in itertools.product(["acme", "ACME", "acme\0m", 'a","m'], loaded):
        with acting_as(Caller(name="x", tenant=tenant)):
            keys.add(AnswerCache.key(model, "/chat/completions", b"{}", "documents__g1@1"))

    assert len(keys) == 8


def test_an_answer_larger_than_the_cache_is_not_kept(
    client: Client, upstream: FakeUpstream
) -> None:
    large = msgspec.json.encode(
        {
            "choices": [
                {"index": 0, "message": {"content": "word " * 10_000}, "finish_reason": "stop"}
            ]
        }
    )
    answers(upstream, [large], [large])

    assert [asked(client)[0] for _ in range(2)] == ["", ""]
