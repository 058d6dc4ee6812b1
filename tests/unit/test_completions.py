"""Completion requests and their answers."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest
from openai.types import Completion

from gateway.citations import Grounding, annotations, context
from gateway.completions.answer import CompletionShape
from gateway.completions.request import MAX_TOKENS, CompletionRequest
from gateway.conversation import Asked
from gateway.errors import InvalidRequest, UpstreamBroken
from indexer.index.records import Hit

pytestmark = pytest.mark.anyio

ASKED = "What do llamas eat?"
PROMPT = f"[1] Llamas eat grass. {ASKED}"
HEAD = '"id":"cmpl-1","object":"text_completion","created":1,"model":"m"'


def asking(asked: Asked = Asked(), **fields: Any) -> CompletionRequest:  # noqa: B008  # immutable
    body = {"model": "default", "prompt": ASKED, **fields}
    return CompletionRequest(msgspec.json.encode(body), asked)


def encoded(request: CompletionRequest) -> dict[str, Any]:
    body = request.encode("served", {"temperature": 0.2, "top_p": 0.95})
    return msgspec.json.decode(body, type=dict[str, Any])


def choice(text: str, finish: str = "null", index: int = 0) -> str:
    written = msgspec.json.encode(text).decode()
    return f'{{"index":{index},"text":{written},"logprobs":null,"finish_reason":{finish}}}'


def completion(*choices: str) -> bytes:
    return f'{{{HEAD},"choices":[{",".join(choices)}]}}'.encode()


@pytest.fixture
def grounding(hits: Sequence[Hit]) -> Grounding:
    return Grounding(ASKED, hits)


async def streamed(shape: CompletionShape, *chunks: bytes) -> list[dict[str, Any]]:
    """The choices of the events that a client gets, in their order."""

    async def pieces() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield b"data: " + chunk + b"\n\n"
        yield b"data: [DONE]\n\n"

    output = b"".join([piece async for piece in shape.events(pieces())])
    *events, done = output.strip().split(b"\n\n")
    assert done == b"data: [DONE]"
    return [each for event in events for each in msgspec.json.decode(event[5:])["choices"]]


@pytest.mark.parametrize("prompt", [ASKED, [ASKED], f"  {ASKED}\n"])
def test_the_prompt_is_the_question(prompt: Any) -> None:
    assert asking(prompt=prompt).question == ASKED


@pytest.mark.parametrize("prompt", ["", " ", [], ["a", "b"], [1, 2], [[1], [2]], [[1]], 7])
def test_a_prompt_that_cannot_be_searched_for_is_refused_where_it_would_be(prompt: Any) -> None:
    request = asking(prompt=prompt)

    with pytest.raises(InvalidRequest, match="one string") as caught:
        assert request.question
    assert caught.value.param == "prompt"
    assert encoded(request)["prompt"] == prompt


@pytest.mark.parametrize("fields", [{}, {"prompt": None}])
def test_a_request_without_a_prompt_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="Missing") as caught:
        CompletionRequest(msgspec.json.encode({"model": "m", **fields}))
    assert caught.value.param == "prompt"


def test_embeddings_of_a_prompt_are_a_prompt() -> None:
    assert encoded(asking(prompt=None, prompt_embeds="AAAA"))["prompt_embeds"] == "AAAA"


@pytest.mark.parametrize(
    ("retrieval", "header", "expected"),
    [
        (None, None, None),
        (True, None, True),
        (False, "true", False),
        (None, "true", True),
        ({}, None, True),
        ({"max_num_results": 3}, None, True),
        ({"enabled": False}, None, False),
    ],
)
def test_who_says_how_asks_for_retrieval(
    retrieval: Any, header: str | None, expected: bool | None
) -> None:
    assert asking(Asked(retrieval=header), retrieval=retrieval).retrieval.enabled is expected


def test_without_documents_all_is_relayed_as_it_came() -> None:
    raw = b'{"model":"m","prompt":"a","suffix":"b","n":2,"best_of":3,"logprobs":1,"top_p":1.0}'
    request = CompletionRequest(raw)
    request.augment(None)

    assert request.encode("m", {"temperature": 0.2}) == raw


def test_with_documents_the_prompt_is_exchanged_and_defaults_fill_in_what_is_missing() -> None:
    request = asking(prompt=[ASKED], top_p=0.5, retrieval=True)
    request.augment(PROMPT)

    assert encoded(request) == {
        "model": "served",
        "prompt": PROMPT,
        "temperature": 0.2,
        "top_p": 0.5,
    }


def test_the_model_of_the_path_counts_before_the_bodys() -> None:
    assert asking(Asked(model="of-the-path")).model == "of-the-path"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, MAX_TOKENS),
        ({"max_tokens": 40}, 40),
        ({"max_tokens": 0}, 1),
        ({"min_tokens": 30}, 30),
        ({"max_tokens": "many"}, MAX_TOKENS),
    ],
)
def test_an_answer_gets_as_long_as_vllm_would_make_it(
    fields: dict[str, Any], expected: int
) -> None:
    assert asking(**fields).answer_tokens(256) == expected


@pytest.mark.parametrize("prompt", [ASKED, [ASKED]])
def test_what_is_counted_is_the_prompt_and_what_follows_it(prompt: Any) -> None:
    request = asking(prompt=prompt, suffix="And?", add_special_tokens=False)
    counted = msgspec.json.decode(request.tokenization("m", request.messages()))
    with_documents = msgspec.json.decode(request.tokenization("m", request.messages(PROMPT)))

    assert counted == {"model": "m", "prompt": f"{ASKED}And?", "add_special_tokens": False}
    assert with_documents["prompt"] == f"{PROMPT}And?"


def test_without_a_grounding_an_answer_is_relayed_as_it_is() -> None:
    body = completion(choice("Grass [1].", '"stop"')).replace(b":", b" :  ")
    assert asking().shape(None).whole(body) == body


def test_context_and_annotations_stand_beside_each_text(
    grounding: Grounding, hits: Sequence[Hit]
) -> None:
    body = completion(choice("Grass [1].", '"stop"'), choice("Hay [9].", '"length"', 1))
    answer = msgspec.json.decode(asking().shape(grounding).whole(body))

    assert [each["context"] for each in answer["choices"]] == [
        context(ASKED, hits, 0),
        context(ASKED, hits, 1),
    ]
    assert answer["choices"][0]["annotations"] == annotations("Grass [1].", hits) != []
    assert answer["choices"][1]["annotations"] == []
    assert Completion.model_validate(answer, strict=True).choices[1].text == "Hay [9]."


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"choices":[{"text":1}]}', b"[]"])
def test_an_answer_that_is_no_completion_is_broken(grounding: Grounding, body: bytes) -> None:
    shape = asking().shape(grounding)

    with pytest.raises(UpstreamBroken):
        shape.whole(body)


async def test_of_a_stream_the_first_event_has_the_context_and_the_last_the_annotations(
    grounding: Grounding, hits: Sequence[Hit]
) -> None:
    found = await streamed(
        asking().shape(grounding),
        completion(choice("Grass [")),
        completion(choice("Hay.", index=1)),
        completion(choice("1], [8]")),
        completion(choice(".", '"stop"'), choice("", '"length"', 1)),
        completion(),
    )

    first, other, middle, last, other_last = found
    assert first["context"] == other["context"] == context(ASKED, hits)
    assert middle.keys() == {"index", "text", "logprobs", "finish_reason"}
    assert last["annotations"] == annotations("Grass [1], [8].", hits) != []
    assert last["context"] == {"invalid_citations": 1}
    assert other_last.keys() == middle.keys()


@pytest.mark.parametrize("pieces", [[f"{PROMPT} Grass [2]."], [f"{PROMPT} Gr", "ass [2", "]."]])
async def test_places_count_the_prompt_that_is_echoed_and_its_own_markers_are_no_citations(
    grounding: Grounding, pieces: list[str]
) -> None:
    request = asking(echo=True)
    request.augment(PROMPT)
    shape, text = request.shape(grounding), "".join(pieces)
    whole = msgspec.json.decode(shape.whole(completion(choice(text, '"stop"'))))["choices"][0]
    ends = ["null"] * (len(pieces) - 1) + ['"stop"']
    chunks = [completion(choice(piece, end)) for piece, end in zip(pieces, ends, strict=True)]
    last = (await streamed(shape, *chunks))[-1]

    for found in (whole, last):
        [annotation] = found["annotations"]
        cited = annotation["url_citation"]
        assert (text[cited["start_index"] : cited["end_index"]], cited["number"]) == ("[2]", 2)


async def test_where_it_cannot_be_told_where_the_answer_begins_nothing_is_annotated(
    grounding: Grounding, hits: Sequence[Hit]
) -> None:
    request = asking(echo=True, truncate_prompt_tokens=3)
    request.augment(PROMPT)
    cut = completion(choice(f"{ASKED} Grass [2].", '"stop"'))
    whole = msgspec.json.decode(request.shape(grounding).whole(cut))["choices"][0]
    [streamed_choice] = await streamed(request.shape(grounding), cut)

    assert whole["context"] == streamed_choice["context"] == context(ASKED, hits)
    assert "annotations" not in whole
    assert "annotations" not in streamed_choice


def test_token_ids_are_echoed_instead_of_the_prompts_text(grounding: Grounding) -> None:
    request = asking(echo=True, return_token_ids=True)
    request.augment(PROMPT)
    body = request.shape(grounding).whole(completion(choice("Grass [2].", '"stop"')))

    [annotation] = msgspec.json.decode(body)["choices"][0]["annotations"]
    assert annotation["url_citation"]["start_index"] == 6


@pytest.mark.parametrize("wants_usage", [True, False])
async def test_an_answer_that_no_model_writes_is_a_completion(
    grounding: Grounding, wants_usage: bool, hits: Sequence[Hit]
) -> None:
    shape = asking(stream_options={"include_usage": wants_usage}).shape(grounding)
    whole = msgspec.json.decode(shape.reply("Nothing.", "m"))
    output = b"".join([piece async for piece in shape.reply_events("Nothing.", "m")])
    *events, done = [event.removeprefix(b"data: ") for event in output.strip().split(b"\n\n")]

    assert Completion.model_validate(whole, strict=True).choices[0].text == "Nothing."
    assert whole["choices"][0]["context"] == context(ASKED, hits, 0)
    first, last, *usage = [msgspec.json.decode(event) for event in events]
    assert first["choices"][0]["context"] == context(ASKED, hits)
    assert last["choices"][0]["finish_reason"] == "stop"
    assert [event["choices"] for event in usage] == [[]] * wants_usage
    assert done == b"[DONE]"


@pytest.mark.parametrize("kind", ["json_object", "json_schema", "text"])
def test_an_answer_in_json_is_known_as_such(kind: str) -> None:
    assert asking(response_format={"type": kind}).wants_json is (kind != "text")
