"""Requests in Anthropic's messages API: what is read, what stays as it came, what is refused."""

from typing import Any

import msgspec
import pytest

from gateway.conversation import Asked
from gateway.errors import InvalidRequest
from gateway.messages.request import MessagesRequest, TokenCountRequest
from gateway.turns import Said

ASKED = "What do llamas eat?"
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}
CALL = {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "é"}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "hay"}]}


def text(said: str) -> dict[str, str]:
    return {"type": "text", "text": said}


def user(content: Any = ASKED) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def asking(*messages: Any, **fields: Any) -> MessagesRequest:
    body = {"model": "m", "max_tokens": 9, "messages": messages or [user()], **fields}
    return MessagesRequest(msgspec.json.encode(body))


def encoded(request: MessagesRequest) -> dict[str, Any]:
    body = request.encode("served", {"temperature": 0.2, "top_p": 0.95})
    return msgspec.json.decode(body, type=dict[str, Any])


def counted(request: MessagesRequest) -> dict[str, Any]:
    return msgspec.json.decode(request.tokenization("m", request.messages()), type=dict[str, Any])


@pytest.mark.parametrize(
    ("messages", "question"),
    [
        ([user()], ASKED),
        ([user([text("What do"), text("llamas eat?")])], "What do\nllamas eat?"),
        ([user("A"), assistant("B"), user()], ASKED),
        ([user(), assistant([CALL]), user([RESULT])], ASKED),
        ([user("A"), assistant([CALL]), user([RESULT, text(ASKED)])], ASKED),
        ([user(), assistant("They eat")], ASKED),
        ([user("A"), assistant("B"), user([IMAGE])], ""),
        ([assistant("B")], ""),
    ],
)
def test_the_question_is_the_last_turn_of_the_user_that_is_more_than_results_of_tools(
    messages: list[Any], question: str
) -> None:
    assert asking(*messages).question == question


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [user(), {"role": "tool", "content": "x"}]}, "messages[1]"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"messages": [user(7)]}, "messages[0]"),
        ({"messages": [user(["text"])]}, "messages[0]"),
        ({"retrieval": {"top": 1}}, "retrieval"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        asking(**fields)
    assert caught.value.param == param


def test_without_documents_all_is_relayed_as_it_came() -> None:
    raw = (
        b'{"model":"m","max_tokens":9,"messages":[{"role" : "user", "content": "\\u00e9"}],'
        b'"system":[{"type":"text","text":"Be brief.","cache_control":{"type":"ephemeral"}}],'
        b'"thinking":{"type":"adaptive"},"top_k":4,"metadata":{ "user_id" : "u"}}'
    )
    request = MessagesRequest(raw)
    request.augment(None)

    assert request.encode("m", {"temperature": 0.2}) == raw


def test_the_prompt_takes_the_place_of_the_text_and_the_rest_of_the_turn_stays_before_it() -> None:
    request = asking(
        *(user("A"), assistant([CALL]), user([RESULT, text("What"), IMAGE, text("eat?")])),
        system="Be brief.",
        top_p=0.5,
        retrieval=True,
    )
    request.augment("prompt")
    body = encoded(request)

    assert body["messages"][:2] == [user("A"), assistant([CALL])]
    assert body["messages"][2] == user([RESULT, IMAGE, text("prompt")])
    assert (body["model"], body["temperature"], body["top_p"]) == ("served", 0.2, 0.5)
    assert body["system"] == "Be brief."
    assert "retrieval" not in body


def test_a_question_before_results_of_tools_is_exchanged_where_it_stands() -> None:
    request = asking(user(), assistant([CALL]), user([RESULT]))
    request.augment("prompt")

    assert encoded(request)["messages"] == [user("prompt"), assistant([CALL]), user([RESULT])]


def test_exchanges_keep_calls_and_their_results_together() -> None:
    request = asking(
        {"role": "system", "content": "S"},
        user("A"),
        assistant([CALL]),
        user([RESULT]),
        assistant("B"),
        user("C"),
        assistant([CALL | {"id": "t2"}]),
        user([RESULT | {"tool_use_id": "t2"}, text("D")]),
        assistant("E"),
        user(),
    )

    assert request.exchanges == [[1, 2, 3, 4], [5, 6, 7, 8]]
    request.augment("prompt", 1)
    assert [each["content"] for each in encoded(request)["messages"]][:2] == ["S", "C"]
    assert encoded(request)["messages"][-1] == user("prompt")


def test_a_call_that_the_question_itself_answers_is_never_forgotten() -> None:
    request = asking(
        user("A"), assistant("B"), user("C"), assistant([CALL]), user([RESULT, text("D")])
    )

    assert request.exchanges == [[0, 1]]


def test_what_was_said_before_is_text_of_user_and_assistant() -> None:
    request = asking(
        user("A"),
        assistant([text("B"), CALL]),
        user([RESULT]),
        {"role": "system", "content": "S"},
        user([IMAGE, text("C")]),
        user(),
    )

    assert request.said_before(9) == [Said("user", "A"), Said("assistant", "B"), Said("user", "C")]
    assert request.said_before(1) == [Said("user", "C")]


def test_the_system_prompt_is_a_part_of_the_prompt() -> None:
    system, message = asking(system="S").messages()

    assert (bytes(system), msgspec.json.decode(message)) == (b'"S"', user())


def test_a_prompt_is_counted_as_the_chat_that_vllm_makes_of_it() -> None:
    request = asking(
        user([text("A"), IMAGE]),
        assistant([{"type": "thinking", "thinking": "hm"}, text("B"), CALL]),
        user([RESULT, RESULT | {"tool_use_id": "t2", "content": "straw"}, text("C")]),
        assistant([CALL]),
        user([RESULT]),
        system=[text("S"), text("T")],
        tools=[{"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}],
        chat_template_kwargs={"x": 1},
    )
    function = {"name": "look", "arguments": '{"at":"é"}'}
    called = {
        "role": "assistant",
        "tool_calls": [{"id": "t1", "type": "function", "function": function}],
    }
    result = {"role": "tool", "tool_call_id": "t1", "content": "hay"}

    assert counted(request) == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "ST"},
            user(
                [
                    text("A"),
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                ]
            ),
            called | {"content": "B"},
            result,
            result | {"tool_call_id": "t2", "content": "straw"},
            user("C"),
            called | {"content": None},
            result,
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "look",
                    "description": "Looks.",
                    "parameters": {"type": "object"},
                },
            }
        ],
        "chat_template_kwargs": {"x": 1},
    }


