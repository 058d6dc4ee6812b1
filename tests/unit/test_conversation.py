"""The body of a chat request: what is read, what stays as it came, what is refused."""

import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.chat.request import ChatRequest
from gateway.errors import InvalidRequest
from gateway.retrieval.options import RetrievalOptions
from gateway.turns import Spoken, exchanges

HELLO = b'{"role":"user","content":"Hello?"}'
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


def conversation(*messages: bytes, fields: bytes = b"") -> ChatRequest:
    listed = b",".join(messages or (HELLO,))
    return ChatRequest(b'{"model":"default","messages":[' + listed + b"]" + fields + b"}")


def asking(fields: dict[str, Any]) -> ChatRequest:
    return ChatRequest(
        msgspec.json.encode({"model": "m", "messages": [{"role": "user"}], **fields})
    )


def encoded(of: ChatRequest, defaults: dict[str, float] | None = None) -> bytes:
    return of.encode("served", defaults or {})


def decoded(of: ChatRequest, defaults: dict[str, float] | None = None) -> dict[str, Any]:
    return msgspec.json.decode(encoded(of, defaults), type=dict[str, Any])


@pytest.mark.parametrize(
    "field",
    [
        b'"temperature":1.0',
        b'"temperature":1e0',
        b'"seed":123456789012345678901234567890',
        b'"min_p":0.10000000000000000001',
        rb'"user":"caf\u00e9 \ud83e\udd99 \/ <b>"',
        '"user":"café 🦙"'.encode(),
        b'"logit_bias":{"50256":-100,"b":1,"a":2}',
        b'"tools":[ {"type" : "function"} ]',
        b'"vllm_xargs":null',
        b'"stop":[]',
    ],
)
def test_a_field_that_is_not_ours_is_relayed_byte_for_byte(field: bytes) -> None:
    assert field in encoded(conversation(fields=b"," + field))


def test_fields_keep_their_order() -> None:
    body = b'{"z":1,"model":"m","a":2,"messages":[' + HELLO + b'],"k":3}'

    assert list(msgspec.json.decode(encoded(ChatRequest(body)), type=dict[str, Any])) == [
        *("z", "model", "a", "messages", "k")
    ]


def test_messages_that_are_not_augmented_are_relayed_byte_for_byte() -> None:
    messages = [
        b'{"role": "system", "content": "\\u00e9", "name":null}',
        b'{"role":"user","content":"Hello?" , "x":1.0}',
    ]

    assert b'"messages":[' + b",".join(messages) + b"]" in encoded(conversation(*messages))


def test_other_messages_than_the_question_stay_as_they_came_when_it_is_augmented() -> None:
    system = rb'{"role" : "system", "content": "\u00e9", "weight": 1.0}'
    later = b'{"role":"assistant","content":null,"tool_calls":[ ]}'
    of = conversation(system, HELLO, later)
    of.augment("prompt")

    assert b'"messages":[%b,{"role":"user","content":"prompt"},%b]' % (system, later) in encoded(of)


@pytest.mark.parametrize("retrieval", [b"true", b"null", b'{"enabled":false}'])
def test_our_own_field_never_reaches_the_model_server(retrieval: bytes) -> None:
    assert "retrieval" not in decoded(conversation(fields=b',"retrieval":' + retrieval))


@pytest.mark.parametrize("field", [b"", b',"model":"default"'])
def test_the_model_is_replaced_by_the_one_that_is_served(field: bytes) -> None:
    assert decoded(conversation(fields=field))["model"] == "served"


def test_defaults_fill_in_what_the_client_did_not_say() -> None:
    body = decoded(conversation(fields=b',"top_p":0.5'), {"temperature": 0.2, "top_p": 0.95})

    assert (body["temperature"], body["top_p"]) == (0.2, 0.5)


@pytest.mark.parametrize("said", [b"null", b"0", b"0.0"])
def test_what_the_client_said_stands_even_where_it_says_nothing_or_nought(said: bytes) -> None:
    body = encoded(conversation(fields=b',"temperature":' + said), {"temperature": 0.2})

    assert b'"temperature":' + said in body
    assert body.count(b"temperature") == 1


