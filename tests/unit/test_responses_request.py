"""Requests for a response: what is read, what vLLM gets, and what is refused."""

from typing import Any

import msgspec
import pytest

from gateway.citations import Grounding
from gateway.errors import InvalidRequest
from gateway.responses.edits import KEPT
from gateway.responses.ids import is_own, new_id
from gateway.responses.request import ResponsesRequest
from indexer.index.errors import FilterInvalid
from indexer.index.records import Hit

pytestmark = pytest.mark.usefixtures("acting")

SEARCH = {"type": "file_search", "vector_store_ids": ["documents"]}
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,aa", "detail": "auto"}


def asked(**fields: Any) -> ResponsesRequest:
    return ResponsesRequest(msgspec.json.encode({"model": "m", "input": "Why?"} | fields))


def sent(request: ResponsesRequest, **defaults: float) -> dict[str, Any]:
    """What vLLM gets, but for the id that the gateway chooses for the response."""
    body: dict[str, Any] = msgspec.json.decode(request.encode("org/m", defaults))
    assert is_own(body.pop("request_id"))
    return body


def chat(request: ResponsesRequest, prompt: str | None = None, forgotten: int = 0) -> list[Any]:
    return [msgspec.json.decode(each) for each in request.messages(prompt, forgotten)]


def said(role: str, *texts: str) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"role": role, "content": [{"type": kind, "text": text} for text in texts]}


TALK = [
    said("user", "What do llamas eat?"),
    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
    {"type": "file_search_call", "id": "fs_1", "status": "completed", "queries": ["q"]},
    {"type": "message", "status": "completed", "id": "msg_1", **said("assistant", "Grass [1].")},
    {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "42"},
    said("developer", "Be brief."),
    said("user", "And how", "much?"),
]


@pytest.mark.parametrize(
    "said_last",
    [
        "Why?",
        [{"role": "user", "content": "Why?"}],
        [{"type": "message", **said("user", "Why?")}],
        [
            {"role": "user", "content": "First."},
            {"role": "user", "content": [IMAGE, *said("user", "Why?")["content"]]},
        ],
        [said("user", "Why?"), {"type": "function_call_output", "call_id": "c", "output": "x"}],
    ],
)
def test_the_question_is_the_last_message_of_the_user(said_last: Any) -> None:
    assert asked(input=said_last).question == "Why?"


def test_without_a_message_of_the_user_there_is_no_question() -> None:
    request = asked(input=[{"type": "function_call_output", "call_id": "c", "output": "x"}])
    assert request.question == ""
    assert request.exchanges == []


def test_turns_before_the_question_are_those_with_a_text() -> None:
    request = asked(input=TALK)
    assert request.question == "And how\nmuch?"
    assert [turn.text for turn in request.said_before(6)] == ["What do llamas eat?", "Grass [1]."]
    assert [turn.text for turn in request.said_before(1)] == ["Grass [1]."]


def test_what_answers_a_turn_is_forgotten_with_it() -> None:
    request = asked(input=TALK)
    # The call of the search is none of vLLM's, so it is counted no more.
    assert request.exchanges == [[0, 1, 2, 3, 4]]
    assert [each["role"] for each in chat(request, forgotten=1)] == ["developer", "user"]
    request.augment("Prompt", 1)
    assert sent(request)["input"] == [TALK[6], said("user", "Prompt")]


def test_the_chat_is_the_one_that_vllm_makes() -> None:
    request = asked(input=TALK, instructions="Be kind.")
    assert chat(request, "Prompt") == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "What do llamas eat?"}]},
        {
            "role": "assistant",
            "reasoning": "Hm.",
            "content": "Grass [1].",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "Prompt"}]},
    ]


def test_an_image_stays_beside_the_prompt() -> None:
    request = asked(
        input=[{"role": "user", "id": "i", "content": [*said("user", "Why?")["content"], IMAGE]}]
    )
    request.augment("Prompt")
    parts = [IMAGE, {"type": "input_text", "text": "Prompt"}]
    assert sent(request)["input"] == [{"role": "user", "id": "i", "content": parts}]
    assert chat(request)[0]["content"][1]["image_url"] == {"url": IMAGE["image_url"]}
    assert not request.bounded


