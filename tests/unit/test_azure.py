"""Azure OpenAI "On Your Data": what `data_sources` of a chat request means."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.chat.odata import MOST_DEPTH, NotOData, parse_odata
from gateway.chat.request import ChatRequest
from gateway.citations import Grounding, context, entry
from gateway.errors import InvalidRequest
from gateway.retrieval.options import RetrievalOptions, Wanted
from gateway.retrieval.selection import Candidate
from indexer.index.errors import FilterInvalid
from indexer.index.metadata_filters import parse_filter
from indexer.index.records import Hit
from tests.unit.conftest import COMPLETION

ASKED = {"role": "user", "content": "What do llamas eat?"}
PARAMETERS = "data_sources[0].parameters"


def asking(
    parameters: Any = None, *messages: Any, kind: str = "milvus", **fields: Any
) -> ChatRequest:
    source = {"type": kind, "parameters": parameters or {}}
    body = {"model": "m", "messages": messages or [ASKED], "data_sources": [source], **fields}
    return ChatRequest(msgspec.json.encode(body))


def sent(request: ChatRequest) -> dict[str, Any]:
    return msgspec.json.decode(request.encode("m", {}), type=dict[str, Any])


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, {}),
        ({"index_name": "manuals"}, {"vector_store_ids": ["manuals"]}),
        ({"top_n_documents": 5}, {"max_num_results": 5}),
        ({"query_type": "simple"}, {"mode": "bm25", "rerank": False}),
        ({"query_type": "semantic"}, {"mode": "bm25"}),
        ({"query_type": "vector"}, {"mode": "dense", "rerank": False}),
        ({"query_type": "vector_simple_hybrid"}, {"mode": "hybrid", "rerank": False}),
        ({"query_type": "vector_semantic_hybrid"}, {"mode": "hybrid"}),
        ({"strictness": 1}, {"relevance_threshold": 0.0}),
        ({"strictness": 3}, {"relevance_threshold": 0.2}),
        ({"strictness": 5}, {"relevance_threshold": 0.4}),
        ({"in_scope": True}, {"in_scope": True}),
        ({"in_scope": False}, {"in_scope": False}),
        ({"max_search_queries": 2}, {"num_queries": 2}),
        ({"max_search_queries": 50}, {"num_queries": 5}),
        ({"include_contexts": ["all_retrieved_documents"]}, {"explain": True}),
        ({"filter": ""}, {}),
        ({"filter": "year ge 2023"}, {"filters": {"type": "gte", "key": "year", "value": 2023}}),
        ({"filter": {"type": "eq"}}, {"filters": {"type": "eq"}}),
    ],
)
def test_a_parameter_is_an_option_of_retrieval(
    parameters: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert asking(parameters).retrieval == RetrievalOptions(enabled=True, **expected)


def test_what_says_where_and_who_in_azure_is_not_looked_at_and_goes_nowhere() -> None:
    request = asking(
        {
            "endpoint": "https://search.test",
            "authentication": {"type": "api_key", "key": "secret"},
            "embedding_dependency": {"type": "deployment_name", "deployment_name": "ada"},
            "fields_mapping": {"content_fields": ["text"]},
            "semantic_configuration": "default",
            "allow_partial_result": True,
        },
        kind="azure_search",
    )

    assert request.retrieval == RetrievalOptions(enabled=True)
    assert sent(request) == {"model": "m", "messages": [ASKED]}


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"top_n_documents": 0}, "top_n_documents"),
        ({"top_n_documents": "5"}, "top_n_documents"),
        ({"strictness": 6}, "strictness"),
        ({"query_type": "fuzzy"}, "query_type"),
        ({"in_scope": "yes"}, "in_scope"),
        ({"index_name": ""}, "index_name"),
        ({"include_contexts": ["everything"]}, "include_contexts[0]"),
        ({"max_search_queries": 0}, "max_search_queries"),
        ({"role_information": 7}, "role_information"),
        ({"filter": ["a"]}, "filter"),
        ({"filter": "year like 2023"}, "filter"),
    ],
)
def test_a_wrong_parameter_is_named(parameters: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        asking(parameters)
    assert caught.value.param == f"{PARAMETERS}.{param}"


@pytest.mark.parametrize(
    ("sources", "param"),
    [
        ([], "data_sources"),
        ([{"type": "milvus"}, {"type": "milvus"}], "data_sources"),
        ({"type": "milvus"}, "data_sources"),
        ([{"type": "sharepoint", "parameters": {}}], "data_sources[0].type"),
        ([{"parameters": {}}], "data_sources[0]"),
        ([{"type": "milvus", "parameters": []}], PARAMETERS),
    ],
)
def test_there_is_one_source_of_a_known_type(sources: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        asking(data_sources=sources)
    assert caught.value.param == param


@pytest.mark.parametrize("retrieval", [True, False, {}])
def test_a_request_says_it_in_one_dialect(retrieval: Any) -> None:
    with pytest.raises(InvalidRequest, match="send one") as caught:
        asking(retrieval=retrieval)
    assert caught.value.param == "data_sources"


def test_without_a_source_the_options_are_the_requests_own() -> None:
    request = asking(data_sources=None, retrieval={"max_num_results": 3})

    assert request.retrieval == RetrievalOptions(max_num_results=3)
    assert request.param("filters") == "retrieval.filters"


@pytest.mark.parametrize("said", [{"type": "is"}, {"type": "eq", "key": "x", "value": []}])
def test_a_wrong_filter_is_named_as_the_request_has_it(said: Any) -> None:
    request = asking({"filter": said})

    with pytest.raises(FilterInvalid) as caught:
        Wanted().with_options(request.retrieval, request.param("filters"))
    assert str(caught.value.param).startswith(f"{PARAMETERS}.filter.")


INSTRUCTION = {"role": "system", "content": "You are a guide."}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([ASKED], [INSTRUCTION, ASKED]),
        (
            [{"role": "system", "content": "Be brief.", "name": "x"}, ASKED],
            [INSTRUCTION | {"content": "You are a guide.\n\nBe brief.", "name": "x"}, ASKED],
        ),
        (
            [{"role": "developer", "content": None}, ASKED],
            [INSTRUCTION | {"role": "developer"}, ASKED],
        ),
        (
            [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, ASKED],
            [
                INSTRUCTION
                | {
                    "content": [
                        {"type": "text", "text": "You are a guide."},
                        {"type": "text", "text": "Be brief."},
                    ]
                },
                ASKED,
            ],
        ),
        ([{"role": "system", "content": 7}, ASKED], [{"role": "system", "content": 7}, ASKED]),
    ],
)
def test_role_information_stands_at_the_head_of_the_system_message(
    messages: list[Any], expected: list[Any]
) -> None:
    request = asking({"role_information": "You are a guide."}, *messages)

    assert sent(request)["messages"] == expected
    request.augment("prompt")
    assert sent(request)["messages"] == [*expected[:-1], {"role": "user", "content": "prompt"}]


@pytest.fixture
def grounding(hits: Sequence[Hit]) -> Grounding:
    told = [
        {"scores": {"hybrid": 0.8, "dense": 0.4, "rerank": 0.9}, "kept": True},
        {"scores": {}, "kept": False},
    ]
    return Grounding(
        "What do llamas eat?",
        hits[:1],
        details={"retrieval": {"candidates": told}, "left_out": {"hits": 1}},
        queries=["What do llamas eat?", "llama food"],
        candidates=[Candidate(hits[0]), Candidate(hits[1], "dropped")],
    )


def shown(request: ChatRequest, grounding: Grounding) -> dict[str, Any]:
    """The context of an answer to `request`."""
    body = COMPLETION
    answer = msgspec.json.decode(request.shape(grounding).whole(body))
    assert answer["choices"][0]["message"]["annotations"]
    found: dict[str, Any] = answer["choices"][0]["message"]["context"]
    return found


@pytest.mark.parametrize(
    ("included", "parts"),
    [
        (None, {"citations", "intent"}),
        (["citations"], {"citations"}),
        (["intent"], {"intent"}),
        (["all_retrieved_documents", "intent"], {"all_retrieved_documents", "intent"}),
    ],
)
def test_the_context_has_the_parts_that_were_asked_for(
    grounding: Grounding, included: list[str] | None, parts: set[str]
) -> None:
    found = shown(asking({"include_contexts": included}), grounding)

    assert found.keys() == parts | {"invalid_citations", "left_out"}
    whole = context(grounding.question, grounding.hits)
    assert all(found[part] == whole[part] for part in parts & whole.keys())


def test_all_that_was_retrieved_is_told_in_azures_shape(
    grounding: Grounding, hits: Sequence[Hit]
) -> None:
    request = asking({"include_contexts": ["all_retrieved_documents"]})
    searched = {"search_queries": list(grounding.queries), "data_source_index": 0}

    assert shown(request, grounding)["all_retrieved_documents"] == [
        entry(hits[0]) | searched | {"original_search_score": 0.8, "rerank_score": 0.9},
        entry(hits[1])
        | searched
        | {"original_search_score": hits[1].score, "filter_reason": "rank"},
    ]


def test_where_nothing_is_relevant_the_score_is_the_reason(grounding: Grounding) -> None:
    grounding = msgspec.structs.replace(grounding, hits=[])
    request = asking({"include_contexts": ["all_retrieved_documents"]})
    body = msgspec.json.decode(request.shape(grounding).reply("Nothing.", "m"))

    [_, dropped] = body["choices"][0]["message"]["context"]["all_retrieved_documents"]
    assert dropped["filter_reason"] == "score"


def compared(kind: str, key: str, value: Any) -> dict[str, Any]:
    return {"type": kind, "key": key, "value": value}


A, B, C = (compared("eq", key, 1) for key in "abc")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("year ge 2023", compared("gte", "year", 2023)),
        ("year le -2.5e1", compared("lte", "year", -25.0)),
        (
            "x gt 1 and y lt 2",
            {"type": "and", "filters": [compared("gt", "x", 1), compared("lt", "y", 2)]},
        ),
        ("product ne 'it''s (a) and b'", compared("ne", "product", "it's (a) and b")),
        ("old eq true", compared("eq", "old", True)),
        ("größe eq 'é'", compared("eq", "größe", "é")),
        (
            "a eq 1 or b eq 1 and c eq 1",
            {"type": "or", "filters": [A, {"type": "and", "filters": [B, C]}]},
        ),
        (
            "(a eq 1 or b eq 1) and c eq 1",
            {"type": "and", "filters": [{"type": "or", "filters": [A, B]}, C]},
        ),
        ("((a eq 1))", A),
        ("search.in(area, 'eu, us')", compared("in", "area", ["eu", "us"])),
        ("search.in(area, 'New York|Rome', '|')", compared("in", "area", ["New York", "Rome"])),
        ("search.in(area, 'a b', '')", compared("in", "area", ["a b"])),
        ("  a\teq\n1 ", A),
    ],
)
def test_a_filter_in_odata_is_read_into_openais_grammar(said: str, expected: Any) -> None:
    assert parse_odata(said) == expected
    parse_filter(expected)


@pytest.mark.parametrize(
    "said",
    [
        "year",
        "year ge",
        "year ge 2023 and",
        "2023 le year",
        "year = 2023",
        "year ge 'open",
        "year eq null",
        "not (a eq 1)",
        "a eq 1 b eq 1",
        "(a eq 1",
        "a eq 1)",
        "meta/year eq 1",
        "a eq 1.2.3",
        "a eq 12b",
        "tags/any(t: t eq 'x')",
        "search.in(area)",
        "search.ismatch('x')",
        "geo.distance(a, b) lt 5",
        "a eq 1; drop",
        "(" * (MOST_DEPTH + 1) + "a eq 1" + ")" * (MOST_DEPTH + 1),
        "(" * 100_000,
        "a eq " + "9" * 5_000,
    ],
)
def test_what_is_no_such_filter_is_refused(said: str) -> None:
    with pytest.raises(NotOData):
        parse_odata(said)
    with pytest.raises(InvalidRequest, match="Send comparisons") as caught:
        asking({"filter": said})
    assert caught.value.param == f"{PARAMETERS}.filter"


@given(st.text(alphabet="ab 1'(),.-eqandorsearch.inéß\n", max_size=40))
def test_whatever_is_said_is_a_filter_or_refused(said: str) -> None:
    try:
        found = parse_odata(said)
    except NotOData:
        return
    parse_filter(found)


@given(st.text(max_size=30))
def test_a_text_in_quotes_stays_what_it_is(value: str) -> None:
    quoted = "'" + value.replace("'", "''") + "'"

    assert parse_odata(f"a eq {quoted}") == compared("eq", "a", value)
