"""Answers in Anthropic's messages API, plain and streamed, and its errors."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest

from gateway.citations import Grounding, cited, context, search_result_location
from gateway.errors import (
    InvalidRequest,
    ModelNotFound,
    Refused,
    UpstreamBroken,
    UpstreamRejected,
    UpstreamUnavailable,
)
from gateway.messages.answer import MessagesShape, TokenCountShape
from gateway.messages.failures import failure_body
from indexer.index.records import Hit

pytestmark = pytest.mark.anyio

ASKED = "What do llamas eat?"
HEAD = '"id":"chatcmpl-1","type":"message","role":"assistant"'
TAIL = '"model":"m","stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":2}'


def named(name: str, fields: str = "") -> bytes:
    return f'event: {name}\ndata: {{"type":"{name}"{fields}}}\n\n'.encode()


def delta(text: str, index: int = 0) -> bytes:
    written = msgspec.json.encode(text).decode()
    fields = f',"delta":{{"type":"text_delta","text":{written}}},"index":{index}'
    return named("content_block_delta", fields)


# As vllm serve 0.32 writes it.
START = named("message_start", f',"message":{{{HEAD},"content":[],"model":"m","stop_reason":null}}')
BLOCK = named("content_block_start", ',"content_block":{"type":"text","text":""},"index":0')
BLOCK_END = named("content_block_stop", ',"index":0')
ENDING = named("message_delta", ',"delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}')
STOP = named("message_stop")


@pytest.fixture
def grounding(hits: Sequence[Hit]) -> Grounding:
    return Grounding(ASKED, hits)


def citations(text: str, hits: Sequence[Hit]) -> list[dict[str, Any]]:
    return [search_result_location(each) for each in cited(text, hits).citations]


async def streamed(
    grounding: Grounding | None, *pieces: bytes, failure: Exception | None = None
) -> list[bytes]:
    """The events that a client gets, each with the empty line behind it."""

    async def chunks() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece
        if failure is not None:
            raise failure

    output = b"".join([piece async for piece in MessagesShape(grounding).events(chunks())])
    return [event + b"\n\n" for event in output.split(b"\n\n")[:-1]]


def data(event: bytes) -> dict[str, Any]:
    name, written = event.split(b"\n", 1)
    found = msgspec.json.decode(written.removeprefix(b"data: "), type=dict[str, Any])
    assert name == b"event: " + found["type"].encode()
    return found


def message(*blocks: str) -> bytes:
    return f'{{{HEAD},"content":[{",".join(blocks)}],{TAIL}}}'.encode()


def test_citations_stand_in_the_text_that_makes_them_and_the_context_in_the_message(
    grounding: Grounding, hits: Sequence[Hit]
) -> None:
    body = message(
        '{"type":"thinking","thinking":"[1]","signature":"s"}',
        '{"type":"text","text":"Grass [1], hay [9]."}',
        '{"type":"tool_use","id":"t","name":"n","input":{ "a" : 1.0 }}',
        '{"type":"text","text":"No more."}',
    )
    answer = MessagesShape(grounding).whole(body)
    thinking, text, call, other = msgspec.json.decode(answer)["content"]

    assert text["citations"] == citations("Grass [1], hay [9].", hits) != []
    assert other["citations"] is None
    assert "citations" not in thinking.keys() | call.keys()
    assert msgspec.json.decode(answer)["context"] == context(ASKED, hits, 1)
    assert b'"input":{ "a" : 1.0 }' in answer


def test_a_citation_has_the_shape_of_a_search_result(
    grounding: Grounding, hits: Sequence[Hit]
) -> None:
    body = message('{"type":"text","text":"High [2]."}')
    [block] = msgspec.json.decode(MessagesShape(grounding).whole(body))["content"]
    [citation] = block["citations"]

    assert (
        citation
        | {
            "type": "search_result_location",
            "cited_text": hits[1].text,
            "source": hits[1].source,
            "title": hits[1].title,
            "search_result_index": 1,
            "start_block_index": 0,
            "end_block_index": 1,
        }
        == citation
    )
    assert block["text"][citation["start_index"] : citation["end_index"]] == "[2]"


@pytest.mark.parametrize(
    "body", [b"<html>", b"{}", b"[]", b'{"content":[{"type":"text","text":1}]}']
)
def test_an_answer_that_is_no_message_is_broken(grounding: Grounding, body: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        MessagesShape(grounding).whole(body)


async def test_before_a_block_of_text_ends_its_citations_are_told_and_no_other_event_changes(
    grounding: Grounding, hits: Sequence[Hit]
) -> None:
    pieces = [START, BLOCK, delta("Grass ["), delta("1], hay [2"), delta("]."), BLOCK_END, ENDING]
    first, *events, stop = await streamed(grounding, *pieces, STOP)

    assert data(first)["message"] == data(START)["message"] | {"context": context(ASKED, hits)}
    assert events[:4] == pieces[1:5]
    expected = citations("Grass [1], hay [2].", hits)
    assert [data(event) for event in events[4:6]] == [
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "citations_delta", "citation": citation},
        }
        for citation in expected
    ]
    assert events[6:] == pieces[5:]
    assert stop == STOP


async def test_texts_are_told_apart_and_what_is_no_text_cites_nothing(
    grounding: Grounding, hits: Sequence[Hit]
) -> None:
    thinking = named("content_block_start", ',"content_block":{"type":"thinking"},"index":1')
    thought = named(
        "content_block_delta", ',"delta":{"type":"thinking_delta","thinking":"[1]"},"index":1'
    )
    more = named("content_block_start", ',"content_block":{"type":"text","text":"So ["},"index":2')
    ends = [named("content_block_stop", f',"index":{index}') for index in (1, 2)]
    pieces = [
        BLOCK,
        delta("["),
        BLOCK_END,
        thinking,
        thought,
        ends[0],
        more,
        delta("1]", 2),
        ends[1],
    ]
    events = await streamed(grounding, START, b"".join(pieces), ENDING, STOP)

    told = [event for event in events[1:-2] if event not in pieces]
    assert [data(event)["delta"]["citation"] for event in told] == citations("So [1]", hits)
    assert [data(event)["index"] for event in told] == [2]


async def test_how_many_citations_are_invalid_is_told_at_the_end(grounding: Grounding) -> None:
    events = await streamed(grounding, START, BLOCK, delta("[8] [9]"), BLOCK_END, ENDING, STOP)

    assert data(events[-2]) == data(ENDING) | {"context": {"invalid_citations": 2}}


async def test_without_a_grounding_a_stream_is_relayed_as_it_is() -> None:
    pieces = [START, b": ping\n\n", BLOCK, delta("[1]"), BLOCK_END, ENDING, STOP]

    assert await streamed(None, *pieces) == pieces
    body = message('{"type":"text","text":"Grass."}').replace(b":", b" :  ")
    assert MessagesShape(None).whole(body) == body


@pytest.mark.parametrize("grounded", [True, False])
async def test_a_stream_that_ends_early_ends_with_an_error(
    grounding: Grounding, grounded: bool
) -> None:
    *_, error = await streamed(grounding if grounded else None, START, BLOCK, delta("Gra"))

    assert data(error)["error"]["type"] == "api_error"
    assert data(error)["error"]["code"] == "model_answer_broken"


@pytest.mark.parametrize("grounded", [True, False])
@pytest.mark.parametrize("reason", ["out of memory", None])
async def test_an_error_that_vllm_reports_in_a_stream_is_told_and_nothing_after_it(
    grounding: Grounding, grounded: bool, reason: str | None
) -> None:
    written = "" if reason is None else f',"error":{{"type":"internal_error","message":"{reason}"}}'
    pieces = [START, BLOCK, named("error", written), STOP]
    *_, error = await streamed(grounding if grounded else None, *pieces)

    assert data(error)["error"]["type"] == "api_error"
    assert (reason or "makes no sense") in data(error)["error"]["message"]


@pytest.mark.parametrize("event", [b"event: x\ndata: {\n\n", b'data: {"no":"type"}\n\n'])
async def test_an_event_that_makes_no_sense_ends_the_stream(
    grounding: Grounding, event: bytes
) -> None:
    *_, error = await streamed(grounding, START, event, STOP)

    assert "makes no sense" in data(error)["error"]["message"]


async def test_an_answer_that_no_model_writes_is_a_message(
    grounding: Grounding, hits: Sequence[Hit]
) -> None:
    shape = MessagesShape(grounding)
    whole = msgspec.json.decode(shape.reply("Nothing.", "m"))
    output = b"".join([piece async for piece in shape.reply_events("Nothing.", "m")])
    events = [data(event) for event in output.split(b"\n\n")[:-1]]

    assert whole["content"] == [{"type": "text", "text": "Nothing.", "citations": None}]
    assert whole["context"] == context(ASKED, hits, 0)
    assert events[0]["message"]["context"] == context(ASKED, hits)
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[2]["delta"]["text"] == "Nothing."
    assert whole["stop_reason"] == events[4]["delta"]["stop_reason"] == "end_turn"


def test_a_count_is_relayed_and_is_nought_where_no_model_is_asked(grounding: Grounding) -> None:
    shape = TokenCountShape(grounding)

    assert shape.whole(b'{"input_tokens" : 3}') == b'{"input_tokens" : 3}'
    assert msgspec.json.decode(shape.reply("", "m")) == {"input_tokens": 0}


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (InvalidRequest("wrong", "messages"), "invalid_request_error"),
        (ModelNotFound("no"), "not_found_error"),
        (Refused("too long", 413, "request_too_large"), "request_too_large"),
        (UpstreamRejected("slow down", 429), "rate_limit_error"),
        (UpstreamUnavailable("away"), "overloaded_error"),
        (UpstreamBroken("broke off"), "api_error"),
        (RuntimeError("a bug"), "api_error"),
    ],
)
def test_an_error_is_told_in_the_words_of_this_api(failure: Exception, kind: str) -> None:
    body = failure_body(failure, "req_1")

    assert (body["type"], body["error"]["type"], body["request_id"]) == ("error", kind, "req_1")
    assert "a bug" not in body["error"]["message"]
    assert "request_id" not in failure_body(failure)