@pytest.mark.parametrize(
    ("content", "question"),
    [
        ("  What is HNSW?\n", "What is HNSW?"),
        (
            [{"type": "text", "text": "What is"}, {"type": "text", "text": "HNSW?"}],
            "What is\nHNSW?",
        ),
        ([IMAGE, {"type": "text", "text": "What is this?"}], "What is this?"),
        ([{"type": "text", "text": ""}, {"type": "text", "text": " a "}], "a"),
        ([IMAGE], ""),
        ([], ""),
        ("   ", ""),
        (None, ""),
        ({"type": "text", "text": "no list"}, ""),
        ([{"type": "text"}, {"type": "text", "text": 5}, "bare", 7], ""),
    ],
)
def test_the_question_is_the_text_of_the_last_user_turn(content: object, question: str) -> None:
    message = msgspec.json.encode({"role": "user", "content": content})

    assert conversation(message).question == question


def test_the_question_is_found_behind_tool_and_assistant_turns() -> None:
    of = conversation(
        b'{"role":"user","content":"first"}',
        b'{"role":"assistant","content":"answer"}',
        b'{"role":"user","content":"second","name":"Ada"}',
        b'{"role":"assistant","content":null,"tool_calls":[{"id":"1"}]}',
        b'{"role":"tool","tool_call_id":"1","content":"5"}',
    )
    of.augment("prompt")
    messages = decoded(of)["messages"]

    assert of.question == "second"
    assert messages[2] == {"role": "user", "content": "prompt", "name": "Ada"}
    assert messages[0]["content"] == "first"


def test_what_else_the_question_has_is_relayed_byte_for_byte() -> None:
    of = conversation(rb'{"weight":1e0,"role":"user","content":"Hi","name":"\u00e9"}')
    of.augment("prompt")

    assert rb'{"weight":1e0,"role":"user","content":"prompt","name":"\u00e9"}' in encoded(of)


def test_augmenting_again_begins_with_what_came() -> None:
    of = conversation(spoken("user", "old"), spoken("assistant", "older"), HELLO)
    of.augment("first", forgotten=1)
    of.augment("second")
    assert [message["content"] for message in decoded(of)["messages"]] == ["old", "older", "second"]

    of.augment(None, forgotten=1)
    assert [message["content"] for message in decoded(of)["messages"]] == ["Hello?"]
    assert of.question == "Hello?"


def spoken(role: str, content: Any = None, **more: Any) -> bytes:
    return msgspec.json.encode({"role": role, "content": content, **more})


def calling(*calls: str) -> bytes:
    return spoken("assistant", tool_calls=[{"id": call} for call in calls])


def result(call: str) -> bytes:
    return spoken("tool", "5", tool_call_id=call)


USER, ASSISTANT, SYSTEM = spoken("user", "u"), spoken("assistant", "a"), spoken("system", "s")


@pytest.mark.parametrize(
    ("messages", "exchanges"),
    [
        ([USER], []),
        ([SYSTEM, USER], []),
        ([SYSTEM, USER, ASSISTANT, USER], [[1, 2]]),
        ([USER, ASSISTANT, USER, ASSISTANT, USER], [[0, 1], [2, 3]]),
        ([ASSISTANT, USER, USER, ASSISTANT, USER], [[0], [1], [2, 3]]),
        ([SYSTEM, USER, SYSTEM, ASSISTANT, spoken("developer"), USER], [[1, 3]]),
        ([USER, calling("1", "2"), result("1"), result("2"), ASSISTANT, USER], [[0, 1, 2, 3, 4]]),
        # Ids that a model counts anew belong to the last call of that id.
        (
            [USER, calling("1"), result("1"), USER, calling("1"), result("1"), USER],
            [[0, 1, 2], [3, 4, 5]],
        ),
        # A turn of the user came before the result.
        (
            [USER, ASSISTANT, USER, calling("1"), USER, result("1"), USER],
            [[0, 1], [2, 3, 4, 5]],
        ),
        # What answers a call after the question keeps the call.
        ([USER, ASSISTANT, USER, calling("1"), USER, result("1")], [[0, 1]]),
        ([USER, calling("1"), USER, ASSISTANT, USER, result("1")], []),
        ([USER, calling("1"), USER, calling("2"), result("1"), USER, result("2")], []),
        # Calls of the question itself.
        ([USER, ASSISTANT, USER, calling("1"), result("1")], [[0, 1]]),
        ([ASSISTANT, SYSTEM], []),
        ([b'{"role":"user","content":"u"}', b'{"role":"tool","tool_call_id":5}', USER], []),
        ([USER, spoken("assistant", tool_calls="x"), USER], []),
    ],
)
def test_exchanges_are_what_can_be_forgotten_together(
    messages: list[bytes], exchanges: list[list[int]]
) -> None:
    assert conversation(*messages).exchanges == exchanges


