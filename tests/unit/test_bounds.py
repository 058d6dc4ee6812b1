"""How much a request may bring: the last that is taken, and the first that is not."""

import json
from typing import Any

import pytest

from gateway.bounds import Bounds
from gateway.errors import InvalidRequest
from gateway.media import Media
from gateway.settings.bounds import REFUSED_FIELDS, BoundsSettings

SMALL = BoundsSettings(
    max_messages=3,
    max_content_parts=2,
    max_parts=5,
    max_text_chars=1000,
    max_choices=4,
    max_stops=2,
    max_stop_chars=5,
    max_logprobs=5,
    max_logit_bias=2,
    max_tools=2,
    max_tools_bytes=200,
    max_grammar_bytes=100,
)
TURN = {"role": "user", "content": "hello"}
PART = {"type": "text", "text": "hello"}
TOOL = {"type": "function", "function": {"name": "f"}}


def check(said: dict[str, Any], settings: BoundsSettings = SMALL) -> None:
    Bounds(settings).check(json.dumps(said).encode())


@pytest.mark.parametrize(
    ("name", "most", "param"),
    [
        ("messages", [TURN] * 3, "messages"),
        ("input", [TURN] * 3, "input"),
        ("messages", [{"role": "user", "content": [PART] * 2}], "messages[0].content"),
        ("messages", [{"role": "assistant", "tool_calls": [{}] * 2}], "messages[0].tool_calls"),
        ("input", [{"type": "function_call_output", "output": [PART] * 2}], "input[0].output"),
        ("system", "a" * 1000, "system"),
        ("prompt", "a" * 1000, "prompt"),
        ("input", ["a" * 500, "a" * 500], "input"),
        ("documents", ["a" * 500, {"text": "a" * 500}], "documents"),
        ("messages", [{"role": "user", "content": [PART | {"text": "a" * 1000}]}], "messages"),
        ("n", 4, "n"),
        ("best_of", 4, "best_of"),
        ("prompt", ["a"] * 4, "prompt"),
        ("prompt", [[1], [2], [3], [4]], "prompt"),
        ("stop", ["a", "b"], "stop"),
        ("stop", "aaaaa", "stop"),
        ("stop_sequences", ["aaaaa"], "stop_sequences"),
        ("bad_words", ["a", "b"], "bad_words"),
        ("logprobs", 5, "logprobs"),
        ("top_logprobs", 5, "top_logprobs"),
        ("prompt_logprobs", 5, "prompt_logprobs"),
        ("logit_bias", {"1": 1, "2": 1}, "logit_bias"),
        ("stop_token_ids", [1, 2], "stop_token_ids"),
        ("allowed_token_ids", [1, 2], "allowed_token_ids"),
        ("tools", [TOOL] * 2, "tools"),
        ("tools", [{"a": "a" * (200 - len('[{"a":""}]'))}], "tools"),
        ("response_format", {"a": "a" * (100 - len('{"a":""}'))}, "response_format"),
        ("structured_outputs", {"regex": "a" * (100 - len('{"regex":""}'))}, "structured_outputs"),
        ("text", {"a": "a" * (100 - len('{"a":""}'))}, "text"),
    ],
)
def test_a_bound_takes_its_most_and_refuses_one_more(name: str, most: Any, param: str) -> None:
    check({name: most})

    with pytest.raises(InvalidRequest) as refused:
        check({name: more(most)})
    assert refused.value.param == param
    assert repr(param) in str(refused.value)