def test_a_text_is_sent_as_a_text() -> None:
    request = asked()
    request.augment("Prompt")
    assert sent(request)["input"] == "Prompt"
    request.augment(None)
    assert sent(request)["input"] == "Why?"


def test_what_vllm_knows_of_earlier_turns_has_no_bound() -> None:
    assert asked().bounded
    assert not asked(previous_response_id=new_id()).bounded


def test_tokens_are_counted_with_functions_and_what_the_template_is_told() -> None:
    request = asked(
        tools=[FUNCTION, SEARCH, {"type": "web_search"}],
        reasoning={"effort": "none"},
        chat_template_kwargs={"a": 1},
        input=[said("user", "Why?"), {"status": "incomplete", **said("assistant", "Because")}],
    )
    body = msgspec.json.decode(request.tokenization("org/m", request.messages()))
    function = {name: value for name, value in FUNCTION.items() if name != "type"}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["chat_template_kwargs"] == {
        "a": 1,
        "enable_thinking": False,
        "reasoning_effort": "none",
    }
    assert (body["add_generation_prompt"], body["continue_final_message"]) == (False, True)


def test_defaults_fill_in_what_is_missing_or_null() -> None:
    body = sent(asked(temperature=None, truncation=None, top_p=0.5), temperature=0.2, top_p=0.95)
    assert body == {"model": "org/m", "input": "Why?", "temperature": 0.2, "top_p": 0.5}


def test_the_search_is_kept_from_vllm() -> None:
    request = asked(
        tools=[FUNCTION, SEARCH],
        tool_choice={"type": "file_search"},
        include=["file_search_call.results", "message.output_text.logprobs"],
        retrieval={"explain": True},
        store=False,
    )
    assert sent(request) == {
        "model": "org/m",
        "input": "Why?",
        "tools": [FUNCTION],
        "tool_choice": "auto",
        "include": ["message.output_text.logprobs"],
        "store": False,
    }


@pytest.mark.parametrize(
    ("choice", "searches", "to_vllm"),
    [
        (None, True, None),
        ("auto", True, "auto"),
        ("none", False, "none"),
        ("required", True, "auto"),
        ({"type": "file_search"}, True, "auto"),
        ({"type": "function", "name": "f"}, False, {"type": "function", "name": "f"}),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [SEARCH, {"type": "function"}]},
            True,
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function"}]},
        ),
        ({"type": "allowed_tools", "mode": "auto", "tools": [SEARCH]}, True, "none"),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function"}]},
            False,
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function"}]},
        ),
    ],
)
def test_the_choice_of_tools_decides_whether_is_searched(
    choice: Any, searches: bool, to_vllm: Any
) -> None:
    request = asked(tools=[SEARCH, FUNCTION], tool_choice=choice)
    assert request.retrieval.enabled is searches
    assert sent(request).get("tool_choice") == to_vllm
    alone = asked(tools=[SEARCH], tool_choice=choice)
    assert {"tools", "tool_choice"}.isdisjoint(sent(alone))


