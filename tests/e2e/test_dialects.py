"""Completions, Anthropic's messages and Azure's dialect with a real model."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
import openai
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

if TYPE_CHECKING:
    from tests.e2e.conftest import Stack

ASKED = "How high is the lighthouse of Port Vennel?"
MESSAGES: Any = [{"role": "user", "content": ASKED}]
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
# A model of this size cites nothing by itself.
CITING = {"structured_outputs": {"regex": r" It is 43 metres high \[1\]\."}, "retrieval": True}
CITING_MESSAGE = {
    "retrieval": True,
    "output_config": {
        "format": {
            "type": "json_schema",
            "schema": {
                "type": "object",
                "properties": {"answer": {"const": "It is 43 metres high [1]."}},
                "required": ["answer"],
                "additionalProperties": False,
            },
        }
    },
}


@pytest.fixture
def azure(stack: "Stack") -> Iterator[openai.AzureOpenAI]:
    with openai.AzureOpenAI(
        azure_endpoint=stack.gateway_url.removesuffix("/v1"),
        api_key="unused",
        api_version="2024-10-21",
        max_retries=0,
    ) as client:
        yield client


@pytest.fixture
def http(stack: "Stack") -> Iterator[httpx2.Client]:
    headers = {"anthropic-version": "2023-06-01", "x-api-key": "unused"}
    with httpx2.Client(base_url=stack.gateway_url, headers=headers, timeout=60) as client:
        yield client


def message(**fields: Any) -> dict[str, Any]:
    return {"model": "default", "max_tokens": 40, "messages": MESSAGES, **fields}


def source(**parameters: Any) -> dict[str, Any]:
    """As a client of Azure writes it, with all that means nothing here."""
    in_azure = {
        "endpoint": "https://search.test",
        "authentication": {"type": "api_key", "key": "unused"},
        "embedding_dependency": {"type": "deployment_name", "deployment_name": "ada"},
    }
    return {"data_sources": [{"type": "azure_search", "parameters": in_azure | parameters}]}


def events(content: str) -> list[dict[str, Any]]:
    """What the events of Anthropic's say; each has its own name."""
    found = []
    for event in content.strip().split("\n\n"):
        name, written = event.split("\n")
        found.append(msgspec.json.decode(written.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def read(answer: dict[str, Any]) -> int:
    """How many tokens the model read; some of them it had in its cache."""
    return sum(count for name, count in answer["usage"].items() if name.endswith("input_tokens"))


def test_a_completion_is_that_of_the_model_alone(client: openai.OpenAI, stack: "Stack") -> None:
    arguments: dict[str, Any] = {"prompt": [ASKED], "max_tokens": 8, "temperature": 0}
    through = client.completions.create(model="default", **arguments)
    with openai.OpenAI(base_url=stack.vllm_url, api_key="unused") as vllm:
        alone = vllm.completions.create(model=MODEL, **arguments)

    assert through.choices == alone.choices
    Completion.model_validate(through.model_dump(), strict=True)


def test_a_completion_stands_on_documents_where_that_is_asked_for(client: openai.OpenAI) -> None:
    completion = client.completions.create(
        model="default", prompt=ASKED, max_tokens=5, n=2, extra_body={"retrieval": True}
    )

    assert completion.usage is not None
    assert completion.usage.prompt_tokens > 200
    for choice in completion.choices:
        context = (choice.model_extra or {})["context"]
        assert "43 metres" in context["citations"][0]["content"]


@pytest.mark.parametrize("echo", [False, True])
def test_a_completion_is_annotated_in_its_own_places_streamed_and_whole(
    client: openai.OpenAI, echo: bool
) -> None:
    request: dict[str, Any] = {
        "model": "default",
        "prompt": ASKED,
        "max_tokens": 40,
        "echo": echo,
        "logprobs": 1,
        "extra_body": CITING,
    }
    whole = client.completions.create(**request).choices[0]
    chunks = [chunk.choices[0] for chunk in client.completions.create(stream=True, **request)]
    text = "".join(chunk.text for chunk in chunks)

    assert text == whole.text
    assert "context" in (chunks[0].model_extra or {})
    for extra in (whole.model_extra or {}, chunks[-1].model_extra or {}):
        [annotation] = extra["annotations"]
        cited = annotation["url_citation"]
        assert text[cited["start_index"] : cited["end_index"]] == "[1]"
        assert text[: cited["end_index"]].endswith("It is 43 metres high [1]")


def test_token_ids_cannot_be_searched_for(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="default:retrieval", prompt=[1, 2], max_tokens=1)
    assert caught.value.param == "prompt"


def test_a_message_has_context_and_citations(http: httpx2.Client) -> None:
    answer = http.post("/messages", json=message(**CITING_MESSAGE)).json()

    assert (answer["type"], answer["role"], answer["stop_reason"]) == (
        *("message", "assistant", "end_turn"),
    )
    [block] = answer["content"]
    [citation] = block["citations"]
    assert block["text"][citation["start_index"] : citation["end_index"]] == "[1]"
    assert "43 metres" in citation["cited_text"]
    best = answer["context"]["citations"][citation["search_result_index"]]
    assert (best["content"], best["title"]) == (citation["cited_text"], citation["title"])


def test_a_stream_of_a_message_tells_its_citations_before_the_text_ends(
    http: httpx2.Client,
) -> None:
    response = http.post("/messages", json=message(stream=True, **CITING_MESSAGE))
    told = events(response.text)

    assert [
        event["type"] for event in told if event.get("delta", {}).get("type") != "text_delta"
    ] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert "43 metres" in told[0]["message"]["context"]["citations"][0]["content"]
    citation = told[-4]["delta"]["citation"]
    text = "".join(event["delta"].get("text", "") for event in told[2:-3])
    assert text[citation["start_index"] : citation["end_index"]] == "[1]"


def test_without_retrieval_a_message_is_that_of_the_model_alone(
    http: httpx2.Client, stack: "Stack"
) -> None:
    body = message(temperature=0, system="Be brief.", max_tokens=8)
    through = http.post("/messages", json=body).json()
    alone = httpx2.post(f"{stack.vllm_url}/messages", json=body | {"model": MODEL}, timeout=60)

    assert through["content"] == alone.json()["content"]
    assert through.keys() == alone.json().keys()


def test_the_documents_count_among_a_messages_tokens(http: httpx2.Client) -> None:
    body = {"model": "default", "messages": MESSAGES}
    alone, grounded = (
        http.post("/messages/count_tokens", json=body | {"retrieval": said}).json()["input_tokens"]
        for said in (False, True)
    )
    answer = http.post("/messages", json=message(retrieval=True, max_tokens=1)).json()

    assert alone < grounded == read(answer)


@pytest.mark.parametrize(
    ("fields", "status", "kind"),
    [
        ({"max_tokens": None}, 400, "invalid_request_error"),
        ({"model": "claude-none"}, 404, "not_found_error"),
        (
            {"messages": [{"role": "user", "content": [{"type": "x"}]}]},
            400,
            "invalid_request_error",
        ),
        ({"messages": [{"role": "user", "content": "word " * 6000}]}, 400, "invalid_request_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("retrieval", [False, True])
def test_a_wrong_message_gets_anthropics_error(
    http: httpx2.Client,
    fields: dict[str, Any],
    status: int,
    kind: str,
    stream: bool,
    retrieval: bool,
) -> None:
    response = http.post("/messages", json=message(stream=stream, retrieval=retrieval) | fields)

    assert (response.status_code, response.json()["type"]) == (status, "error")
    assert response.json()["error"]["type"] == kind
    assert response.json()["request_id"] == response.headers["request-id"]


def test_a_conversation_with_tools_is_counted_and_answered(http: httpx2.Client) -> None:
    call = {"type": "tool_use", "id": "t1", "name": "look", "input": {"place": "Port Vennel"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "A lighthouse."}
    body = message(
        messages=[
            *MESSAGES,
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result]},
        ],
        tools=[{"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}],
        tool_choice={"type": "none"},
        retrieval={"explain": True},
    )
    answer = http.post("/messages", json=body)

    assert answer.status_code == 200, answer.text
    explained = answer.json()["context"]["retrieval"]
    assert explained["queries"] == [ASKED]
    # The chat that is counted is the one that vLLM makes of it.
    assert explained["tokens"] == read(answer.json())


@pytest.mark.parametrize("model", [MODEL, "default"])
def test_azures_client_gets_context_from_its_data_source(
    azure: openai.AzureOpenAI, model: str
) -> None:
    completion = azure.chat.completions.create(
        model=model,
        messages=MESSAGES,
        temperature=0,
        max_tokens=40,
        extra_body=source(
            index_name="end_to_end",
            query_type="vector_semantic_hybrid",
            top_n_documents=1,
            strictness=3,
            in_scope=True,
            role_information="You are a guide.",
            include_contexts=["citations", "all_retrieved_documents"],
        ),
    )

    ChatCompletion.model_validate(completion.model_dump(), strict=True)
    message = completion.choices[0].message
    assert "43" in (message.content or "")
    context = (message.model_extra or {})["context"]
    assert context.keys() == {"citations", "all_retrieved_documents", "invalid_citations"}
    assert "43 metres" in context["citations"][0]["content"]
    kept = [each.get("filter_reason") for each in context["all_retrieved_documents"]]
    assert kept == [None, "rank"]


def test_azures_stream_has_the_context_in_its_first_event(azure: openai.AzureOpenAI) -> None:
    chunks = list(
        azure.chat.completions.create(
            model="default",
            messages=MESSAGES,
            max_tokens=5,
            stream=True,
            extra_body=source(top_n_documents=1),
        )
    )

    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk.model_dump(), strict=True)
    context = (chunks[0].choices[0].delta.model_extra or {})["context"]
    assert context.keys() == {"citations", "intent"}
    assert len(context["citations"]) == 1


def test_what_is_out_of_scope_is_refused(azure: openai.AzureOpenAI) -> None:
    completion = azure.chat.completions.create(
        model="default",
        messages=[{"role": "user", "content": "Who won the chess match?"}],
        extra_body=source(strictness=5, in_scope=True),
    )

    content = completion.choices[0].message.content
    assert content == "The documents hold nothing that answers this question."


@pytest.mark.parametrize(
    ("parameters", "expected", "param"),
    [
        ({"top_n_documents": 0}, openai.BadRequestError, "top_n_documents"),
        ({"filter": "year like 2020"}, openai.BadRequestError, "filter"),
        ({"filter": "size eq 1"}, openai.BadRequestError, "filter.key"),
        ({"index_name": "nowhere"}, openai.NotFoundError, "index_name[0]"),
    ],
)
def test_a_wrong_data_source_is_named(
    azure: openai.AzureOpenAI,
    parameters: dict[str, Any],
    expected: type[openai.APIStatusError],
    param: str,
) -> None:
    with pytest.raises(expected) as caught:
        azure.chat.completions.create(
            model="default", messages=MESSAGES, extra_body=source(**parameters)
        )
    assert caught.value.param == f"data_sources[0].parameters.{param}"


def test_azures_client_completes_embeds_and_lists(azure: openai.AzureOpenAI) -> None:
    completion = azure.completions.create(model=MODEL, prompt="Hello", max_tokens=2)
    embedding = azure.embeddings.create(model="model", input="Hello")

    assert completion.choices[0].finish_reason == "length"
    assert len(embedding.data[0].embedding) == 384