@pytest.mark.parametrize(
    "messages",
    [
        [user([{"type": "tool_result"}])],
        [user([{"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}}])],
        [user([{"type": "image"}, {"type": "text"}, {"type": 3}, {}])],
        [assistant([{"type": "tool_use"}])],
        [user([RESULT | {"content": 7}])],
        [user([RESULT | {"content": [7, {"type": "image"}]}])],
    ],
)
@pytest.mark.parametrize("system", ["", [], [7], 7, {"type": "text"}])
def test_blocks_that_make_no_sense_are_left_to_vllm(messages: list[Any], system: Any) -> None:
    request = asking(*messages, user(), system=system, tools=[{}])
    request.augment("prompt")

    assert counted(request)["model"] == "m"
    assert encoded(request)["messages"][:-1] == messages
    assert request.exchanges


@pytest.mark.parametrize(
    ("messages", "fields", "expected"),
    [
        ([user()], {}, True),
        ([user([text("A")])], {"system": "S"}, True),
        ([user([IMAGE])], {}, False),
        ([user(), assistant([CALL]), user([RESULT])], {}, False),
        ([user()], {"tools": [{}]}, False),
        ([user()], {"chat_template_kwargs": {}}, False),
    ],
)
def test_a_prompt_is_bounded_where_it_is_text_alone(
    messages: list[Any], fields: dict[str, Any], expected: bool
) -> None:
    assert asking(*messages, **fields).bounded is expected


def test_an_answer_is_as_long_as_the_client_says() -> None:
    assert asking(max_tokens=77).answer_tokens(5) == 77


@pytest.mark.parametrize(("kind", "expected"), [("json_schema", True), ("text", False)])
def test_an_answer_in_json_is_known_as_such(kind: str, expected: bool) -> None:
    assert asking(output_config={"format": {"type": kind}}).wants_json is expected


def test_a_count_needs_no_length_of_an_answer_and_is_never_a_stream() -> None:
    body = msgspec.json.encode({"model": "m", "messages": [user()], "stream": True})
    request = TokenCountRequest(body, Asked(retrieval="true"))

    assert (request.path, request.stream) == ("/messages/count_tokens", False)
    assert (request.answer_tokens(5), request.retrieval.enabled) == (5, True)
