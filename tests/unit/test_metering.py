"""What answers used: read where they pass by, and hidden from clients that did not ask."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.access.callers import Caller, Limits
from gateway.access.limits import Admission, Limiter, under
from gateway.access.local_ledger import LocalLedger
from gateway.chat.request import ChatRequest
from gateway.completions.request import CompletionRequest
from gateway.conversation import Conversation
from gateway.errors import InvalidRequest, RateLimited
from gateway.messages.request import MessagesRequest, TokenCountRequest
from gateway.metering import Meter, bound_answer, charged
from gateway.responses.request import ResponsesRequest
from gateway.settings import GatewaySettings

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("acting")]
TOKENS = 1000

HEAD = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"Grass \\"usage\\""}}]}\n\n'
END = b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = (
    b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":9,"total_tokens":21,'
    b'"completion_tokens":12}}\n\n'
)
DONE = b"data: [DONE]\n\n"


@cache
def configured() -> GatewaySettings:
    return GatewaySettings()


async def limited(**limits: int) -> Admission:
    """A request of a caller under these limits."""
    limiter = Limiter(configured(), LocalLedger())
    admission = await limiter.admitted(Caller(name="a", tenant="t", limits=Limits(**limits)))
    assert admission is not None
    return admission


async def spending(prompt: int = 40, answer: int = 60) -> Admission:
    admission = await limited(tokens_per_minute=TOKENS)
    await admission.spend(prompt, answer)
    return admission


async def used(admission: Admission, *, failed: bool = False) -> int:
    """What the request cost in the end."""
    admission.end(failed=failed)
    ledger = admission._ledger
    assert isinstance(ledger, LocalLedger)
    return sum(window._total for window in ledger._windows.values())


async def came(*pieces: bytes, failure: Exception | None = None) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
    if failure is not None:
        raise failure


def passed(meter: Meter, *pieces: bytes) -> AsyncGenerator[bytes, None]:
    """What of them the meter hands on."""
    stream = meter.stream(came(*pieces))
    assert isinstance(stream, AsyncGenerator)
    return stream


async def streamed(
    admission: Admission, pieces: Sequence[bytes], *, hides_usage: bool = True
) -> bytes:
    meter = Meter(admission, hides_usage=hides_usage)
    return b"".join([piece async for piece in meter.stream(came(*pieces))])


async def test_a_whole_answer_costs_what_vllm_says() -> None:
    admission = await spending()
    Meter(admission, hides_usage=False).whole(
        b'{"choices":[{"index":0}],"usage":{"prompt_tokens":9,"total_tokens":21}}'
    )

    assert await used(admission) == 21


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (b'{"content":[],"usage":{"input_tokens":9,"output_tokens":5}}', 14),
        (
            b'{"usage":{"input_tokens":9,"output_tokens":5,"cache_read_input_tokens":100}}',
            114,
        ),
        (b'{"output":[],"usage":{"input_tokens":9,"output_tokens":5,"total_tokens":14}}', 14),
        (b'{"status":"queued","usage":null}', 100),
        (b"no JSON", 100),
    ],
)
async def test_other_dialects_and_answers_that_tell_nothing(body: bytes, tokens: int) -> None:
    admission = await spending()
    Meter(admission, hides_usage=False).whole(body)

    assert await used(admission) == tokens


async def test_a_stream_is_relayed_as_if_nobody_had_asked_what_it_used() -> None:
    admission = await spending()

    assert await streamed(admission, [HEAD, END, USAGE, DONE]) == HEAD + END + DONE
    assert await used(admission) == 21


async def test_a_client_that_asked_gets_what_the_stream_used() -> None:
    admission = await spending()
    whole = [HEAD, END, USAGE, DONE]

    assert await streamed(admission, whole, hides_usage=False) == b"".join(whole)
    assert await used(admission) == 21


async def test_the_last_event_bears_the_fingerprint_that_it_would_have_borne() -> None:
    told = USAGE.replace(b'"usage"', b'"system_fingerprint":"fp_1","usage"')
    expected = END.replace(b"]}\n\n", b'],"system_fingerprint":"fp_1"}\n\n')

    assert await streamed(await spending(), [HEAD, END, told, DONE]) == HEAD + expected + DONE


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, len(HEAD + END + USAGE + DONE) - 1), max_size=8))
def test_it_does_not_matter_where_the_network_cuts_a_stream(cuts: list[int]) -> None:
    async def cut() -> tuple[bytes, int]:
        whole = HEAD + END + END.replace(b'"index":0', b'"index":1') + USAGE + DONE
        places = [0, *sorted(cuts), len(whole)]
        admission = await spending()
        pieces = [whole[a:b] for a, b in pairwise(places)]
        return await streamed(admission, pieces), await used(admission)

    expected = HEAD + END + END.replace(b'"index":0', b'"index":1') + DONE
    assert asyncio.run(cut()) == (expected, 21)


async def test_a_finished_event_is_not_kept_back_for_long() -> None:
    """Not longer than until the next one comes, whatever that is."""
    meter = Meter(await spending(), hides_usage=True)
    pieces = meter.stream(came(HEAD, END, b": ping\n\n", DONE))

    assert [piece async for piece in pieces] == [HEAD, END + b": ping\n\n", DONE]


async def test_a_stream_that_breaks_off_costs_what_was_charged_or_what_came() -> None:
    short, long = await spending(), await spending()
    for admission, events in ((short, 3), (long, 200)):
        meter = Meter(admission, hides_usage=True)
        with pytest.raises(ConnectionError):
            async for _ in meter.stream(came(*[HEAD] * events, failure=ConnectionError())):
                pass

    assert await used(short) == 100
    assert await used(long) == 240


async def test_a_client_that_leaves_in_the_middle_pays_as_well() -> None:
    admission = await spending()
    stream = passed(Meter(admission, hides_usage=True), *[HEAD] * 200)
    for _ in range(150):
        await anext(stream)
    await stream.aclose()

    assert await used(admission) == 190


async def test_what_a_message_says_of_its_prompt_is_not_taken_for_all() -> None:
    start = (
        b'event: message_start\ndata: {"type":"message_start","message":'
        b'{"usage":{"input_tokens":9,"output_tokens":0}}}\n\n'
    )
    delta = (
        b'event: message_delta\ndata: {"type":"message_delta","delta":{},'
        b'"usage":{"input_tokens":9,"output_tokens":7}}\n\n'
    )
    whole, broken = await spending(), await spending()
    assert await streamed(whole, [start, delta], hides_usage=False) == start + delta
    await streamed(broken, [start], hides_usage=False)

    assert await used(whole) == 16
    assert await used(broken) == 100


async def test_a_response_tells_it_in_its_last_event() -> None:
    admission = await spending()
    created = b'event: response.created\ndata: {"response":{"usage":null}}\n\n'
    completed = (
        b'event: response.completed\ndata: {"response":{"usage":{"input_tokens":1,'
        b'"output_tokens":2,"total_tokens":3}}}\n\n'
    )
    await streamed(admission, [created, completed], hides_usage=False)

    assert await used(admission) == 3


@pytest.mark.parametrize(("failed", "tokens"), [(True, 0), (False, 100)])
async def test_a_request_that_failed_costs_nothing(failed: bool, tokens: int) -> None:
    assert await used(await spending(), failed=failed) == tokens


async def test_an_answer_that_no_model_writes_costs_nothing() -> None:
    admission = await spending()
    Meter(admission, hides_usage=False).nothing()

    assert await used(admission) == 0


CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x" * 400}]}
COMPLETION: dict[str, Any] = {"model": "m", "prompt": "x" * 400}
RESPONSE: dict[str, Any] = {"model": "m", "input": "x" * 400}
MESSAGE: dict[str, Any] = CHAT | {"max_tokens": 30}


def asked(dialect: type[Conversation], body: dict[str, Any]) -> Conversation:
    read: Callable[[bytes], Conversation] = dialect
    return read(msgspec.json.encode(body))


@pytest.mark.parametrize(
    ("dialect", "body", "least", "most"),
    [
        (ChatRequest, CHAT, 350, 380),
        (ChatRequest, CHAT | {"max_tokens": 50}, 150, 170),
        (ChatRequest, CHAT | {"max_completion_tokens": 50, "n": 3}, 250, 275),
        (CompletionRequest, COMPLETION, 116, 125),
        (CompletionRequest, COMPLETION | {"prompt": ["x" * 200] * 2, "n": 3}, 196, 205),
        (CompletionRequest, COMPLETION | {"prompt": [[1, 2], [3]], "max_tokens": 40}, 80, 90),
        (CompletionRequest, COMPLETION | {"prompt": [1, 2, 3], "max_tokens": 40}, 40, 46),
        (ChatRequest, CHAT | {"max_completion_tokens": 1, "min_tokens": 50}, 150, 170),
        (ResponsesRequest, RESPONSE | {"max_output_tokens": 50}, 150, 160),
        (MessagesRequest, MESSAGE, 130, 150),
    ],
)
async def test_a_request_is_charged_for_its_prompt_and_the_answer_that_it_asks_for(
    dialect: type[Conversation], body: dict[str, Any], least: int, most: int
) -> None:
    admission = await limited(tokens_per_minute=TOKENS)
    with under(admission):
        assert await charged(asked(dialect, body), 256) is not None

    assert least <= await used(admission) <= most


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        (ChatRequest, CHAT | {"max_tokens": "100000"}),
        (CompletionRequest, COMPLETION | {"max_tokens": "100000"}),
        (ResponsesRequest, RESPONSE | {"max_output_tokens": "100000"}),
        (MessagesRequest, MESSAGE | {"max_tokens": 1e5}),
    ],
)
async def test_a_length_that_the_charge_would_not_see_is_refused(
    dialect: type[Conversation], body: dict[str, Any]
) -> None:
    with under(await limited(tokens_per_minute=TOKENS)), pytest.raises(InvalidRequest):
        await charged(asked(dialect, body), 256)


async def test_an_image_is_not_charged_by_its_bytes() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    body = CHAT | {"messages": [{"role": "user", "content": [image]}], "max_tokens": 1}
    admission = await limited(tokens_per_minute=10_000)
    with under(admission):
        await charged(asked(ChatRequest, body), 256)

    assert 1000 <= await used(admission) < 1100


async def test_counting_tokens_costs_none() -> None:
    admission = await limited(tokens_per_minute=TOKENS, answer_tokens=1)
    with under(admission):
        assert await charged(asked(TokenCountRequest, CHAT), 256) is None

    assert await used(admission) == 0


async def test_a_request_that_can_never_fit_is_told_so() -> None:
    with under(await limited(tokens_per_minute=100)), pytest.raises(RateLimited) as refused:
        await charged(asked(ChatRequest, CHAT), 256)

    assert refused.value.retry_after_s is None
    assert refused.value.kind == "tokens"
    assert "too large for this key on tokens per min: limit 100" in str(refused.value)


def sent(conversation: Conversation) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(conversation.encode("m", {}))
    return found


@pytest.mark.parametrize("dialect", [ChatRequest, CompletionRequest])
async def test_vllm_is_asked_for_usage_only_where_tokens_count(dialect: type[Conversation]) -> None:
    body = CHAT | COMPLETION | {"stream": True}
    metered, plain = asked(dialect, body), asked(dialect, body)
    with under(await limited(tokens_per_minute=TOKENS)):
        await charged(metered, 1)
    with under(await limited(requests_per_minute=1)):
        assert await charged(plain, 1) is None

    assert sent(metered)["stream_options"] == {"include_usage": True}
    assert sent(plain) == {**body, "model": "m"}


@pytest.mark.parametrize(
    ("options", "expected", "hides"),
    [
        ({"include_usage": True}, {"include_usage": True}, False),
        ({"include_usage": False}, {"include_usage": True}, True),
        ({"continuous_usage_stats": True}, {"include_usage": True}, True),
        ({"other": 1}, {"other": 1, "include_usage": True}, True),
        (None, {"include_usage": True}, True),
        ("nonsense", "nonsense", False),
    ],
)
async def test_what_a_client_says_of_its_stream_stays(
    options: Any, expected: Any, hides: bool
) -> None:
    conversation = asked(ChatRequest, CHAT | {"stream": True, "stream_options": options})
    with under(await limited(tokens_per_minute=TOKENS)):
        meter = await charged(conversation, 1)

    assert meter is not None
    assert meter._hides_usage is hides
    assert sent(conversation)["stream_options"] == expected


@pytest.mark.parametrize(
    ("dialect", "body", "param"),
    [
        (ChatRequest, CHAT | {"max_tokens": 51}, "max_tokens"),
        (ChatRequest, CHAT | {"max_completion_tokens": 51}, "max_completion_tokens"),
        (ChatRequest, CHAT | {"max_completion_tokens": 5, "max_tokens": 51}, "max_tokens"),
        (ChatRequest, CHAT | {"min_tokens": 51}, "min_tokens"),
        (ChatRequest, CHAT | {"max_tokens": "51"}, "max_tokens"),
        (ChatRequest, CHAT | {"max_tokens": 51.0}, "max_tokens"),
        (CompletionRequest, COMPLETION | {"max_tokens": 51}, "max_tokens"),
        (ResponsesRequest, RESPONSE | {"max_output_tokens": 51}, "max_output_tokens"),
        (MessagesRequest, CHAT | {"max_tokens": 51}, "max_tokens"),
    ],
)
async def test_a_longer_answer_than_allowed_is_refused_by_the_name_of_its_field(
    dialect: type[Conversation], body: dict[str, Any], param: str
) -> None:
    with under(await limited(answer_tokens=50)), pytest.raises(InvalidRequest) as refused:
        await charged(asked(dialect, body), 256)

    assert refused.value.param == param


@pytest.mark.parametrize(
    ("dialect", "body", "expected"),
    [
        (ChatRequest, CHAT, {"max_completion_tokens": 50}),
        (ChatRequest, CHAT | {"max_tokens": None}, {"max_completion_tokens": 50}),
        (ChatRequest, CHAT | {"max_tokens": 7}, {"max_tokens": 7}),
        (CompletionRequest, COMPLETION, {"max_tokens": 16}),
        (ResponsesRequest, RESPONSE, {"max_output_tokens": 50}),
        (MessagesRequest, CHAT | {"max_tokens": 7}, {"max_tokens": 7}),
        (TokenCountRequest, CHAT, {}),
    ],
)
async def test_the_longest_answer_is_set_where_the_client_names_none(
    dialect: type[Conversation], body: dict[str, Any], expected: dict[str, int]
) -> None:
    conversation = asked(dialect, body)
    with under(await limited(answer_tokens=50)):
        await charged(conversation, 256)
        bound_answer(conversation, 4096)

    fields = ("max_completion_tokens", "max_tokens", "max_output_tokens")
    found = {name: value for name, value in sent(conversation).items() if name in fields}
    assert {name: value for name, value in found.items() if value is not None} == expected


async def test_no_more_is_set_than_the_model_holds() -> None:
    conversation = asked(ChatRequest, CHAT)
    with under(await limited(answer_tokens=5000)):
        bound_answer(conversation, 4096)

    assert sent(conversation)["max_completion_tokens"] == 4096


async def test_without_limits_nothing_is_changed() -> None:
    conversation = asked(ChatRequest, CHAT | {"stream": True, "max_tokens": 10**6})
    assert await charged(conversation, 256) is None
    bound_answer(conversation, 4096)

    assert sent(conversation) == {**CHAT, "stream": True, "max_tokens": 10**6, "model": "m"}