ROLES = st.sampled_from([USER, ASSISTANT, SYSTEM, calling("1"), result("1"), calling("2", "3")])


@given(st.lists(ROLES, max_size=12), st.lists(ROLES, max_size=4), st.integers(0, 6))
def test_forgetting_keeps_order_system_question_and_what_belongs_together(
    before: list[bytes], after: list[bytes], forgotten: int
) -> None:
    of = conversation(*before, HELLO, *after)
    kept = [bytes(message) for message in of.messages(None, forgotten)]
    gone = {place for exchange in of.exchanges[:forgotten] for place in exchange}
    messages = [*before, HELLO, *after]

    assert kept == [message for place, message in enumerate(messages) if place not in gone]
    assert kept.count(SYSTEM) == messages.count(SYSTEM)
    last = max(place for place, each in enumerate(messages) if each in (HELLO, USER))
    assert not gone & set(range(last, len(messages)))
    for result_at, call_at in _answered(messages).items():
        assert (result_at in gone) is (call_at in gone)


def test_many_calls_and_many_results_take_no_longer_than_other_messages() -> None:
    said = [
        {"role": "user"},
        *(
            {"role": "assistant", "tool_calls": [{"id": f"{at}.{n}"} for n in range(1000)]}
            for at in range(40)
        ),
        *[{"role": "tool", "tool_call_id": "0.0"}] * 600,
        {"role": "user"},
    ]
    spoken = msgspec.convert(said, list[Spoken])
    began = time.process_time()

    assert exchanges(spoken, len(spoken) - 1) == [[*range(len(spoken) - 1)]]
    assert time.process_time() - began < 2


def test_what_belongs_together_is_not_asked_where_nothing_is_forgotten() -> None:
    of = conversation(USER, ASSISTANT, HELLO)
    of.augment("prompt")

    assert [*map(bytes, of.messages())] == [USER, ASSISTANT, HELLO]
    assert "exchanges" not in vars(of)


def _answered(messages: list[bytes]) -> dict[int, int]:
    """Which call each result answers, by place."""
    calls: dict[str, int] = {}
    answered: dict[int, int] = {}
    for place, message in enumerate(messages):
        fields = msgspec.json.decode(message, type=dict[str, Any])
        calls |= {call["id"]: place for call in fields.get("tool_calls", [])}
        if (call := fields.get("tool_call_id")) in calls:
            answered[place] = calls[call]
    return answered


@pytest.mark.parametrize(
    ("fields", "room"),
    [
        ({}, 256),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 9, "max_tokens": 5}, 9),
        ({"max_completion_tokens": None, "max_tokens": 700}, 700),
        ({"max_tokens": 0}, 1),
        ({"max_tokens": "many"}, 256),
        ({"min_tokens": 300}, 300),
        ({"min_tokens": 3}, 256),
        ({"min_tokens": 300, "max_tokens": 400}, 400),
    ],
)
def test_the_length_of_the_answer_is_what_the_client_said(
    fields: dict[str, Any], room: int
) -> None:
    assert asking(fields).answer_tokens(256) == room


@pytest.mark.parametrize(
    ("fields", "bounded"),
    [
        ({}, True),
        ({"tools": [{}], "chat_template": None, "documents": None}, True),
        ({"chat_template": "x"}, False),
        ({"chat_template_kwargs": {}}, False),
        ({"documents": []}, False),
    ],
)
def test_options_of_the_template_may_make_a_prompt_longer_than_its_messages(
    fields: dict[str, Any], bounded: bool
) -> None:
    assert asking(fields).bounded is bounded


@pytest.mark.parametrize(
    ("content", "bounded"),
    [
        ("text", True),
        (None, True),
        ([{"type": "text", "text": "a"}], True),
        ([{"type": "text", "text": "a"}, IMAGE], False),
        ([{"type": "refusal", "refusal": "no"}], False),
    ],
)
def test_images_anywhere_are_longer_than_their_text(content: Any, bounded: bool) -> None:
    of = conversation(spoken("assistant", content), HELLO)

    assert of.bounded is bounded


def test_a_conversation_without_a_user_turn_asks_nothing() -> None:
    assert conversation(b'{"role":"system","content":"Be brief."}').question == ""