@pytest.mark.parametrize("tools", [5, True, "x", {}, None])
def test_a_choice_of_tools_that_is_no_list_is_refused(tools: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        asked(tools=[SEARCH, FUNCTION], tool_choice={"type": "allowed_tools", "tools": tools})

    assert refused.value.param == "tool_choice.tools"


@pytest.mark.parametrize("said", [{"content": 5}, {"summary": 5}, {"content": True}])
def test_thoughts_that_are_no_list_are_none(said: dict[str, Any]) -> None:
    request = asked(input=[{"type": "reasoning", **said}, {"role": "user", "content": "Llamas?"}])

    [thoughts, _] = request.messages()
    assert msgspec.json.decode(thoughts) == {"role": "assistant", "reasoning": ""}


def test_the_tool_says_where_and_how_is_searched() -> None:
    tool = SEARCH | {
        "max_num_results": 7,
        "filters": {"type": "eq", "key": "year", "value": 1},
        "ranking_options": {
            "ranker": "none",
            "score_threshold": 0.5,
            "hybrid_search": {"embedding_weight": 3, "text_weight": 1},
        },
    }
    options = asked(tools=[tool], retrieval={"neighbours": 1, "max_num_results": 2}).retrieval
    assert options.vector_store_ids == ["documents"]
    assert options.filters == tool["filters"]
    assert (options.max_num_results, options.neighbours, options.rerank) == (7, 1, False)
    assert (options.mode, options.text_weight, options.score_threshold) == ("hybrid", 0.25, 0.5)


def test_without_the_tool_the_settings_decide() -> None:
    request = asked()
    assert request.retrieval.enabled is None
    assert request.param("filters") == "retrieval.filters"
    assert asked(tools=[FUNCTION, SEARCH]).param("filters") == "tools[1].filters"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 3}, "input"),
        ({"input": [3]}, "input[0]"),
        ({"input": [{}]}, "input[0]"),
        ({"input": [{"role": "nobody", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": 3, "content": "x"}]}, "input[0].role"),
        ({"input": [said("user", "x"), {"type": "message", "role": "user"}]}, "input[1].content"),
        ({"tools": "x"}, "tools"),
        ({"tools": [3]}, "tools[0]"),
        ({"tools": [{"type": "file_search"}]}, "tools[0].vector_store_ids"),
        ({"tools": [FUNCTION, SEARCH | {"vector_store_ids": []}]}, "tools[1].vector_store_ids"),
        ({"tools": [SEARCH | {"max_num_results": 51}]}, "tools[0].max_num_results"),
        ({"tools": [SEARCH | {"max_num_results": 0}]}, "tools[0].max_num_results"),
        ({"tools": [SEARCH | {"limit": 3}]}, "tools[0]"),
        (
            {"tools": [SEARCH | {"ranking_options": {"ranker": "best"}}]},
            "tools[0].ranking_options.ranker",
        ),
        (
            {"tools": [SEARCH | {"ranking_options": {"score_threshold": 2}}]},
            "tools[0].ranking_options.score_threshold",
        ),
        (
            {
                "tools": [
                    SEARCH
                    | {
                        "ranking_options": {
                            "hybrid_search": {"embedding_weight": 0, "text_weight": 0}
                        }
                    }
                ]
            },
            "tools[0].ranking_options.hybrid_search",
        ),
        ({"tools": [SEARCH, FUNCTION, SEARCH]}, "tools[2]"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"metadata": {KEPT: "x"}}, f"metadata.{KEPT}"),
        ({"previous_response_id": 3}, "previous_response_id"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        asked(**fields)
    assert refused.value.param == param


def test_a_filter_that_is_none_is_named() -> None:
    with pytest.raises(FilterInvalid) as refused:
        asked(tools=[FUNCTION, SEARCH | {"filters": {"type": "like"}}])
    assert refused.value.param == "tools[1].filters.type"


def test_an_earlier_response_may_be_followed_by_nothing() -> None:
    assert asked(input=[], previous_response_id=new_id()).question == ""


def test_json_is_wanted_by_the_format_of_the_text() -> None:
    assert asked(text={"format": {"type": "json_schema", "name": "n", "schema": {}}}).wants_json
    assert not asked(text={"verbosity": "low"}).wants_json


def test_the_length_of_answer_and_prompt_is_read() -> None:
    assert asked(max_output_tokens=9).answer_tokens(256) == 9
    assert asked().answer_tokens(256) == 256
    assert asked(truncation="auto").truncated_to == -1
    assert asked().truncated_to is None


def test_what_a_conversation_begins_with_is_the_same_in_each_of_its_requests() -> None:
    first = asked(instructions="Be kind.", input=TALK[:1])
    assert asked(instructions="Be kind.", input=TALK).opening == first.opening
    assert asked(input=TALK[:1]).opening != first.opening


def test_what_is_changed_travels_with_a_response_that_is_kept(hits: list[Hit]) -> None:
    request = asked(metadata={"a": "b"}, tools=[SEARCH])
    request.shape(Grounding("Why?", hits))
    assert set(sent(request)["metadata"]) == {"a", KEPT}
    unkept = asked(store=False)
    unkept.shape(Grounding("Why?", hits))
    assert "metadata" not in sent(unkept)
    plain = asked()
    plain.shape(None)
    assert "metadata" not in sent(plain)
