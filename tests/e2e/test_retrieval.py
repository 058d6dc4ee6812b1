"""Retrieval that a client asks for, on the whole stack: filters, refusals, reasons, citations."""

from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

if TYPE_CHECKING:
    from tests.e2e.conftest import Stack

QUESTION: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "How high is the lighthouse of Port Vennel?"}
]


def _ask(client: openai.OpenAI, messages: Any = QUESTION, **retrieval: Any) -> Any:
    completion = client.chat.completions.create(
        model="default", messages=messages, max_tokens=8, extra_body={"retrieval": retrieval}
    )
    return completion.choices[0].message


def _generated(stack: "Stack") -> float:
    """How many requests vLLM has answered."""
    with urlopen(stack.vllm_url.removesuffix("/v1") + "/metrics") as response:
        lines = response.read().decode().splitlines()
    found = [line for line in lines if line.startswith("vllm:request_success_total")]
    return sum(float(line.rpartition(" ")[2]) for line in found)


def test_a_dry_run_tells_why_and_asks_no_model(client: openai.OpenAI, stack: "Stack") -> None:
    before = _generated(stack)
    told = _ask(client, dry_run=True, max_num_results=1).model_extra["context"]["retrieval"]

    assert _generated(stack) == before
    best, other = told["candidates"]
    assert best["kept"]
    assert best["title"] == "The lighthouse of Port Vennel"
    assert set(best["scores"]) == {"dense", "bm25", "hybrid"}
    assert all(0 < score <= 1 for score in best["scores"].values())
    assert not other["kept"]
    assert "better ones" in other["reason"]
    assert "43 metres" in told["prompt"]
    assert told["prompt"].endswith(QUESTION[0]["content"])
    assert set(told["milliseconds"]) >= {"rewrite", "embed", "search", "fit"}


@pytest.mark.parametrize("mode", ["dense", "bm25", "hybrid"])
def test_each_mode_finds_the_passage(client: openai.OpenAI, mode: str) -> None:
    citations = _ask(client, mode=mode).model_extra["context"]["citations"]

    assert citations[0]["title"] == "The lighthouse of Port Vennel"


def test_a_refusal_costs_no_answer_of_the_model(client: openai.OpenAI, stack: "Stack") -> None:
    before = _generated(stack)
    message = _ask(client, score_threshold=1.0, mode="dense", in_scope=True)

    assert message.content == "The documents hold nothing that answers this question."
    assert message.model_extra["context"]["citations"] == []
    assert _generated(stack) == before


def test_a_follow_up_is_understood_or_searched_as_it_was_asked(
    client: openai.OpenAI, stack: "Stack"
) -> None:
    before = _generated(stack)
    turns = [
        {"role": "user", "content": "Where is the lighthouse?"},
        {"role": "assistant", "content": "In Port Vennel."},
        {"role": "user", "content": "and how high is it?"},
    ]
    told = _ask(client, turns, dry_run=True).model_extra["context"]["retrieval"]

    assert _generated(stack) == before + 1  # the model was asked to put it anew
    assert told["queries"]
    assert told["fallback"] or told["queries"] != ["and how high is it?"]
    assert told["prompt"].endswith("and how high is it?")


def test_a_filter_on_what_is_not_declared_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        _ask(client, filters={"type": "eq", "key": "year", "value": 2024})

    assert refused.value.param == "retrieval.filters.key"


def test_each_choice_has_its_own_annotations_and_markers_without_a_hit_are_counted(
    client: openai.OpenAI,
) -> None:
    completion = client.chat.completions.create(
        model="default",
        messages=QUESTION,
        n=2,
        logprobs=True,
        extra_body={"structured_outputs": {"regex": r"43 metres 【1†source】, says \[2, 7\]\."}},
    )

    for choice in completion.choices:
        message: Any = choice.message
        assert message.content == "43 metres 【1†source】, says [2, 7]."
        cited = [annotation.url_citation for annotation in message.annotations]
        places = [message.content[each.start_index : each.end_index] for each in cited]
        assert places == ["【1†source】", "[2, 7]"]
        assert message.model_extra["context"]["invalid_citations"] == 1
        first = cited[0].model_extra
        citation = message.model_extra["context"]["citations"][0]
        assert first["chunk_id"] == citation["chunk_id"]
        length = first["source_end_index"] - first["source_start_index"]
        assert length == len(citation["content"])
        assert choice.logprobs is not None
