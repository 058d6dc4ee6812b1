"""vLLM's answers on their way to the client."""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import msgspec
import pytest

from gateway.chat.answer import ChatShape, _Editor
from gateway.citations import Grounding, annotations, context
from gateway.errors import UpstreamBroken
from gateway.events import Watcher, error_event, relayed
from indexer.index.records import Hit

pytestmark = pytest.mark.anyio

HEAD = '{"id":"chatcmpl-9f","object":"chat.completion.chunk","created":1,"model":"org/model-a"'


def event(*choices: str, tail: str = "") -> bytes:
    return f'data: {HEAD},"choices":[{",".join(choices)}]{tail}}}\n\n'.encode()


def choice(delta: str, finish: str = "null", index: int = 0) -> str:
    return f'{{"index":{index},"delta":{{{delta}}},"logprobs":null,"finish_reason":{finish}}}'


FIRST = choice('"role":"assistant","content":"","reasoning_content":null')
# As vllm serve 0.32 writes it, with stream_options.include_usage.
RECORDED = [
    event(FIRST, tail=',"prompt_token_ids":null'),
    event(choice('"content":"Llamas eat gr\\u00e4ss"'), tail=',"token_ids":null'),
    event(choice('"content":" 🦙 ["')),
    event(choice('"content":"1"')),
    event(choice('"content":"]."')),
    event(choice('"content":""', '"stop"'), tail=',"stop_reason":null'),
    event(tail=',"usage":{"prompt_tokens":9,"total_tokens":14,"completion_tokens":5}'),
    b"data: [DONE]\n\n",
]
TEXT = "Llamas eat gräss 🦙 [1]."


@pytest.fixture
def grounding(hits: list[Hit]) -> Grounding:
    return Grounding("What do llamas eat?", hits)


async def relay(
    pieces: Iterable[bytes], grounding: Grounding | None, failure: Exception | None = None
) -> list[bytes]:
    """What the client gets; errors become an event with class and message of the failure."""

    async def chunks() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece
        if failure is not None:
            raise failure

    editor = Watcher() if grounding is None else _Editor(grounding)

    def error_event(exc: Exception) -> bytes:
        return f"ERROR {type(exc).__name__}: {exc}".encode()

    return [chunk async for chunk in relayed(chunks(), editor, error_event)]


def events(output: Sequence[bytes]) -> list[bytes]:
    return [part + b"\n\n" for part in b"".join(output).split(b"\n\n") if part]


