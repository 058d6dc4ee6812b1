"""Responses and their events have exactly the shape that openai-python 3 and OpenResponses say."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent

from tests.e2e.wire import Wire, strictly

if TYPE_CHECKING:
    from tests.e2e.conftest import Stack

RESPONSES = "/responses"
ASKED = "How high is the lighthouse of Port Vennel?"
NEVER_NULL = (
    "temperature",
    "top_p",
    "tools",
    "tool_choice",
    "truncation",
    "presence_penalty",
    "frequency_penalty",
    "top_logprobs",
    "background",
    "service_tier",
)
"""As OpenResponses has it."""
PARAMETERS = {
    "type": "object",
    "properties": {"metres": {"enum": [43, 44]}},
    "required": ["metres"],
    "additionalProperties": False,
}
MEASURE = {"type": "function", "name": "measure", "strict": True, "parameters": PARAMETERS}
MESSAGE = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": ASKED}]}
CITING = {"structured_outputs": {"regex": r"It is 43 metres high \[1\]\."}}
ENDINGS = ("response.completed", "response.incomplete")


def search(store: str, **more: Any) -> dict[str, Any]:
    return {"type": "file_search", "vector_store_ids": [store], **more}


def requests(store: str) -> dict[str, dict[str, Any]]:
    """Requests by name; `store` is the knowledge base."""
    return {
        "a string": {},
        "items": {"input": [MESSAGE], "instructions": "Be brief."},
        "history": {
            "input": [
                {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": "Hello."},
                {"role": "user", "content": ASKED},
            ]
        },
        "without retrieval": {"retrieval": False},
        "search": {"tools": [search(store)]},
        "search with results": {
            "tools": [search(store, max_num_results=1)],
            "include": ["file_search_call.results"],
        },
        "cited": {"tools": [search(store)], "max_output_tokens": 30, **CITING},
        "search that must be": {"tools": [search(store)], "tool_choice": {"type": "file_search"}},
        "ranking options": {
            "tools": [
                search(
                    store,
                    ranking_options={
                        "ranker": "auto",
                        "score_threshold": 0.1,
                        "hybrid_search": {"embedding_weight": 0.7, "text_weight": 0.3},
                    },
                )
            ]
        },
        "search and a function": {"tools": [search(store), MEASURE], "tool_choice": "auto"},
        "a function": {
            "tools": [MEASURE],
            "tool_choice": {"type": "function", "name": "measure"},
            "max_output_tokens": 80,
        },
        "json schema": {
            "max_output_tokens": 40,
            "text": {
                "format": {"type": "json_schema", "name": "h", "schema": PARAMETERS, "strict": True}
            },
        },
        "logprobs": {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
        "metadata": {"metadata": {"a": "b"}, "user": "u", "store": False, "temperature": 0},
        "refusal": {"retrieval": {"in_scope": True, "score_threshold": 1.0, "mode": "dense"}},
    }


NAMES = list(requests(""))


@pytest.fixture(scope="module")
def wire(stack: "Stack") -> Iterator[Wire]:
    with Wire(stack.gateway_url) as wire:
        yield wire


def request(stack: "Stack", name: str) -> dict[str, Any]:
    asked = requests(stack.knowledge_base)[name]
    return {"model": "default", "input": ASKED, "temperature": 0, "max_output_tokens": 8, **asked}


@pytest.mark.parametrize("name", NAMES)
def test_a_response_is_one(wire: Wire, stack: "Stack", name: str) -> None:
    body = wire.post(RESPONSES, request(stack, name))
    _is_what_was_asked_for(name, strictly(Response, body), json.loads(body))


@pytest.mark.parametrize("name", NAMES)
def test_each_event_of_a_response_is_one(wire: Wire, stack: "Stack", name: str) -> None:
    told = wire.events(RESPONSES, request(stack, name))
    events = [strictly(ResponseStreamEvent, data) for _, data in told]
    assert [kind for kind, _ in told] == [event.type for event in events]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1].type in ENDINGS
    assert not any(event.type in ENDINGS for event in events[:-1])
    assert len({event.response.id for event in [*events[:2], events[-1]]}) == 1
    _each_item_begins_and_ends(events)
    _is_what_was_asked_for(name, events[-1].response, json.loads(told[-1][1])["response"])


def _each_item_begins_and_ends(events: list[Any]) -> None:
    """Items come one after the other, and the last event holds them as they were told."""
    added = [event for event in events if event.type == "response.output_item.added"]
    done = [event for event in events if event.type == "response.output_item.done"]
    places = list(range(len(events[-1].response.output)))
    assert [event.output_index for event in added] == places
    assert [event.output_index for event in done] == places
    for begun, ended, told in zip(added, done, events[-1].response.output, strict=True):
        assert begun.item.id == ended.item.id == told.id
        assert ended.item == told
    for event in events:
        if event.type == "response.output_text.annotation.added":
            part = events[-1].response.output[event.output_index].content[event.content_index]
            annotation = part.annotations[event.annotation_index]
            assert event.annotation.model_dump() == annotation.model_dump()
    if done and done[-1].item.type == "message":
        text = "".join(each.delta for each in events if each.type == "response.output_text.delta")
        assert text == events[-1].response.output_text


def _is_what_was_asked_for(name: str, response: Response, raw: dict[str, Any]) -> None:
    assert not [field for field in NEVER_NULL if raw.get(field) is None]
    assert response.status in ("completed", "incomplete")
    assert (response.incomplete_details is None) == (response.status == "completed")
    assert response.usage is not None
    kinds = [item.type for item in response.output]
    searches = "search" in name or name in ("cited", "ranking options")
    assert ("file_search_call" in kinds) == searches
    if name == "a function":
        [call] = [item for item in response.output if item.type == "function_call"]
        assert json.loads(call.arguments)["metres"] in (43, 44)
    if name == "json schema":
        assert json.loads(response.output_text)["metres"] in (43, 44)
    if searches:
        assert [tool.type for tool in response.tools][:1] == ["file_search"]
        shown = raw["output"][0].get("results")
        assert bool(shown) == (name == "search with results")
    if name == "cited":
        part = raw["output"][-1]["content"][0]
        [annotation] = part["annotations"]
        assert part["text"][annotation["index"] :] == "[1]."


def test_a_response_is_continued_and_retrieved(wire: Wire) -> None:
    asked = {"model": "default", "max_output_tokens": 8}
    first = strictly(Response, wire.post(RESPONSES, {**asked, "input": ASKED}))
    assert strictly(Response, wire.get(f"{RESPONSES}/{first.id}")).output == first.output
    more = {**asked, "input": "And the ferry?", "previous_response_id": first.id}
    second = strictly(Response, wire.post(RESPONSES, more))
    assert second.previous_response_id == first.id


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"input": 7}, "input"),
        ({"input": None}, "input"),
        ({"tools": [{"type": "file_search"}]}, "tools[0].vector_store_ids"),
        ({"tools": [{"type": "file_search", "vector_store_ids": []}]}, "tools[0].vector_store_ids"),
        ({"tools": [search("x", max_num_results=51)]}, "tools[0].max_num_results"),
        ({"tools": [search("x", filters={"type": "like"})]}, "tools[0].filters"),
        ({"tools": [search("x", ranking_options={"ranker": "best"})]}, "tools[0].ranking_options"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice"),
        ({"temperature": 9}, "temperature"),
        ({"max_output_tokens": "x"}, "max_output_tokens"),
        ({"previous_response_id": "resp_none"}, "previous_response_id"),
    ],
)
def test_a_wrong_request_names_what_is_wrong(
    wire: Wire, changes: dict[str, Any], param: str
) -> None:
    error = wire.refused(400, RESPONSES, {"model": "default", "input": ASKED, **changes})
    assert error.type == "invalid_request_error"
    assert (error.param or "").startswith(param)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"model": "gpt-none"}, "model_not_found"),
        ({"tools": [search("vs_none")]}, "vector_store_not_found"),
    ],
)
def test_what_is_not_there_is_told(wire: Wire, changes: dict[str, Any], code: str) -> None:
    error = wire.refused(404, RESPONSES, {"model": "default", "input": ASKED, **changes})
    assert (error.type, error.code) == ("invalid_request_error", code)
