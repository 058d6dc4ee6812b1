"""The events of a response on their way to the client."""

from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec
import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from gateway.body import Body
from gateway.citations import Grounding
from gateway.errors import UpstreamBroken
from gateway.events import relayed
from gateway.responses.answer import ResponsesShape
from gateway.responses.edits import Edits
from gateway.responses.stream import Editor
from indexer.index.records import Hit
from tests.unit.responses_samples import TEXT, stream

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("acting")]

SEARCH = {"type": "file_search", "vector_store_ids": ["documents"]}
ADAPTER: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
MESSAGE = [
    "output_item.added",
    "content_part.added",
    "output_text.delta",
    "output_text.delta",
    "output_text.delta",
    "output_text.done",
    "content_part.done",
    "output_item.done",
]
CALL = [
    "output_item.added",
    "function_call_arguments.delta",
    "function_call_arguments.done",
    "output_item.done",
]
WAYS = ["created", "in_progress"]


@pytest.fixture
def edits(hits: list[Hit]) -> Edits:
    return Edits(grounding=Grounding("Why?", hits), tool=SEARCH, searched=True)


async def relay(
    pieces: Iterable[bytes], edits: Edits, failure: Exception | None = None, **stated: Any
) -> bytes:
    """What the client gets."""

    async def chunks() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece
        if failure is not None:
            raise failure

    editor = Editor(edits, **stated)
    return b"".join([event async for event in relayed(chunks(), editor, editor.failed)])


def parsed(content: bytes) -> list[Any]:
    """Each event as the SDK types it; strictly, and with the type that it is announced with."""
    found = []
    for event in filter(None, content.split(b"\n\n")):
        announced, data = event.split(b"\n", 1)
        found.append(ADAPTER.validate_json(data.removeprefix(b"data: "), strict=True))
        assert announced == f"event: {found[-1].type}".encode()
    return found


def types(events: Iterable[Any]) -> list[str]:
    return [event.type.removeprefix("response.") for event in events]


async def test_a_stream_that_stands_on_nothing_is_relayed() -> None:
    pieces = stream()
    content = await relay(pieces, Edits())
    events = parsed(content)
    assert types(events) == [*WAYS, *MESSAGE, *CALL, "completed"]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    for piece in pieces[4:7]:
        assert piece in content  # deltas stay as they came
    assert events[-1].response.text is not None


