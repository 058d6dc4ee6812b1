"""Responses of a real model through the gateway, as an OpenAI SDK sees them.

Everything that comes back is held against the SDK's own types, strictly.
"""

import time
from collections.abc import Iterable
from typing import Any

import openai
import pytest
from openai.types.responses import (
    FileSearchToolParam,
    FunctionToolParam,
    Response,
    ResponseFileSearchToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseStreamEvent,
)
from pydantic import TypeAdapter

QUESTION = "How high is the lighthouse of Port Vennel?"
# A model of this size cites nothing by itself.
CITING = {"structured_outputs": {"regex": r"It is 43 metres high \[1\]\."}}
STORE = "end_to_end"
SEARCH: FileSearchToolParam = {
    "type": "file_search",
    "vector_store_ids": [STORE],
    "max_num_results": 1,
}
WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def _create(client: openai.OpenAI, **fields: Any) -> Response:
    """A response whose body the SDK's type takes strictly."""
    asked = {"model": "default", "input": QUESTION, "temperature": 0, "max_output_tokens": 60}
    raw = client.responses.with_raw_response.create(**{**asked, **fields})
    return Response.model_validate_json(raw.content, strict=True)


def _events(lines: Iterable[str]) -> list[Any]:
    """Events that the SDK's types take strictly, in an order that only grows."""
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    events = [EVENT.validate_json(each, strict=True) for each in data]
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted(set(numbers))
    return events


def _stream(client: openai.OpenAI, **fields: Any) -> list[Any]:
    asked = {"model": "default", "input": QUESTION, "temperature": 0, "max_output_tokens": 60}
    with client.responses.with_streaming_response.create(
        **{**asked, **fields}, stream=True
    ) as response:
        return _events(response.iter_lines())


def _text(response: Response) -> ResponseOutputText:
    [part] = [
        part
        for item in response.output
        if isinstance(item, ResponseOutputMessage)
        for part in item.content
        if isinstance(part, ResponseOutputText)
    ]
    return part


def test_a_response_stands_on_the_documents_without_being_told_to(client: openai.OpenAI) -> None:
    response = _create(client, instructions="Answer in one sentence.")
    assert "43 metres" in (response.model_extra or {})["context"]["citations"][0]["content"]
    assert [item.type for item in response.output] == ["message"]
    assert response.instructions == "Answer in one sentence."
    assert response.error is None
    assert response.usage is not None
    assert response.usage.input_tokens > 100


def test_a_search_shows_what_it_found(client: openai.OpenAI) -> None:
    response = _create(client, tools=[SEARCH], include=["file_search_call.results"])
    search = response.output[0]
    assert isinstance(search, ResponseFileSearchToolCall)
    assert (search.status, search.queries) == ("completed", [QUESTION])
    [found] = search.results or []
    assert found.filename == "lighthouse.md"
    assert "43 metres" in (found.text or "")
    assert 0 <= (found.score or -1) <= 1
    assert [tool.type for tool in response.tools] == ["file_search"]


def test_results_are_not_shown_to_who_does_not_ask(client: openai.OpenAI) -> None:
    search = _create(client, tools=[SEARCH]).output[0]
    assert isinstance(search, ResponseFileSearchToolCall)
    assert search.results is None


def test_what_the_model_cites_is_annotated_where_it_stands(client: openai.OpenAI) -> None:
    part = _text(_create(client, tools=[SEARCH], extra_body=CITING))
    [annotation] = part.annotations
    assert annotation.type == "file_citation"
    assert annotation.filename == "lighthouse.md"
    assert part.text[annotation.index :] == "[1]."


def test_the_events_of_a_search_come_in_order(client: openai.OpenAI) -> None:
    events = _stream(client, tools=[SEARCH], extra_body=CITING)
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[:9] == [
        "created",
        "in_progress",
        "output_item.added",
        "file_search_call.in_progress",
        "file_search_call.searching",
        "file_search_call.completed",
        "output_item.done",
        "output_item.added",
        "content_part.added",
    ]
    assert kinds[-1] == "completed"
    final = events[-1].response
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == _text(final).text
    added = [event.annotation for event in events if event.type.endswith("annotation.added")]
    assert len(added) == 1
    assert [each.to_dict() for each in added] == [
        each.to_dict() for each in _text(final).annotations
    ]
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert done == final.output


def test_the_stream_helper_of_the_sdk_assembles_the_response(client: openai.OpenAI) -> None:
    with client.responses.stream(
        model="default", input=QUESTION, tools=[SEARCH], temperature=0, max_output_tokens=200
    ) as stream:
        for _ in stream:
            pass
        response = stream.get_final_response()
    assert [item.type for item in response.output] == ["file_search_call", "message"]
    assert "43" in response.output_text


