"""vLLM's answers and faults as the openai client meets them, behind a mocked network."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import httpcore2
import httpx
import httpx2
import openai
import pytest
import respx

from gateway.client import Client
from gateway.errors import UpstreamBroken, UpstreamFailure, UpstreamRejected, UpstreamUnavailable
from gateway.routing import Care, Route
from gateway.upstream import COUNT_TIMEOUT_S, Count, Upstream

pytestmark = pytest.mark.anyio

BASE = "http://vllm.test/v1"
ATTEMPTS = 3
DEEP = b"[" * 100_000 + b"]" * 100_000
"""Deeper than any reader goes."""


@pytest.fixture
async def vllm() -> AsyncIterator[Upstream]:
    client = Client(BASE, "the key", httpx2.AsyncHTTPTransport())
    upstream = Upstream(client)
    yield upstream
    await upstream.close()


def chat(mock: respx.Router, *responses: Any) -> respx.Route:
    """The route that a post goes to, answering with `responses` in turn."""
    return mock.post(f"{BASE}/chat/completions").mock(side_effect=list(responses))


def answer(status: int = 200, **content: Any) -> httpx.Response:
    return respx.MockResponse(status, **content)


def error(status: int, message: str, param: str | None = None) -> httpx.Response:
    """An error as vLLM words it."""
    fields = {"message": message, "type": "BadRequestError", "param": param, "code": status}
    return answer(status, json={"error": fields})


async def post(vllm: Upstream) -> bytes:
    received = await Route([vllm], Care(ATTEMPTS)).post("/chat/completions", b"{}")
    try:
        return await received.read()
    finally:
        await received.close()


async def test_a_body_goes_out_as_it_is_and_the_answer_comes_back_as_it_is(
    vllm: Upstream, httpx2_mock: respx.Router
) -> None:
    route = chat(httpx2_mock, answer(content=b'{"odd" :  1.0}'))
    received = await vllm.post("/chat/completions", b'{"model" : "m", "x":1.0}')

    assert await received.read() == b'{"odd" :  1.0}'
    await received.close()
    assert route.call_count == 1
    request = route.calls.last.request
    assert request.content == b'{"model" : "m", "x":1.0}'
    assert request.headers["content-type"] == "application/json"
    assert request.headers["authorization"] == "Bearer the key"


@pytest.mark.parametrize(
    "fault",
    [
        httpcore2.ConnectError("connection refused"),
        httpcore2.ConnectTimeout("no connection came about"),
        error(503, "model is loading"),
    ],
    ids=["refused", "unreachable", "503"],
)
class TestAModelServerThatIsAway:
    async def test_is_tried_as_often_as_configured_and_then_unavailable(
        self, vllm: Upstream, httpx2_mock: respx.Router, fault: Any
    ) -> None:
        route = chat(httpx2_mock, *[fault] * (ATTEMPTS + 1))
        with pytest.raises(UpstreamUnavailable):
            await post(vllm)

        assert route.call_count == ATTEMPTS

    async def test_is_heard_as_soon_as_it_is_back(
        self, vllm: Upstream, httpx2_mock: respx.Router, fault: Any
    ) -> None:
        route = chat(httpx2_mock, fault, answer(content=b"ok"))

        assert await post(vllm) == b"ok"
        assert route.call_count == 2


async def test_a_request_that_may_have_been_taken_is_not_sent_again(
    vllm: Upstream, httpx2_mock: respx.Router
) -> None:
    fault = httpcore2.RemoteProtocolError("disconnected")
    route = chat(httpx2_mock, *[fault] * ATTEMPTS)
    with pytest.raises(UpstreamUnavailable, match="left without an answer"):
        await post(vllm)

    assert route.call_count == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500, 501, 502, 504])
async def test_an_error_of_vllm_is_a_rejection_with_its_words_and_is_not_tried_again(
    vllm: Upstream, httpx2_mock: respx.Router, status: int
) -> None:
    route = chat(httpx2_mock, *[error(status, "vLLM's reason", "temperature")] * ATTEMPTS)
    with pytest.raises(UpstreamRejected) as rejected:
        await post(vllm)

    assert (rejected.value.message, rejected.value.status) == ("vLLM's reason", status)
    assert rejected.value.param == "temperature"
    assert route.call_count == 1


async def test_a_rejection_after_a_503_is_the_last_word(
    vllm: Upstream, httpx2_mock: respx.Router
) -> None:
    route = chat(httpx2_mock, error(503, "loading"), error(400, "wrong"), answer())
    with pytest.raises(UpstreamRejected, match="answered 400"):
        await post(vllm)

    assert route.call_count == 2


@pytest.mark.parametrize("status", [400, 413, 422, 500, 502])
def test_what_may_repeat_a_prompt_is_in_no_log(status: int) -> None:
    """Logs, and what other clients are told, take a failure as it is printed."""
    failure = UpstreamRejected("Input should be a number, not 'my secret'", status)

    assert str(failure) == f"the model server answered {status}"
    assert "secret" not in repr(failure)


@pytest.mark.parametrize(
    ("vllm_param", "param"),
    [(None, None), ("body.messages", "messages"), ("input_tokens", "input_tokens"), (5, None)],
)
async def test_a_parameter_is_named_as_the_client_knows_it(
    vllm: Upstream, httpx2_mock: respx.Router, vllm_param: Any, param: str | None
) -> None:
    route = chat(httpx2_mock, error(400, "wrong", vllm_param))
    with pytest.raises(UpstreamRejected) as rejected:
        await post(vllm)

    assert rejected.value.param == param
    assert route.call_count == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"content": b"<html>Bad gateway</html>"}, "<html>Bad gateway</html>"),
        ({"content": b""}, "the model server answered 500"),
        ({"json": {"detail": "Not Found"}}, "the model server answered 500"),
        ({"json": []}, "the model server answered 500"),
        ({"json": {"error": "plain text"}}, "plain text"),
        ({"json": {"error": {"message": None}}}, "the model server answered 500"),
        ({"content": b"\xff\xfe"}, None),
    ],
)
async def test_an_error_body_of_any_shape_is_a_rejection(
    vllm: Upstream, httpx2_mock: respx.Router, content: dict[str, Any], words: str | None
) -> None:
    route = chat(httpx2_mock, answer(500, **content))
    with pytest.raises(UpstreamRejected) as rejected:
        await post(vllm)

    assert rejected.value.status == 500
    assert words is None or rejected.value.message == words
    assert str(rejected.value)
    assert route.call_count == 1


async def test_silence_is_a_broken_answer_and_is_not_tried_again(
    vllm: Upstream, httpx2_mock: respx.Router
) -> None:
    route = chat(httpx2_mock, *[httpcore2.ReadTimeout("silence")] * ATTEMPTS)
    with pytest.raises(UpstreamBroken, match="silent"):
        await post(vllm)

    assert route.call_count == 1


async def test_models_are_told_with_everything_that_vllm_says_of_them(
    vllm: Upstream, httpx2_mock: respx.Router
) -> None:
    entries = [
        {"id": "org/a", "object": "model", "max_model_len": 4096, "permission": [{"id": "p"}]},
        {"id": "b", "object": "model", "parent": "org/a"},
    ]
    route = httpx2_mock.get(f"{BASE}/models").respond(json={"object": "list", "data": entries})
    served = await vllm.models()

    assert route.call_count == 1
    assert [model.id for model in served] == ["org/a", "b"]
    assert [model.fields for model in served] == entries


async def test_a_server_without_models_serves_none(
    vllm: Upstream, httpx2_mock: respx.Router
) -> None:
    route = httpx2_mock.get(f"{BASE}/models").respond(json={"object": "list", "data": []})

    assert await vllm.models() == []
    assert route.call_count == 1


@pytest.mark.parametrize(
    "body",
    [
        *(b"<html>", b"{broken", b"{}", b'{"data":[{}]}', b'{"data":[{"id":5}]}'),
        *(b'{"data":"\xff"}', b'{"data":[{"id":"m","x":' + DEEP + b"}]}"),
    ],
    ids=range(7),
)
async def test_a_list_of_models_that_makes_no_sense_is_a_broken_answer(
    vllm: Upstream, httpx2_mock: respx.Router, body: bytes
) -> None:
    route = httpx2_mock.get(f"{BASE}/models").respond(
        content=body, headers={"content-type": "application/json"}
    )
    with pytest.raises(UpstreamBroken, match="makes no sense"):
        await vllm.models()

    assert route.call_count == 1


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (httpcore2.ConnectError("refused"), UpstreamUnavailable),
        (httpcore2.ReadTimeout("silence"), UpstreamBroken),
        (error(503, "loading"), UpstreamUnavailable),
        (error(401, "wrong key"), UpstreamRejected),
    ],
)
async def test_asking_for_models_fails_at_once(
    vllm: Upstream, httpx2_mock: respx.Router, fault: Any, expected: type[UpstreamFailure]
) -> None:
    route = httpx2_mock.get(f"{BASE}/models").mock(side_effect=[fault] * 2)
    with pytest.raises(expected):
        await vllm.models()

    assert route.call_count == 1


@pytest.mark.parametrize(
    ("base", "tokenize"),
    [
        ("http://vllm.test/v1", "http://vllm.test/tokenize"),
        ("http://vllm.test:8000/v1/", "http://vllm.test:8000/tokenize"),
        ("http://vllm.test/llm/v1", "http://vllm.test/llm/tokenize"),
        ("http://vllm.test", "http://vllm.test/tokenize"),
    ],
)
async def test_tokens_are_counted_beside_v1_with_the_same_key(
    httpx2_mock: respx.Router, base: str, tokenize: str
) -> None:
    counted = {"count": 7, "max_model_len": 4096, "tokens": [1, 2], "token_strs": None}
    route = httpx2_mock.post(tokenize).respond(json=counted)
    async with Client(base, "the key", httpx2.AsyncHTTPTransport()) as client:
        count = await Upstream(client).tokenize(b'{"messages" : []}')

    assert count == Count(7, 4096)
    assert route.call_count == 1
    request = route.calls.last.request
    assert request.content == b'{"messages" : []}'
    assert request.headers["authorization"] == "Bearer the key"


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>", b"{}", b'{"count":7}', b'{"count":"7","max_model_len":1}', b"\xff"),
        b'{"count":7,"max_model_len":1,"tokens":' + DEEP + b"}",
    ],
    ids=range(7),
)
async def test_a_count_that_makes_no_sense_is_a_broken_answer(
    vllm: Upstream, httpx2_mock: respx.Router, body: bytes
) -> None:
    route = httpx2_mock.post("http://vllm.test/tokenize").respond(content=body)
    with pytest.raises(UpstreamBroken, match="makes no sense"):
        await vllm.tokenize(b"{}")

    assert route.call_count == 1


async def test_counting_takes_half_of_what_is_left_at_most(
    vllm: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*_: object) -> None:
        await asyncio.Event().wait()

    def within(own_s: float, share: float) -> float:
        asked.append((own_s, share))
        return 0.01

    asked: list[tuple[float, float]] = []
    monkeypatch.setattr("gateway.upstream.within", within)
    monkeypatch.setattr(vllm, "post", silent)
    with pytest.raises(UpstreamBroken, match="did not answer in time"):
        await vllm.tokenize(b"{}")

    assert asked == [(COUNT_TIMEOUT_S, 0.5)]


@pytest.mark.parametrize(
    ("fault", "expected", "asked"),
    [
        (httpcore2.ConnectError("refused"), UpstreamUnavailable, ATTEMPTS),
        (error(503, "loading"), UpstreamUnavailable, ATTEMPTS),
        (httpcore2.ReadTimeout("silence"), UpstreamBroken, 1),
        (error(404, "Not Found"), UpstreamRejected, 1),
    ],
)
async def test_counting_fails_as_generating_does(
    vllm: Upstream,
    httpx2_mock: respx.Router,
    fault: Any,
    expected: type[UpstreamFailure],
    asked: int,
) -> None:
    route = httpx2_mock.post("http://vllm.test/tokenize").mock(side_effect=[fault] * ATTEMPTS)
    with pytest.raises(expected):
        await Route([vllm], Care(ATTEMPTS)).tokenize(b"{}")

    assert route.call_count == asked


EXPORTED: dict[str, type[Exception]] = {
    name: found
    for name in openai.__all__
    if isinstance(found := getattr(openai, name), type) and issubclass(found, Exception)
}
NOT_OF_ITS_TREE = {"InvalidWebhookSignatureError"}  # a ValueError; we take no webhooks


def expected_for(kind: type[Exception]) -> type[UpstreamFailure]:
    if issubclass(kind, openai.APITimeoutError):
        return UpstreamBroken
    if issubclass(kind, openai.APIConnectionError):
        return UpstreamUnavailable
    if issubclass(kind, openai.APIStatusError):
        return UpstreamRejected
    return UpstreamBroken


@pytest.mark.parametrize("name", sorted(EXPORTED.keys() - NOT_OF_ITS_TREE))
async def test_every_error_of_the_client_becomes_one_of_ours(name: str) -> None:
    kind = EXPORTED[name]
    failure = kind.__new__(kind, "the reason")
    failure.__dict__.update(status_code=418, body={"message": "the reason"})

    async def fail(*_: object, **__: object) -> None:
        raise failure

    models = SimpleNamespace(with_raw_response=SimpleNamespace(list=fail))
    client = cast(Any, SimpleNamespace(relay=fail, models=models))
    upstream = Upstream(client)

    for call in (upstream.post("/chat/completions", b"{}"), upstream.models()):
        with pytest.raises(UpstreamFailure) as ours:
            await call
        assert type(ours.value) is expected_for(kind)
        assert ours.value.__cause__ is failure
        assert str(ours.value)


async def test_its_name_tells_no_password() -> None:
    transport = httpx2.AsyncHTTPTransport()
    async with Client("http://me:secret@vllm.test:8000/v1", "the key", transport) as client:
        assert Upstream(client).name == "http://vllm.test:8000/v1/"


def test_the_walk_over_the_clients_errors_meets_them_all() -> None:
    assert {"OpenAIError", "APIStatusError", "RateLimitError"} <= set(EXPORTED)
    of_its_tree = {name for name, kind in EXPORTED.items() if issubclass(kind, openai.OpenAIError)}
    assert set(EXPORTED) - of_its_tree == NOT_OF_ITS_TREE
