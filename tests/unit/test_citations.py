"""From the markers in an answer to annotations, and from hits to context."""

from collections.abc import Callable

import msgspec
import pytest

from gateway.citations import annotations, context
from indexer.index.records import Hit


def cited(answer: str, hits: list[Hit]) -> list[tuple[str, str]]:
    """The marker and the title of each annotation."""
    found = []
    for annotation in annotations(answer, hits):
        place = annotation["url_citation"]
        found.append((answer[place["start_index"] : place["end_index"]], place["title"]))
    return found


def test_an_annotation_has_the_shape_of_openai(hits: list[Hit]) -> None:
    assert annotations("GEO is high [2].", hits) == [
        {
            "type": "url_citation",
            "url_citation": {
                "start_index": 12,
                "end_index": 15,
                "title": "Orbits",
                "url": "docs/orbit.md",
            },
        }
    ]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Grass [1] and height [2].", [("[1]", "Llamas"), ("[2]", "Orbits")]),
        ("Both [1][2].", [("[1]", "Llamas"), ("[2]", "Orbits")]),
        ("Both [1, 2].", [("[1, 2]", "Llamas"), ("[1, 2]", "Orbits")]),
        ("Both [1 ,2].", [("[1 ,2]", "Llamas"), ("[1 ,2]", "Orbits")]),
        ("Twice [2] and [2].", [("[2]", "Orbits"), ("[2]", "Orbits")]),
        ("Half known [2, 9].", [("[2, 9]", "Orbits")]),
        ("漢字 🦙 “é” [2]", [("[2]", "Orbits")]),
        ("[2]", [("[2]", "Orbits")]),
    ],
)
def test_every_number_of_a_marker_that_names_a_hit_is_cited(
    answer: str, expected: list[tuple[str, str]], hits: list[Hit]
) -> None:
    assert cited(answer, hits) == expected


@pytest.mark.parametrize(
    "answer",
    [
        *("", "No marker.", "[0]", "[4]", "[-1]", "[1000]", "[]", "[ ]", "[a]", "[1", "1]"),
        *("(1)", "[1.5]", "[1-2]", "array[i]", "[1,]", "[,1]", "[1;2]"),
    ],
)
def test_what_names_no_hit_is_no_citation(answer: str, hits: list[Hit]) -> None:
    assert annotations(answer, hits) == []


def test_without_hits_nothing_is_cited() -> None:
    assert annotations("As told [1].", []) == []


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


def test_a_source_without_folders_is_its_own_file_path(make_hit: Callable[..., Hit]) -> None:
    [citation] = context("q", [make_hit(source="notes.md")])["citations"]

    assert citation["filepath"] == "notes.md"