def test_a_response_that_is_cut_off_says_so(client: openai.OpenAI) -> None:
    assert _create(client, max_output_tokens=3).status == "incomplete"
    last = _stream(client, max_output_tokens=3, tools=[SEARCH])[-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details.reason == "max_output_tokens"


@pytest.mark.parametrize("choice", ["auto", "none", {"type": "file_search"}])
def test_functions_stand_beside_the_search(client: openai.OpenAI, choice: Any) -> None:
    response = _create(client, tools=[WEATHER, SEARCH], tool_choice=choice)
    assert [tool.type for tool in response.tools] == ["function", "file_search"]
    searched = response.output[0].type == "file_search_call"
    assert searched is (choice != "none")


def test_turns_are_sent_back_as_they_came(client: openai.OpenAI) -> None:
    first = _create(client, tools=[SEARCH], include=["file_search_call.results"])
    turns: list[Any] = [{"role": "user", "content": QUESTION}]
    turns += [item.model_dump() for item in first.output]
    turns += [{"role": "user", "content": [{"type": "input_text", "text": "When was it built?"}]}]
    second = _create(client, input=turns, tools=[SEARCH])
    search = second.output[0]
    assert isinstance(search, ResponseFileSearchToolCall)
    assert search.queries


def test_a_response_follows_an_earlier_one(client: openai.OpenAI) -> None:
    first = _create(client, input="My name is Ann.", extra_body={"retrieval": False})
    second = _create(client, tools=[SEARCH], previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert "43" in second.output_text
    alone = _create(client, tools=[SEARCH])
    assert second.usage is not None
    assert alone.usage is not None
    assert second.usage.input_tokens > alone.usage.input_tokens


def test_a_response_is_found_again_as_it_was(client: openai.OpenAI) -> None:
    made = _create(
        client, tools=[WEATHER, SEARCH], include=["file_search_call.results"], metadata={"a": "b"}
    )
    found = client.responses.retrieve(made.id)
    assert found.output == made.output
    assert found.tools == made.tools
    assert found.metadata == {"a": "b"}
    for method in (client.responses.retrieve, client.responses.cancel):
        with pytest.raises(openai.NotFoundError) as unknown:
            method("resp_nobody_made_this")
        assert unknown.value.code == "response_not_found"


def test_a_response_is_made_in_the_background(client: openai.OpenAI) -> None:
    response = _create(client, tools=[SEARCH], background=True)
    ends = time.monotonic() + 60
    while response.status in ("queued", "in_progress"):
        assert time.monotonic() < ends
        time.sleep(0.2)
        response = client.responses.retrieve(response.id)
    assert [item.type for item in response.output] == ["file_search_call", "message"]
    endless = {"ignore_eos": True}
    long = _create(client, max_output_tokens=2000, background=True, extra_body=endless)
    assert client.responses.cancel(long.id).status == "cancelled"


def test_a_stream_is_taken_up_again(client: openai.OpenAI) -> None:
    events = _stream(client, tools=[SEARCH], background=True, max_output_tokens=12)
    with client.responses.with_streaming_response.retrieve(
        events[0].response.id, stream=True, starting_after=8
    ) as response:
        rest = _events(response.iter_lines())
    assert [event.sequence_number for event in rest] == list(range(9, len(events)))
    assert rest[:-1] == events[9:-1]
    assert rest[-1].response.output == events[-1].response.output


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"tools": [{**SEARCH, "max_num_results": 51}]}, 400, "tools[0].max_num_results"),
        ({"tools": [{**SEARCH, "vector_store_ids": ["x"]}]}, 404, "tools[0].vector_store_ids[0]"),
        (
            {"tools": [{**SEARCH, "filters": {"type": "eq", "key": "nokey", "value": 1}}]},
            400,
            "tools[0].filters.key",
        ),
        ({"input": [{"role": "nobody", "content": "x"}]}, 400, "input[0].role"),
        ({"input": "llama " * 6000}, 400, "input"),
        ({"input": "llama " * 6000, "extra_body": {"retrieval": False}}, 400, "input"),
        ({"previous_response_id": "resp_x"}, 400, "previous_response_id"),
        ({"conversation": "conv_x"}, 400, "conversation"),
    ],
)
def test_what_is_wrong_is_named(
    client: openai.OpenAI, fields: dict[str, Any], status: int, param: str
) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        _create(client, **fields)
    assert (refused.value.status_code, refused.value.param) == (status, param)
