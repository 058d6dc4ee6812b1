"""Limits as clients meet them: who is let in, what refusals and headers say, what is given back."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from litestar.testing import TestClient
from prometheus_client import REGISTRY
from pydantic import SecretStr

from gateway.access.keys import Key, digest, written
from gateway.access.limit_headers import duration
from gateway.app import create_app
from gateway.settings import GatewaySettings
from tests.unit.conftest import FakeAnswer, FakeReader, FakeUpstream
from tests.unit.index_fakes import FakeEncoder

BODY = {"model": "default", "messages": [{"role": "user", "content": "Llamas?"}], "max_tokens": 20}
MESSAGE = BODY | {"retrieval": {"enabled": False}}
USED = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
WHOLE = msgspec.json.encode(
    {
        "id": "c",
        "choices": [{"index": 0, "message": {"content": "Grass"}, "finish_reason": "stop"}],
        "usage": USED,
    }
)
STREAM = (
    b'data: {"choices":[{"index":0,"delta":{"content":"Grass"}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
)
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"total_tokens":11}}\n\n'
DONE = b"data: [DONE]\n\n"

Client = TestClient[Any]


@pytest.fixture
def upstream() -> FakeUpstream:
    return FakeUpstream("org/small")


@pytest.fixture
def serving(upstream: FakeUpstream, reader: FakeReader, encoder: FakeEncoder) -> Any:
    @contextmanager
    def start(**limits: Any) -> Iterator[Client]:
        keys = [
            Key(
                name=name,
                tenant="t",
                sha256=digest(name.encode()).hex(),
                created_at=0,
                limits=limits.pop(name, {}),
            )
            for name in ("anne", "bert")
        ]
        document = written([msgspec.convert(msgspec.to_builtins(key), Key) for key in keys])
        settings = GatewaySettings(
            open_access=False, api_keys=SecretStr(document.decode()), retrieval=False, **limits
        )
        app = create_app(settings, servers=[upstream], reader=reader, load_encoder=lambda: encoder)
        with TestClient(app, base_url="http://127.0.0.1") as client:
            yield client

    return start


def ask(client: Client, who: str = "anne", path: str = "/v1/chat/completions", **more: Any) -> Any:
    headers = {"authorization": f"Bearer {who}"}
    return client.post(path, json=BODY | more, headers=headers)


def refused(limit: str, whose: str) -> float:
    labels = {"limit": limit, "whose": whose}
    return REGISTRY.get_sample_value("groundserve_limited_total", labels) or 0.0


def test_each_key_has_requests_of_its_own(serving: Any, upstream: FakeUpstream) -> None:
    before = refused("requests", "key")
    upstream.answers = [FakeAnswer([WHOLE]) for _ in range(3)]
    with serving(anne={"requests_per_minute": 2}) as client:
        first, second, third = (ask(client) for _ in range(3))
        other = ask(client, "bert")

    assert [each.status_code for each in (first, second, third, other)] == [200, 200, 429, 200]
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert [each.headers["x-ratelimit-remaining-requests"] for each in (first, second, third)] == [
        *("1", "0", "0"),
    ]
    assert third.headers["x-ratelimit-reset-requests"].startswith(("1m", "5"))
    assert 50 <= int(third.headers["retry-after"]) <= 61
    assert 50_000 <= int(third.headers["retry-after-ms"]) <= 61_000
    error = third.json()["error"]
    assert (error["type"], error["param"], error["code"]) == (
        *("requests", None, "rate_limit_exceeded"),
    )
    assert error["message"].startswith(
        "Rate limit reached for this key on requests per min: limit 2, used 2, requested 1. "
        "Please try again in "
    )
    assert not [name for name in other.headers if "ratelimit" in name]
    assert refused("requests", "key") == before + 1
    assert len(upstream.posted) == 3


def test_a_request_that_is_refused_is_not_read(serving: Any) -> None:
    with serving(key_requests_per_minute=1, max_body_bytes=10) as client:
        assert ask(client).status_code == 413
        assert ask(client).status_code == 429


def test_all_keys_together_are_limited_too(serving: Any, upstream: FakeUpstream) -> None:
    upstream.answers = [FakeAnswer([WHOLE]) for _ in range(2)]
    with serving(requests_per_minute=2, anne={"requests_per_minute": 50}) as client:
        answers = [ask(client), ask(client, "bert"), ask(client), ask(client, "bert")]

    assert [each.status_code for each in answers] == [200, 200, 429, 429]
    assert "for the whole gateway" in answers[2].json()["error"]["message"]
    assert {each.headers["x-ratelimit-limit-requests"] for each in answers} == {"2"}


def test_a_key_without_a_limit_has_the_default_and_another_may_have_more(
    serving: Any, upstream: FakeUpstream
) -> None:
    upstream.answers = [FakeAnswer([WHOLE]) for _ in range(3)]
    with serving(key_requests_per_minute=1, bert={"requests_per_minute": 2}) as client:
        assert [ask(client).status_code for _ in range(2)] == [200, 429]
        assert [ask(client, "bert").status_code for _ in range(3)] == [200, 200, 429]


def test_tokens_are_charged_as_asked_for_and_settled_as_used(
    serving: Any, upstream: FakeUpstream
) -> None:
    upstream.answers = [FakeAnswer([WHOLE]), FakeAnswer([STREAM, USAGE, DONE])]
    with serving(anne={"tokens_per_minute": 100}) as client:
        plain = ask(client)
        streamed = ask(client, stream=True)
        listed = client.get("/v1/models", headers={"authorization": "Bearer anne"})
        large = ask(client, max_tokens=95)

    charged = 100 - int(plain.headers["x-ratelimit-remaining-tokens"])
    assert 25 <= charged <= 40
    assert plain.headers["x-ratelimit-limit-tokens"] == "100"
    assert int(streamed.headers["x-ratelimit-remaining-tokens"]) < 100 - 11 - 20
    assert streamed.content == STREAM + DONE
    assert listed.headers["x-ratelimit-remaining-tokens"] == str(100 - 11 - 11)
    assert large.status_code == 429
    assert large.json()["error"]["type"] == "tokens"
    [_, (_, sent)] = upstream.posted
    assert msgspec.json.decode(sent)["stream_options"] == {"include_usage": True}


def test_a_request_that_can_never_fit_is_not_to_be_tried_again(serving: Any) -> None:
    with serving(anne={"tokens_per_minute": 100}) as client:
        answer = ask(client, max_tokens=101)

    assert answer.status_code == 429
    assert "Request too large" in answer.json()["error"]["message"]
    assert "retry-after" not in answer.headers
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-ratelimit-remaining-tokens"] == "100"


def test_what_failed_costs_no_tokens(serving: Any, upstream: FakeUpstream) -> None:
    upstream.failure = None
    with serving(anne={"tokens_per_minute": 100}) as client:
        assert ask(client, model="no-such-model").status_code == 404
        listed = client.get("/v1/models", headers={"authorization": "Bearer anne"})

    assert listed.headers["x-ratelimit-remaining-tokens"] == "100"


def test_without_tokens_the_next_request_is_refused_before_it_is_read(
    serving: Any, upstream: FakeUpstream
) -> None:
    used = WHOLE.replace(b'"total_tokens":11', b'"total_tokens":500')
    upstream.answers = [FakeAnswer([used])]
    with serving(anne={"tokens_per_minute": 100}) as client:
        assert ask(client).status_code == 200
        answer = client.post(
            "/v1/chat/completions", content=b"{", headers={"authorization": "Bearer anne"}
        )

    assert answer.status_code == 429
    assert answer.json()["error"]["message"].startswith(
        "Rate limit reached for this key on tokens per min: limit 100, used 100, requested 1."
    )


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"model": "fake", "input": "some words"}),
        ("/v1/rerank", {"model": "reranker", "query": "words", "documents": ["some", "words"]}),
        ("/v1/vector_stores/groundserve/search", {"query": "some words"}),
    ],
)
def test_what_no_model_answers_counts_as_well(
    serving: Any, path: str, body: dict[str, Any]
) -> None:
    headers = {"authorization": "Bearer anne"}
    own = {"encoder_model": "fake", "reranker_model": "reranker", "reranker_url": "http://r/v1"}
    with serving(anne={"tokens_per_minute": 1000}, **own) as client:
        answer = client.post(path, json=body, headers=headers)

    charged = 1000 - int(answer.headers["x-ratelimit-remaining-tokens"])
    assert charged == len(answer.request.content) // 4


def test_what_puts_a_question_anew_counts_as_well(serving: Any, upstream: FakeUpstream) -> None:
    anew = WHOLE.replace(b"Grass", b"What do llamas eat?")
    upstream.answers = [FakeAnswer([anew]), FakeAnswer([WHOLE])]
    before = [*BODY["messages"], {"role": "assistant", "content": "Grass."}]  # type: ignore[misc]
    messages = [*before, {"role": "user", "content": "And they?"}]
    with serving(anne={"tokens_per_minute": 1000}) as client:
        answer = ask(client, messages=messages, retrieval={"enabled": True})
        listed = client.get("/v1/models", headers={"authorization": "Bearer anne"})

    assert answer.status_code == 200
    assert [path for path, _ in upstream.posted] == ["/chat/completions"] * 2
    assert listed.headers["x-ratelimit-remaining-tokens"] == str(1000 - 11 - 11)


class _Hanging(FakeAnswer):
    """An answer that goes on until it is told to end."""

    def __init__(self) -> None:
        self.ends = asyncio.Event()
        super().__init__([WHOLE])

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        await self.ends.wait()
        yield WHOLE


@pytest.mark.anyio
async def test_slots_are_given_back_when_the_answer_has_ended(
    upstream: FakeUpstream, reader: FakeReader, encoder: FakeEncoder
) -> None:
    settings = GatewaySettings(
        open_access=True, retrieval=False, key_concurrent_requests=2, concurrent_requests=3
    )
    app = create_app(settings, servers=[upstream], reader=reader, load_encoder=lambda: encoder)
    hanging = [_Hanging(), _Hanging()]
    upstream.answers = [*hanging, FakeAnswer([WHOLE])]

    async def asked() -> tuple[int, dict[str, str], dict[str, Any]]:
        return await _posted(app, BODY)

    async with app.lifespan():
        running = [asyncio.create_task(asked()) for _ in range(2)]
        await _until(lambda: len(upstream.posted) == 2)
        status, headers, body = await asked()
        assert (status, headers["retry-after"]) == (429, "1")
        assert body["error"]["type"] == "requests"
        assert "Too many requests at a time for this key: limit 2" in body["error"]["message"]
        hanging[0].ends.set()
        assert (await running[0])[0] == 200
        assert (await asked())[0] == 200
        hanging[1].ends.set()
        await running[1]


@pytest.mark.anyio
async def test_too_many_in_all_are_an_overload(
    upstream: FakeUpstream, reader: FakeReader, encoder: FakeEncoder
) -> None:
    settings = GatewaySettings(open_access=True, retrieval=False, concurrent_requests=1)
    app = create_app(settings, servers=[upstream], reader=reader, load_encoder=lambda: encoder)
    hanging = _Hanging()
    upstream.answers = [hanging]
    async with app.lifespan():
        running = asyncio.create_task(_posted(app, BODY))
        await _until(lambda: len(upstream.posted) == 1)
        status, headers, body = await _posted(app, BODY)
        assert (status, body["error"]["code"]) == (503, "overloaded")
        assert "retry-after" in headers
        hanging.ends.set()
        assert (await running)[0] == 200


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)


async def _posted(app: Any, body: Any) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Ask the application in this very loop: the test's client waits for one at a time."""
    messages: list[Any] = []
    content = iter([{"type": "http.request", "body": msgspec.json.encode(body)}])

    async def receive() -> Any:
        if (message := next(content, None)) is None:
            await asyncio.Event().wait()
        return message

    async def send(message: Any) -> None:
        messages.append(message)

    path = "/v1/chat/completions"
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": {},
        "extensions": {},
    }
    await app(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
    sent = b"".join(message.get("body", b"") for message in messages[1:])
    return messages[0]["status"], headers, msgspec.json.decode(sent)


def test_anthropics_clients_get_their_own_shape(serving: Any, upstream: FakeUpstream) -> None:
    message = b'{"type":"message","content":[],"stop_reason":"end_turn","usage":{"input_tokens":1}}'
    upstream.answers = [FakeAnswer([message])]
    with serving(anne={"requests_per_minute": 1}) as client:
        first, second = (ask(client, path="/v1/messages") for _ in range(2))

    assert (first.status_code, second.status_code) == (200, 429)
    assert second.json()["error"]["type"] == "rate_limit_error"
    assert second.headers["anthropic-ratelimit-requests-limit"] == "1"
    assert first.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert second.headers["anthropic-ratelimit-requests-reset"].endswith("Z")
    assert "retry-after" in second.headers
    assert "x-ratelimit-limit-requests" not in second.headers


def test_health_and_metrics_are_never_limited(serving: Any) -> None:
    with serving(requests_per_minute=1, concurrent_requests=1) as client:
        for path in ("/health/live", "/metrics", "/openapi.json") * 3:
            answer = client.get(path)
            assert answer.status_code == 200
            assert "x-ratelimit-limit-requests" not in answer.headers


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        *((0, "0s"), (0.02, "20ms"), (0.0001, "1ms"), (0.9999, "1s"), (7.66, "7.66s")),
        *((59.9999, "1m0s"), (60, "1m0s"), (61.5, "1m1.5s"), (360, "6m0s"), (-1, "0s")),
    ],
)
def test_durations_are_written_as_openai_does(seconds: float, told: str) -> None:
    assert duration(seconds) == told
