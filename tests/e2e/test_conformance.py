"""Everything that is sent has exactly the shape that openai-python 3 declares, fields and types."""

import base64
import json
import math
import struct
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai.pagination import SyncPage
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.e2e.wire import Wire, strictly

if TYPE_CHECKING:
    from tests.e2e.conftest import Stack

CHAT = "/chat/completions"
QUESTION = [{"role": "user", "content": "How high is the lighthouse of Port Vennel?"}]
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDw"
    "ADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def schema(**choices: list[Any]) -> dict[str, Any]:
    """An object with one of the choices for each of its fields."""
    return {
        "type": "object",
        "properties": {name: {"enum": allowed} for name, allowed in choices.items()},
        "required": list(choices),
        "additionalProperties": False,
    }


def tool(name: str, **choices: list[Any]) -> dict[str, Any]:
    # A model of this size keeps to a schema only where it is made to.
    function = {"name": name, "strict": True, "parameters": schema(**choices)}
    return {"type": "function", "function": function}


TOOLS = [tool("measure", metres=[43, 44]), tool("look_up", what=["height"])]
CALLED = [
    *QUESTION,
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
        ],
    },
    {"role": "tool", "tool_call_id": "a", "content": "43 metres"},
    {"role": "user", "content": "How high is the lighthouse of Port Vennel, then?"},
]
NAMED = {"type": "function", "function": {"name": "measure"}}
REQUESTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "without retrieval": {"retrieval": False},
    "cited": {
        "max_tokens": 30,
        "structured_outputs": {"regex": r"It is 43 metres \[1\], or \[7\]\."},
    },
    "several choices": {"n": 2, "seed": 7, "temperature": 1},
    "logprobs": {"logprobs": True, "top_logprobs": 3},
    "several choices with logprobs": {
        "n": 2,
        "temperature": 1,
        "logprobs": True,
        "top_logprobs": 0,
    },
    "stop": {"stop": ["metres", "high"], "max_tokens": 16},
    "json schema": {
        "max_tokens": 40,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "h", "schema": schema(metres=[43]), "strict": True},
        },
    },
    "json object": {"response_format": {"type": "json_object"}},
    "tools": {"tools": TOOLS},
    "no tool": {"tools": TOOLS, "tool_choice": "none"},
    "named tool": {"tools": TOOLS, "tool_choice": NAMED, "max_tokens": 80},
    "some tool": {"tools": TOOLS, "tool_choice": "required", "max_tokens": 80},
    "one tool at a time": {
        "tools": TOOLS,
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "max_tokens": 80,
    },
    "after a call": {"messages": CALLED, "tools": TOOLS},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "How high?"}]}]},
    "refusal": {"retrieval": {"in_scope": True, "score_threshold": 1.0, "mode": "dense"}},
    "dry run": {"retrieval": {"dry_run": True}},
    "explained": {"retrieval": {"explain": True}},
    "metadata": {"metadata": {"a": "b"}, "user": "u", "store": False},
}


def request(name: str) -> dict[str, Any]:
    asked = {"model": "default", "messages": QUESTION, "max_tokens": 6, "temperature": 0}
    return {**asked, **REQUESTS[name]}


@pytest.fixture(scope="module")
def wire(stack: "Stack") -> Iterator[Wire]:
    with Wire(stack.gateway_url) as wire:
        yield wire


# Chat


@pytest.mark.parametrize("name", REQUESTS)
def test_a_chat_completion_is_one(wire: Wire, name: str) -> None:
    asked = request(name)
    completion: ChatCompletion = strictly(ChatCompletion, wire.post(CHAT, asked))
    assert [choice.index for choice in completion.choices] == list(range(asked.get("n", 1)))
    assert completion.usage is not None
    for choice in completion.choices:
        assert (choice.logprobs is not None) == bool(asked.get("logprobs"))
        _has_its_kind_of_answer(name, choice.finish_reason, choice.message)


@pytest.mark.parametrize("name", REQUESTS)
def test_each_event_of_a_chat_is_a_chunk(wire: Wire, name: str) -> None:
    asked = {**request(name), "stream_options": {"include_usage": True}}
    *events, done = wire.events(CHAT, asked)
    assert done == (None, "[DONE]")
    assert {event for event, _ in events} == {None}
    *chunks, last = [strictly(ChatCompletionChunk, data) for _, data in events]
    assert last.choices == []
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks)
    assert len({(chunk.id, chunk.model, chunk.created) for chunk in [*chunks, last]}) == 1
    choices = [choice for chunk in chunks for choice in chunk.choices]
    expected = dict.fromkeys(range(asked.get("n", 1)), 1)
    assert Counter(choice.index for choice in choices if choice.finish_reason) == expected
    for index in expected:
        deltas = [choice.delta for choice in choices if choice.index == index]
        assert deltas[0].role == "assistant"
        ended = [choice for choice in choices if choice.index == index][-1]
        assert ended.finish_reason


