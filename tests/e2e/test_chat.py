"""Chat with a real model through the gateway, as an OpenAI SDK sees it."""

from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

if TYPE_CHECKING:
    from tests.e2e.conftest import Stack

QUESTION: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "How high is the lighthouse of Port Vennel?"}
]
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def _context(message: Any) -> dict[str, Any]:
    found: dict[str, Any] = message.model_extra["context"]
    return found


def test_a_plain_answer_stands_on_the_documents(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="default", messages=QUESTION, temperature=0, max_tokens=60
    )
    message = completion.choices[0].message
    assert completion.model == MODEL
    # The figure is in no training data: it can only come from the index.
    assert "43" in (message.content or "")
    best = _context(message)["citations"][0]
    assert "43 metres" in best["content"]
    assert best["url"].endswith("/lighthouse.md")
    assert best["title"] == "The lighthouse of Port Vennel"
    assert completion.usage is not None
    assert completion.usage.prompt_tokens > 100


def test_a_stream_brings_the_context_first_and_then_what_the_model_writes(
    client: openai.OpenAI,
) -> None:
    stream = client.chat.completions.create(
        model="default",
        messages=QUESTION,
        temperature=0,
        max_tokens=60,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert "43 metres" in _context(chunks[0].choices[0].delta)["citations"][0]["content"]
    assert not any(
        "context" in (chunk.choices[0].delta.model_extra or {})
        for chunk in chunks[1:]
        if chunk.choices
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    plain = client.chat.completions.create(
        model="default", messages=QUESTION, temperature=0, max_tokens=60
    )
    assert text == plain.choices[0].message.content
    assert chunks[-1].usage is not None
    assert plain.usage is not None
    assert chunks[-1].usage.total_tokens == plain.usage.total_tokens


def test_the_streaming_helper_of_the_sdk_reads_it(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="default", messages=QUESTION, temperature=0, max_tokens=30
    ) as stream:
        completion = stream.get_final_completion()
    assert completion.choices[0].message.content
    assert _context(completion.choices[0].message)["citations"]


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_model_cites_becomes_an_annotation_at_its_place(
    client: openai.OpenAI, stream: bool
) -> None:
    request: dict[str, Any] = {
        "model": "default",
        "messages": QUESTION,
        # A model of this size cites nothing by itself.
        "extra_body": {"structured_outputs": {"regex": r"It is 43 metres high \[1\]\."}},
    }
    if stream:
        with client.chat.completions.stream(**request) as events:
            completion: Any = events.get_final_completion()
    else:
        completion = client.chat.completions.create(**request)
    message = completion.choices[0].message
    assert message.content == "It is 43 metres high [1]."
    [annotation] = message.annotations
    cited = annotation.url_citation
    assert message.content[cited.start_index : cited.end_index] == "[1]"
    assert cited.title == "The lighthouse of Port Vennel"
    assert cited.url == _context(message)["citations"][0]["url"]


def test_each_of_several_choices_has_its_context(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="default", messages=QUESTION, n=2, max_tokens=5
    )
    assert [len(_context(choice.message)["citations"]) for choice in completion.choices] == [2, 2]


def test_every_parameter_reaches_the_model(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        max_tokens=4,
        logprobs=True,
        top_logprobs=3,
        seed=7,
        stop=["\n"],
        extra_body={"min_tokens": 4, "ignore_eos": True, "retrieval": {"max_num_results": 1}},
    )
    choice = completion.choices[0]
    assert len(_context(choice.message)["citations"]) == 1
    assert choice.finish_reason == "length"
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert [len(token.top_logprobs) for token in choice.logprobs.content] == [3, 3, 3, 3]


def test_without_retrieval_the_answer_is_that_of_the_model_alone(
    client: openai.OpenAI, stack: "Stack"
) -> None:
    arguments: dict[str, Any] = {"messages": QUESTION, "temperature": 0, "max_tokens": 20}
    through = client.chat.completions.create(
        model="default", extra_body={"retrieval": False}, **arguments
    )
    with openai.OpenAI(base_url=stack.vllm_url, api_key="unused") as vllm:
        alone = vllm.chat.completions.create(model=MODEL, top_p=0.95, **arguments)
    assert through.choices[0].message == alone.choices[0].message
    assert through.usage is not None
    assert alone.usage is not None
    assert through.usage.total_tokens == alone.usage.total_tokens


def test_a_follow_up_keeps_the_history_that_the_client_sent(client: openai.OpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": "You are brief."},
        {"role": "user", "content": "When does the ferry to Port Vennel leave?"},
        {"role": "assistant", "content": "At 07:15."},
        {"role": "user", "content": [{"type": "text", "text": "How long does the ferry take?"}]},
    ]
    completion = client.chat.completions.create(
        model="default", messages=messages, temperature=0, max_tokens=30
    )
    assert "50 minutes" in _context(completion.choices[0].message)["citations"][0]["content"]


def test_default_is_listed_beside_what_is_served(client: openai.OpenAI) -> None:
    listed = client.models.list().data
    assert [model.id for model in listed] == [MODEL, "default"]
    assert [(model.model_extra or {})["max_model_len"] for model in listed] == [4096, 4096]
    assert client.models.retrieve("default").id == "default"
    assert client.models.retrieve(MODEL).id == MODEL


@pytest.mark.parametrize(
    ("arguments", "expected", "code", "param"),
    [
        ({"model": "gpt-4o"}, openai.NotFoundError, "model_not_found", "model"),
        ({"messages": []}, openai.BadRequestError, None, "messages"),
        ({"temperature": "hot"}, openai.BadRequestError, None, "temperature"),
        ({"extra_body": {"retrieval": {"top": 3}}}, openai.BadRequestError, None, "retrieval"),
        (
            {"messages": [{"role": "user", "content": "word " * 6000}]},
            openai.BadRequestError,
            "context_length_exceeded",
            "messages",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_request_gets_an_openai_error(
    client: openai.OpenAI,
    arguments: dict[str, Any],
    expected: type[openai.APIStatusError],
    code: str | None,
    param: str,
    stream: bool,
) -> None:
    request: dict[str, Any] = {"model": "default", "messages": QUESTION, "stream": stream}
    with pytest.raises(expected) as caught:
        client.chat.completions.create(**{**request, **arguments})
    assert (caught.value.code, caught.value.param) == (code, param)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id