async def test_a_search_and_the_citations_come_in_the_order_of_openai(edits: Edits) -> None:
    events = parsed(await relay(stream(), edits))
    message = MESSAGE[:5] + ["output_text.annotation.added"] * 2 + MESSAGE[5:]
    assert types(events) == [
        *WAYS,
        "output_item.added",
        "file_search_call.in_progress",
        "file_search_call.searching",
        "file_search_call.completed",
        "output_item.done",
        *message,
        *CALL,
        "completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    places = [event.output_index for event in events if hasattr(event, "output_index")]
    assert places == [0] * 5 + [1] * len(message) + [2] * len(CALL)


async def test_the_life_of_the_search_is_told(edits: Edits) -> None:
    events = parsed(await relay(stream(), edits))
    begun, *steps, done = events[2:7]
    assert (begun.item.status, begun.item.queries) == ("in_progress", [])
    assert (done.item.status, done.item.queries) == ("completed", ["Why?"])
    assert {step.item_id for step in steps} == {begun.item.id, done.item.id}
    assert events[-1].response.output[0] == done.item
    assert events[0].response.output == []


async def test_annotations_are_told_one_by_one_and_with_the_text(edits: Edits) -> None:
    events = parsed(await relay(stream(), edits))
    added = [event for event in events if event.type.endswith("annotation.added")]
    assert [event.annotation_index for event in added] == [0, 1]
    assert [TEXT[event.annotation.index] for event in added] == ["[", "["]
    told = [event.annotation.to_dict() for event in added]
    [part] = [event.part for event in events if event.type == "response.content_part.done"]
    items = [event.item for event in events if event.type == "response.output_item.done"]
    last = events[-1].response.output[1]
    for each in (part, items[1].content[0], last.content[0]):
        assert [annotation.to_dict() for annotation in each.annotations] == told
    assert {event.item_id for event in added} == {last.id}


@pytest.mark.parametrize(
    ("status", "ending"),
    [("incomplete", "incomplete"), ("failed", "failed"), ("completed", "completed")],
)
async def test_a_stream_ends_as_its_response_does(edits: Edits, status: str, ending: str) -> None:
    reason = {"reason": "max_output_tokens"} if status == "incomplete" else None
    events = parsed(await relay(stream(status=status, incomplete_details=reason), edits))
    assert types(events)[-1] == ending
    assert events[-1].response.status == status


@pytest.mark.parametrize("size", [1, 7, 100, 100_000])
async def test_the_network_may_cut_a_stream_anywhere(edits: Edits, size: int) -> None:
    content = b"".join(stream())
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    events = parsed(await relay(pieces, edits))
    assert types(events)[-1] == "completed"


async def test_a_client_that_comes_back_gets_what_it_has_not_had(edits: Edits) -> None:
    everything = parsed(await relay(stream(), edits, is_new=False))
    for after in (0, 4, 12, len(everything) - 2):
        rest = parsed(await relay(stream(), edits, after=after, is_new=False))
        assert rest == everything[after + 1 :]
    plain = parsed(await relay(stream(), Edits(), after=5))
    assert plain[0].sequence_number == 6


@pytest.mark.parametrize(
    ("pieces", "failure"),
    [
        (stream()[:6], UpstreamBroken("the model server's answer broke off: gone")),
        (stream()[:6], None),
        ([*stream()[:6], b"event: response.output_text.done\ndata: {]\n\n"], None),
        (
            [
                *stream()[:6],
                b'event: response.output_text.done\ndata: {"type":"response.output_text.done"}\n\n',
            ],
            None,
        ),
        ([*stream()[:6], b'data: {"error":{"message":"engine died","code":500}}\n\n'], None),
    ],
)
async def test_a_stream_that_breaks_off_ends_with_an_error(
    edits: Edits, pieces: list[bytes], failure: Exception | None
) -> None:
    events = parsed(await relay(pieces, edits, failure))
    assert events[-1].type == "error"
    assert events[-1].code in ("model_answer_broken", "model_server_failed")
    assert events[-1].sequence_number == len(events) - 1


async def test_an_error_of_vllms_own_is_handed_on_with_its_number(edits: Edits) -> None:
    data = {"type": "error", "message": "no", "code": "x", "param": None, "sequence_number": 3}
    error = b"event: error\ndata: " + msgspec.json.encode(data) + b"\n\n"
    events = parsed(await relay([*stream()[:3], error], edits))
    assert types(events)[-1] == "error"
    assert events[-1].sequence_number == len(events) - 1


async def test_a_comment_keeps_the_connection_open_and_says_nothing(edits: Edits) -> None:
    content = await relay([b": ping\n\n", *stream()], edits)
    assert content.startswith(b": ping\n\n")


async def test_the_shape_relays_a_stream(edits: Edits) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for piece in stream():
            yield piece

    shape = ResponsesShape(edits, Body(b"{}"))
    events = parsed(b"".join([event async for event in shape.events(chunks())]))
    assert types(events)[-1] == "completed"


async def test_a_search_that_could_not_be_made_is_told_from_the_first_event_on() -> None:
    grounding = Grounding("Why?", [], details={"degraded": ["milvus"]})
    edits = Edits(grounding=grounding, tool=SEARCH, searched=True)
    events = parsed(await relay(stream(), edits))

    assert events[0].response.context == {"degraded": ["milvus"]}
    assert events[-1].response.context["degraded"] == ["milvus"]
    assert types(events)[:6] == [
        *WAYS,
        "output_item.added",
        "file_search_call.in_progress",
        "file_search_call.searching",
        "output_item.done",
    ]
    assert [events[2].item.status, events[5].item.status] == ["in_progress", "failed"]
    assert events[-1].response.output[0].status == "failed"
