"""The body of a chat request: what is read, what stays as it came, what is refused."""

from typing import Any

import msgspec
import pytest

from gateway.conversation import Conversation, RetrievalOptions
from gateway.errors import InvalidRequest

HELLO = b'{"role":"user","content":"Hello?"}'
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


def conversation(*messages: bytes, fields: bytes = b"") -> Conversation:
    listed = b",".join(messages or (HELLO,))
    return Conversation(b'{"messages":[' + listed + b"]" + fields + b"}")


def encoded(of: Conversation, defaults: dict[str, float] | None = None) -> bytes:
    return of.encode("served", defaults or {})


def decoded(of: Conversation, defaults: dict[str, float] | None = None) -> dict[str, Any]:
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

    assert list(msgspec.json.decode(encoded(Conversation(body)), type=dict[str, Any])) == [
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


@pytest.mark.parametrize("field", [b"", b',"model":"default"', b',"model":null'])
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


def test_a_conversation_without_a_user_turn_asks_nothing() -> None:
    assert conversation(b'{"role":"system","content":"Be brief."}').question == ""


def test_images_stay_beside_the_prompt_that_takes_the_place_of_all_text() -> None:
    parts = [{"type": "text", "text": "a"}, IMAGE, {"type": "text", "text": "b"}, {"type": "other"}]
    of = conversation(msgspec.json.encode({"role": "user", "content": parts}))
    of.augment("prompt “é”")

    [message] = decoded(of)["messages"]
    assert message["content"] == [{"type": "text", "text": "prompt “é”"}, IMAGE, {"type": "other"}]


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
        (b'{"max_num_results":1,"enabled":true}', RetrievalOptions(True, 1)),
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
        (b"{}", "messages"),
        (b'{"messages":null}', "messages"),
        (b'{"messages":"hi"}', "messages"),
        (b'{"messages":{}}', "messages"),
        (b'{"messages":[]}', "messages"),
        (b'{"messages":[5]}', "messages[0]"),
        (b'{"messages":[{"content":"no role"}]}', "messages[0]"),
        (b'{"messages":[{"role":5}]}', "messages[0]"),
        (b'{"messages":[' + HELLO + b',{"role":null}]}', "messages[1]"),
        (b'{"messages":[{"role":"user","content":"\xff"}]}', "messages[0]"),
        (b'{"messages":[' + HELLO + b'],"model":5}', "model"),
        (b'{"messages":[' + HELLO + b'],"model":"\xff"}', "model"),
        (b'{"messages":[' + HELLO + b'],"stream":"yes"}', "stream"),
        (b'{"messages":[' + HELLO + b'],"stream":1}', "stream"),
        (b'{"messages":[' + HELLO + b'],"retrieval":"yes"}', "retrieval"),
        (b'{"messages":[' + HELLO + b'],"retrieval":[]}', "retrieval"),
        (b'{"messages":[' + HELLO + b'],"retrieval":{"enabled":1}}', "retrieval"),
        (b'{"messages":[' + HELLO + b'],"retrieval":{"max_num_results":0}}', "retrieval"),
        (b'{"messages":[' + HELLO + b'],"retrieval":{"max_num_results":51}}', "retrieval"),
        (b'{"messages":[' + HELLO + b'],"retrieval":{"max_num_results":2.5}}', "retrieval"),
        (b'{"messages":[' + HELLO + b'],"retrieval":{"top_k":5}}', "retrieval"),
    ],
)
def test_a_wrong_body_is_refused_with_the_part_that_is_wrong(
    body: bytes, param: str | None
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Conversation(body)

    assert refused.value.param == param
    assert param is None or param in str(refused.value)
