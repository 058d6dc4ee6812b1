"""From the markers in an answer to annotations, and from hits to context."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat.chat_completion_message import Annotation
from openai.types.responses.response_output_text import AnnotationFileCitation

from gateway.citations import annotations, cited, context, file_citation
from indexer.index.records import Hit

thorough = settings(max_examples=200)
ANSWERS = st.lists(
    st.sampled_from(
        ["Grass ", "🦙", "é", "[1]", "[2, 9]", "【3】", "[0-2]", "`[1]`", '"', "\n", "[4]"]
    )
).map("".join)


def claims(answer: str, hits: list[Hit]) -> list[tuple[str, str]]:
    """The marker and the title of each annotation."""
    found = []
    for annotation in annotations(answer, hits):
        place = annotation["url_citation"]
        found.append((answer[place["start_index"] : place["end_index"]], place["title"]))
    return found


def test_an_annotation_has_the_shape_of_openai_and_says_where_in_which_document(
    make_hit: Callable[..., Hit],
) -> None:
    hit = make_hit(anchor="food", start=700, end=717)
    answer = "Grass, it says [1]."
    [annotation] = annotations(answer, [hit])

    assert annotation == {
        "type": "url_citation",
        "url_citation": {
            "start_index": 15,
            "end_index": 18,
            "title": "Llamas",
            "url": "https://example.org/guide/llamas.html#food",
            "number": 1,
            "chunk_id": "c1",
            "document_id": "d1",
            "filename": "llamas.html",
            "heading_path": "Llamas > Food",
            "source_start_index": 700,
            "source_end_index": 717,
        },
    }
    sdk = Annotation.model_validate(annotation)
    assert sdk.url_citation.url == "https://example.org/guide/llamas.html#food"
    assert (sdk.url_citation.model_extra or {})["chunk_id"] == "c1"


def test_the_same_citation_has_the_shape_of_a_file_citation(make_hit: Callable[..., Hit]) -> None:
    [citation] = cited("Grass [1].", [make_hit(anchor="food", start=700, end=717)]).citations
    annotation = file_citation(citation)

    assert annotation == {
        "type": "file_citation",
        "file_id": "d1",
        "filename": "llamas.html",
        "index": 6,
        "start_index": 6,
        "end_index": 9,
        "title": "Llamas",
        "url": "https://example.org/guide/llamas.html#food",
        "number": 1,
        "chunk_id": "c1",
        "heading_path": "Llamas > Food",
        "source_start_index": 700,
        "source_end_index": 717,
    }
    assert AnnotationFileCitation.model_validate(annotation).index == 6


@pytest.mark.parametrize(
    ("source", "anchor", "url"),
    [
        ("https://example.org/a", "food", "https://example.org/a#food"),
        ("http://example.org/a?b=c", "food", "http://example.org/a?b=c#food"),
        ("https://example.org/a", "", "https://example.org/a"),
        ("https://example.org/a", "was-1_(a).b", "https://example.org/a#was-1_(a).b"),
        ("https://example.org/a", 'ä#"%', "https://example.org/a#%C3%A4%23%22%25"),
        ("https://example.org/#/page", "food", "https://example.org/#/page"),
        ("docs/a.md", "food", "docs/a.md"),
        ("s3://bucket/a.md", "food", "s3://bucket/a.md"),
    ],
)
def test_the_url_leads_to_the_heading_where_a_browser_can(
    source: str, anchor: str, url: str, make_hit: Callable[..., Hit]
) -> None:
    [annotation] = annotations("[1]", [make_hit(source=source, anchor=anchor)])

    assert annotation["url_citation"]["url"] == url


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Grass [1] and height [2].", [("[1]", "Llamas"), ("[2]", "Orbits")]),
        ("Both [1][2].", [("[1]", "Llamas"), ("[2]", "Orbits")]),
        ("Both [1, 2].", [("[1, 2]", "Llamas"), ("[1, 2]", "Orbits")]),
        ("Both [1 ,2].", [("[1 ,2]", "Llamas"), ("[1 ,2]", "Orbits")]),
        ("Both [1-2].", [("[1-2]", "Llamas"), ("[1-2]", "Orbits")]),
        ("From [2-400].", [("[2-400]", "Orbits"), ("[2-400]", "Llamas")]),
        ("Both 【1†a】 [doc2].", [("【1†a】", "Llamas"), ("[doc2]", "Orbits")]),
        ("Twice [2] and [2].", [("[2]", "Orbits"), ("[2]", "Orbits")]),
        ("Half known [2, 9].", [("[2, 9]", "Orbits")]),
        ("漢字 🦙 “é” [2]", [("[2]", "Orbits")]),
        ("[2]", [("[2]", "Orbits")]),
    ],
)
def test_every_number_of_a_marker_that_names_a_hit_is_cited(
    answer: str, expected: list[tuple[str, str]], hits: list[Hit]
) -> None:
    assert claims(answer, hits) == expected


@pytest.mark.parametrize(
    "answer",
    [
        *("", "No marker.", "[0]", "[4]", "[-1]", "[1000]", "[]", "[ ]", "[a]", "[1", "1]"),
        *("(1)", "[1.5]", "[5-9]", "array[1]", "[1,]", "[,1]", "`[1]`"),
    ],
)
def test_what_names_no_hit_is_no_citation(answer: str, hits: list[Hit]) -> None:
    assert annotations(answer, hits) == []


def test_without_hits_nothing_is_cited_and_what_was_claimed_is_counted() -> None:
    found = cited("As told [1], [2, 3].", [])

    assert (found.citations, found.invalid) == ([], 3)


@pytest.mark.parametrize(
    ("answer", "invalid"),
    [("Grass [1].", 0), ("Grass [7].", 1), ("[1, 7] [8] [2-9]", 3), ("Grass.", 0), ("a[9]", 0)],
)
def test_numbers_in_markers_that_name_no_hit_are_counted(
    answer: str, invalid: int, hits: list[Hit]
) -> None:
    assert cited(answer, hits).invalid == invalid


def test_in_a_json_answer_only_strings_cite(hits: list[Hit]) -> None:
    answer = '{"answer": "Grass [1].", "values": [2, 9]}'
    found = cited(answer, hits, is_json=True)

    assert [(each.number, answer[each.start : each.end]) for each in found.citations] == [
        (1, "[1]")
    ]
    assert found.invalid == 0
    assert annotations(answer, hits, is_json=True) == annotations(answer[:22], hits)


@thorough
@given(answer=ANSWERS, count=st.integers(0, 3), is_json=st.booleans())
def test_what_is_claimed_is_there_and_nothing_else_is_claimed(
    answer: str, count: int, is_json: bool
) -> None:
    sources = ["https://example.org/a", "b.md", "https://example.org/c"][:count]
    hits = [
        Hit(chunk_id=source, document_id="d", source=source, title=source, heading_path="",
            start=0, end=1, text="x", score=0.5)
        for source in sources
    ]  # fmt: skip
    found = cited(answer, hits, is_json=is_json)

    assert len(annotations(answer, hits, is_json=is_json)) == len(found.citations)
    for citation in found.citations:
        assert citation.hit is hits[citation.number - 1]
        assert answer[citation.start] in "[【"
        assert answer[citation.end - 1] in "]】"
    if "[" not in answer and "【" not in answer:
        assert (found.citations, found.invalid) == ([], 0)


def test_the_context_lists_every_hit_best_first(hits: list[Hit]) -> None:
    found = context("q", hits)["citations"]

    assert [citation["chunk_id"] for citation in found] == ["c1", "c2", "c3"]
    assert found[0] == {
        "content": "Llamas eat grass.",
        "title": "Llamas",
        "url": "https://example.org/guide/llamas.html",
        "filepath": "llamas.html",
        "chunk_id": "c1",
    }


@pytest.mark.parametrize("question", ["plain", 'with "quotes" and \\', "漢字 🦙", "line\nbreak"])
def test_the_intent_is_a_json_list_with_the_question(question: str) -> None:
    assert msgspec.json.decode(context(question, [])["intent"]) == [question]


@pytest.mark.parametrize(
    ("source", "file_path"),
    [
        ("notes.md", "notes.md"),
        ("docs/what? #1.md", "what? #1.md"),
        ("https://example.org/guide/", "guide"),
        ("https://example.org/guide/a.html?lang=en/us#top", "a.html"),
        ("https://example.org", "example.org"),
        ("https://[broken", "[broken"),
    ],
)
def test_the_file_path_is_the_last_part_of_the_source(
    source: str, file_path: str, make_hit: Callable[..., Hit]
) -> None:
    [citation] = context("q", [make_hit(source=source)])["citations"]

    assert citation["filepath"] == file_path


def test_the_context_tells_how_many_citations_are_invalid_where_that_is_known() -> None:
    assert "invalid_citations" not in context("q", [])
    assert context("q", [], 0) == {**context("q", []), "invalid_citations": 0}