def more(most: Any) -> Any:  # noqa: PLR0911  # one for each shape
    """`most` with one more of what it is full of."""
    match most:
        case int():
            return most + 1
        case str():
            return most + "a"
        case [{"content": [{"text": str(text)} as part]}] if len(text) > 100:
            return [{"role": "user", "content": [part | {"text": text + "a"}]}]
        case [dict(message)] if any(isinstance(each, list) for each in message.values()):
            return [{k: [*v, v[0]] if isinstance(v, list) else v for k, v in message.items()}]
        case [{"a": str(text)}]:
            return [{"a": text + "a"}]
        case [str(text), *rest] if len(text) >= 5:
            return [text + "a", *rest]
        case list():
            return [*most, most[0]]
        case {"a": str(text)}:
            return {"a": text + "a"}
        case {"regex": str(text)}:
            return {"regex": text + "a"}
        case _:
            return most | {"3": 1}


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"prompt": ["a", "b"], "n": 3}, "prompt"),
        ({"prompt": ["a"] * 3, "best_of": 2}, "prompt"),
        ({"n": 10**300}, "n"),
        ({"n": 5.0}, "n"),
        ({"n": "100000"}, "n"),
        ({"best_of": ["1"]}, "best_of"),
        ({"logprobs": "5"}, "logprobs"),
        ({"top_logprobs": "100000"}, "top_logprobs"),
        ({"prompt_logprobs": {}}, "prompt_logprobs"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs.chat_template"),
        ({"chat_template_kwargs": {"tokenize": False}}, "chat_template_kwargs.tokenize"),
        ({"tools": [{"type": "mcp", "server_url": "http://a"}]}, "tools[0].server_url"),
        ({"input": [{"type": "input_image", "image_url": "http://a"}]}, "input[0].image_url"),
        ({"system": [{"source": {"type": "url", "url": "http://a"}}]}, "system[0].source.url"),
    ],
)
def test_what_hangs_together_is_looked_at_together(said: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check(said)
    assert refused.value.param == param


def test_numbers_of_an_input_to_embed_are_no_messages() -> None:
    check({"input": [[1, 2, 3]] * 20})
    check({"input": list(range(500))})


def test_data_of_images_is_no_text() -> None:
    url = "data:image/png;base64," + "A" * 5000
    check({"messages": [{"content": [{"type": "image_url", "image_url": {"url": url}}]}]})


@pytest.mark.parametrize("name", REFUSED_FIELDS)
def test_a_field_that_reaches_into_vllm_is_refused_unless_it_is_allowed(name: str) -> None:
    said = {"tools": [{name: "x"}]} if name == "server_url" else {name: "x"}
    with pytest.raises(InvalidRequest) as refused:
        check(said)
    assert refused.value.param == ("tools[0].server_url" if name == "server_url" else name)

    check(said, BoundsSettings(allowed_fields=f"{name}, chat_template"))


@pytest.mark.parametrize("written", ["uuid", r"\u0075uid", r"uui\u0064", r"\u0075u\u0069\u0064"])
def test_a_name_that_vllm_keeps_media_by_is_seen_however_it_is_written(written: str) -> None:
    part = f'{{"type": "image_url", "image_url": null, "{written}": "theirs"}}'
    for place in ("messages", "input"):
        with pytest.raises(InvalidRequest) as refused:
            Bounds(SMALL).check(f'{{"{place}": [{{"content": [{part}]}}]}}'.encode())
        assert refused.value.param == f"{place}[0].content[0].uuid"


def test_hosts_that_are_named_are_taken() -> None:
    part = {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}

    check({"messages": [{"content": [part]}]}, BoundsSettings(media_hosts="a.example"))


def test_odd_values_are_left_to_who_knows_the_field() -> None:
    for odd in (None, True, "x", 1.5, -1, [], {}, [None, "a"], {"a": None}):
        for name in ("messages", "tools", "stop", "logit_bias", "prompt", "response_format"):
            check({name: odd})


@pytest.mark.parametrize("name", ["n", "best_of", "logprobs", "top_logprobs", "prompt_logprobs"])
def test_a_number_may_be_missing_and_a_yes_is_one(name: str) -> None:
    for said in (None, True, False, 1, 1.0):
        check({name: said})


def test_parts_of_the_whole_request_are_counted_those_in_parts_included() -> None:
    def nested(inner: int) -> dict[str, Any]:
        return {"role": "user", "content": [PART | {"content": [PART] * inner}]}

    check({"messages": [nested(2), nested(1)]})
    check({"messages": [TURN, nested(4)]})
    check({"messages": [nested(2)], "instructions": [PART] * 2})
    calls = {"role": "assistant", "tool_calls": [{"id": "1"}] * 2}
    result = {"type": "function_call_output", "output": {"type": "text", "content": [PART] * 2}}
    check({"input": [calls, result]})
    for said, param in (
        ({"messages": [TURN, nested(2), nested(2)]}, "messages[2]"),
        ({"messages": [nested(5)]}, "messages[0]"),
        ({"messages": [nested(2)], "system": [PART] * 3}, "system"),
        ({"messages": [TURN, [[PART] * 5]]}, "messages[1]"),
        ({"input": [calls, {"type": "a", "output": {"content": [PART] * 3}}]}, "input[1]"),
    ):
        with pytest.raises(InvalidRequest, match="more than 5 parts") as refused:
            check(said)
        assert refused.value.param == param


@pytest.mark.parametrize("entries", [[[]] * 50_000, [{}] * 50_000, [1] * 1_000_000])
def test_no_part_is_looked_at_where_there_are_too_many(
    entries: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[Any] = []
    monkeypatch.setattr(Media, "check", lambda _, said, place: looked_at.append((said, place)))

    with pytest.raises(InvalidRequest, match="more than 10000 parts"):
        check({"messages": [{"content": [{"content": entries}]}]}, BoundsSettings())
    assert looked_at == []


@pytest.mark.parametrize(
    "said",
    [
        {"input": [[1234] * 512] * 2048},
        {"messages": [{"role": "user", "content": [PART] * 64}] * 2048},
        {"messages": [{"role": "user", "content": json.dumps([{}] * 400_000)}]},
    ],
    ids=["token ids", "parts", "brackets in a text"],
)
def test_what_is_long_and_plain_is_taken(said: dict[str, Any]) -> None:
    check(said, BoundsSettings(max_parts=2048 * 64))


def test_text_is_found_wherever_it_may_stand_and_however_deep() -> None:
    inside: Any = [1, None, "a" * 500]
    for _ in range(10):
        inside = [1, {"content": [2, {"text": "a" * 10, "output": inside}]}]
    with pytest.raises(InvalidRequest, match="more than 599 characters"):
        check({"documents": inside}, BoundsSettings(max_text_chars=599))

    check({"documents": inside}, BoundsSettings(max_text_chars=600))