def test_the_helper_of_the_sdk_makes_the_same_of_a_stream(stack: "Stack") -> None:
    with openai.OpenAI(base_url=stack.gateway_url, api_key="unused", max_retries=0) as client:
        asked: Any = {"tools": TOOLS, "tool_choice": NAMED, "max_tokens": 80}
        with client.chat.completions.stream(
            model="default",
            messages=[{"role": "user", "content": "Measure."}],
            temperature=0,
            **asked,
        ) as stream:
            completion = stream.get_final_completion()
    _has_its_kind_of_answer("named tool", "", completion.choices[0].message)


def _has_its_kind_of_answer(name: str, finish_reason: str, message: Any) -> None:
    calls = message.tool_calls or []
    assert (message.content is not None) or calls
    if name in ("named tool", "some tool", "one tool at a time"):
        assert calls
        for call in calls:
            assert json.loads(call.function.arguments) in (
                {"metres": 43},
                {"metres": 44},
                {"what": "height"},
            )
    if name == "some tool":
        assert finish_reason == "tool_calls"
    if name == "json schema":
        assert json.loads(message.content) == {"metres": 43}
    if name == "cited":
        [annotation] = message.annotations
        assert annotation.type == "url_citation"


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "What is this?"},
                            {"type": "image_url", "image_url": {"url": PIXEL}},
                        ],
                    }
                ]
            },
            None,
        ),
        ({"messages": "Hello"}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"stream": "yes"}, "stream"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}}, None),
        ({"response_format": {"type": "poem"}}, "response_format"),
        ({"retrieval": {"max_num_results": 0}}, "retrieval.max_num_results"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
    ],
)
def test_a_wrong_chat_request_names_what_is_wrong(
    wire: Wire, changes: dict[str, Any], param: str | None
) -> None:
    error = wire.refused(400, CHAT, {**request("plain"), **changes})
    assert error.type == "invalid_request_error"
    if param is not None:
        assert (error.param or "").startswith(param)


# Completions


COMPLETIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "several prompts": {"prompt": ["The ferry", "The lighthouse"], "n": 2, "seed": 3},
    "logprobs": {"logprobs": 2},
    "echo": {"echo": True},
    "retrieval": {"retrieval": {"max_num_results": 1}},
    "stop": {"stop": " ", "max_tokens": 8},
}


@pytest.mark.parametrize("name", COMPLETIONS)
def test_a_completion_is_one(wire: Wire, name: str) -> None:
    asked = {"model": "default", "prompt": "The ferry", "max_tokens": 5, **COMPLETIONS[name]}
    completion: Completion = strictly(Completion, wire.post("/completions", asked))
    assert len(completion.choices) == (4 if "n" in asked else 1)
    assert completion.usage is not None


@pytest.mark.parametrize("name", COMPLETIONS)
def test_each_event_of_a_completion_is_one(wire: Wire, name: str) -> None:
    asked = {"model": "default", "prompt": "The ferry", "max_tokens": 5, **COMPLETIONS[name]}
    asked["stream_options"] = {"include_usage": True}
    *events, (_, done) = wire.events("/completions", asked)
    assert done == "[DONE]"
    for _, data in events:
        event = json.loads(data)
        for choice in event["choices"]:
            # The SDK declares it as never null, yet OpenAI sends null until the last event.
            choice["finish_reason"] = choice["finish_reason"] or "stop"
        strictly(Completion, json.dumps(event))
    assert json.loads(events[-1][1])["usage"]["total_tokens"] > 0


# Embeddings and models


def embedded(wire: Wire, text: Any, **more: Any) -> bytes:
    return wire.post("/embeddings", {"model": "default", "input": text, **more})


@pytest.mark.parametrize(
    "text", ["The ferry", ["The ferry", "灯台"], [1996, 7904], [[1996], [7904]]]
)
def test_embeddings_are_such(wire: Wire, text: Any) -> None:
    answer: CreateEmbeddingResponse = strictly(CreateEmbeddingResponse, embedded(wire, text))
    several = isinstance(text, list) and not isinstance(text[0], int)
    assert [each.index for each in answer.data] == list(range(len(text) if several else 1))
    assert {len(each.embedding) for each in answer.data} == {384}


def test_embeddings_in_base64_are_the_same_numbers(wire: Wire) -> None:
    [plain] = strictly(CreateEmbeddingResponse, embedded(wire, "The ferry")).data
    packed = json.loads(embedded(wire, "The ferry", encoding_format="base64"))
    numbers = struct.unpack("<384f", base64.b64decode(packed["data"][0]["embedding"]))
    assert math.dist(plain.embedding, numbers) < 1e-6
    packed["data"][0]["embedding"] = list(numbers)
    strictly(CreateEmbeddingResponse, json.dumps(packed))


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": {"text": "x"}}, "input"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"dimensions": 7}, "dimensions"),
    ],
)
def test_a_wrong_embeddings_request_names_what_is_wrong(
    wire: Wire, changes: dict[str, Any], param: str
) -> None:
    error = wire.refused(400, "/embeddings", {"model": "default", "input": "x", **changes})
    assert (error.type, error.param) == ("invalid_request_error", param)


def test_models_are_such(wire: Wire) -> None:
    listed = strictly(SyncPage[Model], wire.get("/models"))
    assert listed.object == "list"
    for model in listed.data:
        assert strictly(Model, wire.get(f"/models/{model.id}")).id == model.id
