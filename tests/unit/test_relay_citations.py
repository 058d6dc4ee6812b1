"""The citations of vLLM's answers on their way to the client, streamed and whole."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from gateway.chat.answer import ChatShape
from gateway.citations import Grounding, annotations, context
from indexer.index.records import Hit
from tests.unit.test_relay import FIRST, RECORDED, choice, completion, delta, event, events, relay

pytestmark = pytest.mark.anyio


@pytest.fixture
def grounding(hits: list[Hit]) -> Grounding:
    return Grounding("What do llamas eat?", hits)


async def streamed(text: Sequence[str], grounding: Grounding) -> dict[str, Any]:
    """The message that the SDK makes of a stream of these pieces."""
    stream = [event(FIRST)]
    stream += [event(choice(f'"content":{msgspec.json.encode(piece).decode()}')) for piece in text]
    stream += [event(choice("", '"stop"')), RECORDED[-2], RECORDED[-1]]
    state = ChatCompletionStreamState()
    for one in events(await relay(stream, grounding))[:-1]:
        state.handle_chunk(ChatCompletionChunk.model_validate_json(one[5:]))
    message: dict[str, Any] = state.get_final_completion().choices[0].message.model_dump()
    return message


async def test_invalid_citations_are_counted_in_the_last_event_and_the_sdk_adds_them_to_the_context(
    grounding: Grounding,
) -> None:
    stream = [event(FIRST), event(choice('"content":"A [1], [7, 8]."', '"stop"')), RECORDED[-1]]
    output = events(await relay(stream, grounding))
    message = await streamed(["A [1]", ", [7, 8", "]."], grounding)

    assert delta(output[1])["context"] == {"invalid_citations": 2}
    assert message["context"] == context(grounding.question, grounding.hits, 2)
    assert message["annotations"] == annotations("A [1], [7, 8].", grounding.hits) != []


async def test_invalid_citations_of_a_stream_of_one_event_are_counted_there(
    grounding: Grounding,
) -> None:
    stream = [event(choice('"content":"Grass [9]."', '"stop"')), RECORDED[-1]]
    [first, _] = events(await relay(stream, grounding))

    assert delta(first)["context"] == context(grounding.question, grounding.hits, 1)
    assert "annotations" not in delta(first)


PIECES = st.lists(
    st.sampled_from([*'[]【】,-1239 `†é🦙\n"\\', "[1]", "[2, 3]", "Passage ", "Grass", "```"]),
    max_size=30,
)


@pytest.mark.parametrize("is_json", [False, True])
def test_however_a_text_is_split_its_annotations_are_those_of_the_whole(
    grounding: Grounding, is_json: bool
) -> None:
    grounding = msgspec.structs.replace(grounding, is_json=is_json)

    @settings(max_examples=100)
    @given(pieces=PIECES, size=st.integers(1, 7))
    def check(pieces: list[str], size: int) -> None:
        text = "".join(pieces)
        sizes = [text[place : place + size] for place in range(0, len(text), size)]
        for split in (pieces, sizes):
            stream = [event(FIRST)]
            stream += [
                event(choice(f'"content":{msgspec.json.encode(piece).decode()}')) for piece in split
            ]
            end = event(choice("", '"stop"'))
            output = events(asyncio.run(relay([*stream, end, RECORDED[-1]], grounding)))
            assert output[1 : len(stream)] == stream[1:]
            found = delta(output[len(stream)])
            assert found.get("annotations", []) == annotations(
                text, grounding.hits, is_json=is_json
            )

    check()


async def test_in_a_json_answer_an_array_cites_nothing(grounding: Grounding) -> None:
    answer = '{"answer": "Grass [1].", "values": [2, 9]}'
    grounding = msgspec.structs.replace(grounding, is_json=True)
    body = msgspec.json.decode(ChatShape(grounding).whole(completion({"content": answer})))
    message = await streamed([answer[:19], answer[19:30], answer[30:]], grounding)

    whole = body["choices"][0]["message"]
    assert message["content"] == whole["content"] == answer
    assert message["annotations"] == whole["annotations"]
    assert [each["url_citation"]["number"] for each in whole["annotations"]] == [1]
    assert whole["context"]["invalid_citations"] == 0


# As vLLM writes numbers, which another writer would write in another way.
LOGPROBS = '{"content":[{"token":"[","logprob":-1.00e-05,"bytes":[91],"top_logprobs":[]}]}'


async def test_logprobs_of_an_opened_event_stay_as_they_came(grounding: Grounding) -> None:
    stream = [
        event(FIRST.replace('"logprobs":null', f'"logprobs":{LOGPROBS}'), tail=',"seed":1.0E2'),
        event(choice('"content":"[1]"', '"stop"').replace("null", LOGPROBS, 1)),
        RECORDED[-1],
    ]
    output = events(await relay(stream, grounding))

    assert all(f'"logprobs":{LOGPROBS}'.encode() in one for one in output[:2])
    assert b'"seed":1.0E2' in output[0]
    assert "context" in delta(output[0])
    assert "annotations" in delta(output[1])


async def test_of_a_whole_completion_all_but_the_message_stays_as_it_came(
    grounding: Grounding,
) -> None:
    message = '{"role":"assistant","content":"Grass [1].","tool_calls":[ ],"annotations":null}'
    body = (
        f'{{"id":"x","choices":[{{"index":0,"message":{message},"logprobs":{LOGPROBS},'
        '"finish_reason":"stop"}],'
        '"usage":{"total_tokens": 7}}'
    ).encode()
    answer = ChatShape(grounding).whole(body)

    assert f'"logprobs":{LOGPROBS}'.encode() in answer
    assert b'"usage":{"total_tokens": 7}' in answer
    assert b'"tool_calls":[ ]' in answer
    assert answer.count(b'"annotations"') == 1