def delta(one_event: bytes, place: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(one_event[5:])["choices"][place]["delta"]
    return found


async def test_the_first_event_gets_the_context_the_last_the_annotations_and_no_other_changes(
    grounding: Grounding,
) -> None:
    output = events(await relay(RECORDED, grounding))

    assert len(output) == len(RECORDED)
    assert delta(output[0])["context"] == context(grounding.question, grounding.hits)
    assert delta(output[5])["annotations"] == annotations(TEXT, grounding.hits) != []
    changed = [place for place in range(len(RECORDED)) if output[place] != RECORDED[place]]
    assert changed == [0, 5]


async def test_what_an_opened_event_held_before_is_still_in_it(grounding: Grounding) -> None:
    output = events(await relay(RECORDED, grounding))

    for place, added in ((0, "context"), (5, "annotations")):
        before, after = (msgspec.json.decode(of[place][5:]) for of in (RECORDED, output))
        del after["choices"][0]["delta"][added]
        assert after == before


async def test_every_split_of_a_stream_gives_the_same_bytes(grounding: Grounding) -> None:
    whole = b"".join(RECORDED)
    expected = b"".join(await relay(RECORDED, grounding))
    splits = [[whole[:place], whole[place:]] for place in range(len(whole) + 1)]
    splits += [
        [whole[place : place + size] for place in range(0, len(whole), size)]
        for size in range(1, 12)
    ]

    for split in splits:
        assert b"".join(await relay(split, grounding)) == expected
        assert b"".join(await relay(split, None)) == whole


async def test_an_event_is_handed_on_before_the_next_one_comes(grounding: Grounding) -> None:
    assert len(await relay(RECORDED, grounding)) == len(RECORDED)


async def test_line_ends_of_windows_are_understood(grounding: Grounding) -> None:
    whole = b"".join(RECORDED).replace(b"\n\n", b"\r\n\r\n")
    expected = b"".join(await relay(RECORDED, grounding))

    for size in (1, 2, 3, len(whole)):
        pieces = [whole[place : place + size] for place in range(0, len(whole), size)]
        assert b"".join(await relay(pieces, grounding)) == expected


async def test_comments_are_relayed(grounding: Grounding) -> None:
    output = await relay([b": ping\n\n", *RECORDED], grounding)

    assert output[0] == b": ping\n\n"
    assert output[1:] == await relay(RECORDED, grounding)


async def test_each_choice_has_its_own_context_and_annotations(grounding: Grounding) -> None:
    empty = '"role":"assistant","content":""'
    stream = [
        event(choice(empty), choice(empty, index=1)),
        event(choice('"content":"A [1]"')),
        event(choice('"content":"Other [2]"', '"stop"', index=1)),
        event(choice('"content":" and [3]."', '"length"')),
        b"data: [DONE]\n\n",
    ]
    output = events(await relay(stream, grounding))

    assert all("context" in delta(output[0], place) for place in (0, 1))
    assert output[1] == stream[1]
    assert delta(output[2])["annotations"] == annotations("Other [2]", grounding.hits)
    assert delta(output[3])["annotations"] == annotations("A [1] and [3].", grounding.hits)
    assert all("context" not in delta(one) for one in output[2:4])


async def test_what_was_not_cited_is_not_claimed(grounding: Grounding) -> None:
    stream = [
        event(FIRST),
        event(choice('"content":"No idea."')),
        event(choice("", '"stop"')),
        RECORDED[-1],
    ]

    assert events(await relay(stream, grounding))[1:] == stream[1:]


async def test_a_stream_of_one_event_gets_both(grounding: Grounding) -> None:
    stream = [event(choice('"content":"Grass [1]."', '"stop"')), RECORDED[-1]]

    assert set(delta((await relay(stream, grounding))[0])) == {"content", "context", "annotations"}


async def test_deltas_without_content_are_no_trouble(grounding: Grounding) -> None:
    calls = '"tool_calls":[{"index":0,"id":"1","function":{"name":"f","arguments":"{}"}}]'
    stream = [
        event(choice('"role":"assistant","content":null')),
        event(choice(calls)),
        event(choice("", '"tool_calls"')),
        RECORDED[-1],
    ]
    output = events(await relay(stream, grounding))

    assert "context" in delta(output[0])
    assert output[1:] == stream[1:]


async def test_a_comment_behind_the_last_event_does_not_make_a_stream_incomplete() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield RECORDED[5] + RECORDED[7] + b": ping\n\n"

    said = [chunk async for chunk in relayed(chunks(), Watcher(), error_event)]
    assert said == [RECORDED[5] + RECORDED[7] + b": ping\n\n"]


async def test_ungrounded_answers_are_relayed_as_they_are() -> None:
    assert await relay(RECORDED, None) == RECORDED


@pytest.mark.parametrize("is_grounded", [True, False])
class TestAStreamThatIsNoWholeAnswerEndsWithAnErrorEvent:
    """Everything until then is relayed."""

    async def relayed(
        self,
        pieces: list[bytes],
        grounding: Grounding,
        is_grounded: bool,
        failure: Exception | None = None,
    ) -> str:
        """The error event; what stood before it is compared with what was sent."""
        use = grounding if is_grounded else None
        *before, error = await relay(pieces, use, failure)
        assert before == (await relay(RECORDED, use))[: len(before)]
        assert len(before) == 3
        return error.decode()

    async def test_when_the_connection_breaks(
        self, grounding: Grounding, is_grounded: bool
    ) -> None:
        failure = UpstreamBroken("broke off")

        error = await self.relayed(RECORDED[:3], grounding, is_grounded, failure)
        assert error == "ERROR UpstreamBroken: broke off"

    async def test_when_it_ends_between_events(
        self, grounding: Grounding, is_grounded: bool
    ) -> None:
        error = await self.relayed(RECORDED[:3], grounding, is_grounded)
        assert error == (
            "ERROR UpstreamBroken: the model server's answer ended before it was complete"
        )

    @pytest.mark.parametrize("rest", [RECORDED[3][:20], RECORDED[3][:-1], b"data: [DONE]"])
    async def test_when_it_ends_within_an_event(
        self, grounding: Grounding, is_grounded: bool, rest: bytes
    ) -> None:
        error = await self.relayed([*RECORDED[:3], rest], grounding, is_grounded)
        assert error.startswith("ERROR UpstreamBroken: ")

    async def test_when_vllm_reports_an_error(
        self, grounding: Grounding, is_grounded: bool
    ) -> None:
        reported = b'data: {"error":{"message":"CUDA died","type":"E","param":null,"code":500}}\n\n'

        error = await self.relayed([*RECORDED[:3], reported], grounding, is_grounded)
        assert error == "ERROR UpstreamRejected: the model server answered 500"

    async def test_and_nothing_that_came_with_it_is_lost(
        self, grounding: Grounding, is_grounded: bool
    ) -> None:
        use = grounding if is_grounded else None
        reported = b'data: {"error":{"message":"CUDA died","code":500}}\n\n'

        together = await relay([b"".join([*RECORDED[:3], reported])], use)
        assert together[0] == b"".join((await relay(RECORDED, use))[:3])
        assert together[1:] == [b"ERROR UpstreamRejected: the model server answered 500"]

    @pytest.mark.parametrize("garbage", [b'data: {"error"}', b'data: {"error":5}'])
    async def test_when_vllm_reports_nonsense(
        self, grounding: Grounding, is_grounded: bool, garbage: bytes
    ) -> None:
        error = await self.relayed([*RECORDED[:3], garbage + b"\n\n"], grounding, is_grounded)
        assert error.startswith("ERROR UpstreamBroken: ")


@pytest.mark.parametrize(
    "garbage",
    [
        b'data: {"choices":[{"delta":{"content":"\xff"}}]}',
        b"data: <html>",
        b"data: [1]",
        b'data: {"choices":5}',
        b'data: {"choices":[7]}',
    ],
)
async def test_an_event_that_makes_no_sense_ends_a_grounded_stream_with_an_error(
    grounding: Grounding, garbage: bytes
) -> None:
    output = await relay([*RECORDED[:3], garbage + b"\n\n", *RECORDED[3:]], grounding)

    assert output[:-1] == (await relay(RECORDED, grounding))[:3]
    assert output[-1].startswith(b"ERROR UpstreamBroken: ")


def completion(*messages: dict[str, Any]) -> bytes:
    choices = [
        {"index": place, "message": message, "finish_reason": "stop"}
        for place, message in enumerate(messages)
    ]
    return msgspec.json.encode({"id": "x", "choices": choices, "usage": {"total_tokens": 7}})


async def test_a_whole_completion_gets_context_and_annotations_in_each_message(
    grounding: Grounding,
) -> None:
    body = completion({"content": "Grass [1].", "refusal": None}, {"content": "No idea."})
    answer = msgspec.json.decode(ChatShape(grounding).whole(body))
    first, second = (entry["message"] for entry in answer["choices"])

    assert first["annotations"] == annotations("Grass [1].", grounding.hits) != []
    assert second["annotations"] == []
    assert first["context"] == second["context"] == context(grounding.question, grounding.hits, 0)
    for message in (first, second):
        del message["context"], message["annotations"]
    assert answer == msgspec.json.decode(body)


async def test_a_message_of_tool_calls_has_no_text_to_cite_from(grounding: Grounding) -> None:
    message = {"content": None, "tool_calls": [{"id": "1"}]}
    answer = msgspec.json.decode(ChatShape(grounding).whole(completion(message)))

    [entry] = answer["choices"]
    assert entry["message"] == message | {
        "context": context(grounding.question, grounding.hits, 0),
        "annotations": [],
    }


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"5", b"{}", b'{"choices":null}', b'{"choices":[5]}',
     b'{"choices":[{}]}', b'{"choices":[{"message":null}]}', b'{"choices":[{"message":[]}]}',
     b'{"choices":[{"message":{"content":5}}]}'],
)  # fmt: skip
async def test_what_is_no_completion_is_a_broken_answer(body: bytes, grounding: Grounding) -> None:
    with pytest.raises(UpstreamBroken):
        ChatShape(grounding).whole(body)