def test_images_stay_before_the_prompt_that_takes_the_place_of_all_text() -> None:
    parts = [{"type": "text", "text": "a"}, IMAGE, {"type": "text", "text": "b"}, {"type": "other"}]
    of = conversation(msgspec.json.encode({"role": "user", "content": parts}))
    of.augment("prompt “é”")

    [message] = decoded(of)["messages"]
    assert message["content"] == [IMAGE, {"type": "other"}, {"type": "text", "text": "prompt “é”"}]


@pytest.mark.parametrize(("field", "stream"), [(b"", False), (b',"stream":true', True),
                                               (b',"stream":false', False),
                                               (b',"stream":null', False)])  # fmt: skip
def test_a_stream_is_one_that_was_asked_for(field: bytes, stream: bool) -> None:
    assert conversation(fields=field).stream is stream


@pytest.mark.parametrize(
    ("field", "options"),
    [
        (b"", RetrievalOptions()),
        (b"null", RetrievalOptions()),
        (b"true", RetrievalOptions(enabled=True)),
        (b"false", RetrievalOptions(enabled=False)),
        (b"{}", RetrievalOptions()),
        (b'{"enabled":false}', RetrievalOptions(enabled=False)),
        (b'{"max_num_results":50}', RetrievalOptions(max_num_results=50)),
        (
            b'{"max_num_results":1,"enabled":true}',
            RetrievalOptions(enabled=True, max_num_results=1),
        ),
    ],
)
def test_retrieval_is_a_switch_or_options(field: bytes, options: RetrievalOptions) -> None:
    fields = b',"retrieval":' + field if field else b""

    assert conversation(fields=fields).retrieval == options


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"nonsense", None),
        (b"[]", None),
        (b"null", None),
        (b'"text"', None),
        (b'{"messages":[]}trailing', None),
        (b'{"x":' + b"[" * 200_000, None),
        (b'{"\xff":1}', None),
        (rb'{"messages":[{"role":"user","content":"\ud800"}]}', None),
        (b"{}", "model"),
        (b'{"model":null,"messages":[' + HELLO + b"]}", "model"),
        (b'{"model":"m"}', "messages"),
        (b'{"model":"m","messages":null}', "messages"),
        (b'{"model":"m","messages":"hi"}', "messages"),
        (b'{"model":"m","messages":{}}', "messages"),
        (b'{"model":"m","messages":[]}', "messages"),
        (b'{"model":"m","messages":[5]}', "messages[0]"),
        (b'{"model":"m","messages":[{"content":"no role"}]}', "messages[0]"),
        (b'{"model":"m","messages":[{"role":5}]}', "messages[0]"),
        (b'{"model":"m","messages":[{"role":"robot"}]}', "messages[0].role"),
        (b'{"model":"m","messages":[' + HELLO + b',{"role":null}]}', "messages[1]"),
        (b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}', "messages[0]"),
        (b'{"messages":[' + HELLO + b'],"model":5}', "model"),
        (b'{"messages":[' + HELLO + b'],"model":"\xff"}', "model"),
        (b'{"model":"m","messages":[' + HELLO + b'],"stream":"yes"}', "stream"),
        (b'{"model":"m","messages":[' + HELLO + b'],"stream":1}', "stream"),
        (b'{"model":"m","messages":[' + HELLO + b'],"retrieval":"yes"}', "retrieval"),
        (b'{"model":"m","messages":[' + HELLO + b'],"retrieval":[]}', "retrieval"),
        (
            b'{"model":"m","messages":[' + HELLO + b'],"retrieval":{"enabled":1}}',
            "retrieval.enabled",
        ),
        (
            b'{"model":"m","messages":[' + HELLO + b'],"retrieval":{"max_num_results":0}}',
            "retrieval.max_num_results",
        ),
        (
            b'{"model":"m","messages":[' + HELLO + b'],"retrieval":{"max_num_results":51}}',
            "retrieval.max_num_results",
        ),
        (
            b'{"model":"m","messages":[' + HELLO + b'],"retrieval":{"max_num_results":2.5}}',
            "retrieval.max_num_results",
        ),
        (b'{"model":"m","messages":[' + HELLO + b'],"retrieval":{"top_k":5}}', "retrieval"),
    ],
)
def test_a_wrong_body_is_refused_with_the_part_that_is_wrong(
    body: bytes, param: str | None
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        ChatRequest(body)

    assert refused.value.param == param
    assert param is None or param in str(refused.value)
