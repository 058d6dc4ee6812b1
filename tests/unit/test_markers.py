"""Which of a model's brackets cite, and which are something else."""

import time

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.code_parts import CodeParts
from gateway.markers import Marker, markers, markers_in_json

HITS = 3


def found(text: str) -> list[tuple[str, list[int]]]:
    """Each marker as it is written, with the numbers from 1 to 3 in it."""
    return [(text[each.start : each.end], each.named(HITS)) for each in markers(text)]


@pytest.mark.parametrize(
    ("marker", "numbers"),
    [
        ("[1]", [1]),
        ("[01]", [1]),
        ("[ 2 ]", [2]),
        ("[2,3]", [2, 3]),
        ("[2, 3]", [2, 3]),
        ("[3 ,1]", [3, 1]),
        ("[1;2]", [1, 2]),
        ("[1、2]", [1, 2]),
        ("[1 and 2]", [1, 2]),
        ("[1, 2, and 3]", [1, 2, 3]),
        ("[1 & 3]", [1, 3]),
        ("[1, 1]", [1]),
        ("[1-3]", [1, 2, 3]),
        ("[1\u20133]", [1, 2, 3]),
        ("[1 — 2]", [1, 2]),
        ("[1-2, 3]", [1, 2, 3]),
        ("[3-1]", [3, 1]),
        ("[2-400]", [2, 3]),
        ("[[2]]", [2]),
        ("[[1, 2]]", [1, 2]),
        (r"\[1\]", [1]),
        (r"\[2]", [2]),
        ("[^1]", [1]),
        ("【1】", [1]),
        ("【2, 3】", [2, 3]),
        ("【1†source】", [1]),
        ("【2†L3-L5】", [2]),
        ("【1]", [1]),
        ("[1】", [1]),
        ("[1†source]", [1]),
        ("\uff3b1\uff3d", [1]),
        ("\uff3b\uff12\uff3d", [2]),
        ("[\uff13]", [3]),
        ("[Passage 1]", [1]),
        ("[passage_2]", [2]),
        ("[PASSAGES 1 and 2]", [1, 2]),
        ("[Passage 1, Passage 3]", [1, 3]),
        ("[Passage 1-3]", [1, 2, 3]),
        ('[passage number="2"]', [2]),
        ('[passage number="2" source="a]9.md" title="8"]', [2]),
        ('<passage number="1" source="docs/2.md" title="The 3 llamas">', [1]),
        ("<passage number='3'>", [3]),
        ("[passage number 2]", [2]),
        ("[passage #2]", [2]),
        ("[source 2]", [2]),
        ("[Source: 1]", [1]),
        ("[Sources: 1, 2]", [1, 2]),
        ("[document 3]", [3]),
        ("[doc1]", [1]),
        ("[doc1, doc2]", [1, 2]),
        ("[ref 1]", [1]),
        ("(Passage 1)", [1]),
        ("(source 2)", [2]),
        ("(see sources 2 and 3)", [2, 3]),
    ],
)
@pytest.mark.parametrize("around", ["Llamas eat grass {}.", "{}", "漢字{}。", "- so {} it\n- is"])
def test_whatever_a_model_makes_of_a_marker_is_found(
    marker: str, numbers: list[int], around: str
) -> None:
    assert found(around.format(marker)) == [(marker, numbers)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Both [1][2].", [("[1]", [1]), ("[2]", [2])]),
        ("All [1][2][3]", [("[1]", [1]), ("[2]", [2]), ("[3]", [3])]),
        ("Both[doc1][doc2]", [("[doc1]", [1]), ("[doc2]", [2])]),
        ("Both 【1】【2】", [("【1】", [1]), ("【2】", [2])]),
        ("One ([1]), and (see [2])", [("[1]", [1]), ("[2]", [2])]),
        ("As told (in the guide)[1].", [("[1]", [1])]),
        ('"Grass"[1]', [("[1]", [1])]),
        ("Grass.[1]", [("[1]", [1])]),
        ("| a [1] | [2] |", [("[1]", [1]), ("[2]", [2])]),
        ("**Grass** [1]", [("[1]", [1])]),
        ("`code` [1] `more`", [("[1]", [1])]),
        ("A ` alone [1]", [("[1]", [1])]),
        ("`One\n\nparagraph [1]` ends it", [("[1]", [1])]),
        (r"\`no code [1] `", [("[1]", [1])]),
        ("```\na[1]\n```\nThus [2].", [("[2]", [2])]),
        ("1. One\n\n    Still item one [1].", [("[1]", [1])]),
        ("Wrapped\n    and indented [1].", [("[1]", [1])]),
        ("<think>Is it [1]?</think>It is [2].", [("[2]", [2])]),
        ("it is [1]?</think>It is [2].", [("[2]", [2])]),
        ("[1]: Llamas eat grass.", [("[1]", [1])]),
        ("Sources:\n[1] docs/a.md\n[2] docs/b.md", [("[1]", [1]), ("[2]", [2])]),
    ],
)
def test_what_stands_around_a_marker_leaves_it_one(
    text: str, expected: list[tuple[str, list[int]]]
) -> None:
    assert found(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "No marker.", "[]", "[ ]", "[x]", "[a]", "[1", "1]", "[1\n]", "[2024]", "[1.5]"),
        *("[-1]", "{1}", "<1>"),
        *("[1,]", "[,1]", "[1 2]", "[1: 2]", "[+1]", "[1a]", "[1]]", "[[1], [2]]", "[[1]"),
        *("(1)", "1) One 2) Two", "(1) One\n(2) Two", "1. One", "\uff081\uff09"),
        *("see 1", "Passage 1 says so"),
        *("(step 1)", "(figure 2)", "[Figure 1]", "[Section 2]", "[source]", "[passage]"),
        *("list[1]", "a[1][2]", "x_[1]", "f(x)[1]", "numbers = [1, 2]", "numbers=[1, 2]"),
        *("`[1]`", "``a ` [1]``", "`a\nb [1]`", "```\n[1]\n```", "~~~py\n[1]\n~~~", "```\n[1]"),
        *("> ```\n> [1]\n> ```", "- ```\n  [1]\n  ```", "    [1]", "So:\n\n    x [1]\n    y [2]\n"),
        *("````\n```\n[1]\n````", "```\n``\n[1]\n```"),
        *("[1](https://example.org)", "[[1]](https://example.org)", "[Passage 1](#a)"),
        *("![1](a.png)", "[the guide][1]", "![picture][1]"),
        *("[1]: https://example.org", "a\n  [1]: docs/a.md 'A'"),
        *("[^1]: Llamas, page 3", "[1]:\nhttps://example.org"),
        *("in $[0, 1]$", "$x$ in $a = f [1]$"),
        *(r"\([1, 2]\)", r"\sqrt[3]{x}", "m²", "<sup>1</sup>", "<source 1"),
        *("<think>[1]", " <think>\n[1] and [2]", "[1] or [2]</think>"),
    ],
)  # fmt: skip
def test_what_could_be_something_else_is_no_marker(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    ("marker", "named", "stray"),
    [
        ("[1]", [1], 0),
        ("[9]", [], 1),
        ("[0]", [], 1),
        ("[2, 9]", [2], 1),
        ("[8, 9]", [], 2),
        ("[2-9]", [2, 3], 1),
        ("[7-9]", [], 2),
        ("[0-400]", [1, 2, 3], 2),
        ("[9, 9]", [], 1),
        ("【4:0†source】", [], 1),
        ("[Passage 4]", [], 1),
    ],
)
def test_numbers_that_name_nothing_are_told_apart(
    marker: str, named: list[int], stray: int
) -> None:
    (only,) = markers(f"Llamas eat grass {marker}.")

    assert (only.named(HITS), only.stray(HITS)) == (named, stray)


def test_without_hits_every_number_is_astray() -> None:
    assert [(each.named(0), each.stray(0)) for each in markers("[1] [2, 3]")] == [([], 1), ([], 2)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"answer": "Grass [1].", "numbers": [1, 2]}', ["[1]"]),
        ("[1, 2]", []),
        ("[[1], [2]]", []),
        ('["[1]", "[2, 3]"]', ["[1]", "[2, 3]"]),
        ('{"[1]": "none", "x" : [1]}', []),
        ('"Cut off [1] and', ["[1]"]),
        ('"Cut off [1] \\', ["[1]"]),
        (r'"a \"quoted\" [1]\nb [2]"', ["[1]", "[2]"]),
        (r'"\u30101\u3011"', [r"\u30101\u3011"]),
        (r'"[passage number=\"2\"]"', [r"[passage number=\"2\"]"]),
        (r'"```\na = [1]\n```\nThus [2]"', ["[2]"]),
        (r'"\\", [1]', []),
    ],
)
def test_in_json_only_strings_hold_markers(text: str, expected: list[str]) -> None:
    assert [text[each.start : each.end] for each in markers_in_json(text)] == expected


thorough = settings(max_examples=200)
PIECES = st.lists(
    st.sampled_from(
        [
            *"[](){}<>1239,-=:;^$# \n\\`~\"'†【】\uff3b\uff3d漢",
            *("[1]", "[2, 3]", "passage ", "source", "doc1", "number=", "and "),
            *("word", "```", "    ", "</think>"),
        ]
    ),
    max_size=40,
).map("".join)
TEXTS = st.one_of(st.text(max_size=60), PIECES)


@thorough
@given(TEXTS)
def test_markers_lie_in_the_text_in_order_without_overlap(text: str) -> None:
    end = 0
    for marker in markers(text):
        assert end <= marker.start < marker.end <= len(text)
        assert text[marker.start] in "[【(<\\\uff3b"
        assert text[marker.end - 1] in "]】)>\uff3d"
        end = marker.end


@thorough
@given(TEXTS)
def test_no_marker_begins_in_code(text: str) -> None:
    code = CodeParts(text)

    assert not [marker for marker in markers(text) if marker.start in code]


@thorough
@given(TEXTS, st.integers(0, 60))
def test_every_number_is_named_or_astray(text: str, count: int) -> None:
    for marker in markers(text):
        written = {number for ends in marker.ranges for number in ends}
        named = marker.named(count)
        assert all(1 <= number <= count for number in named)
        assert len(set(named)) == len(named)
        assert marker.stray(count) == len(written - set(named)) or not written


@thorough
@given(TEXTS)
def test_the_same_markers_are_found_in_a_text_and_in_its_json(text: str) -> None:
    encoded = msgspec.json.encode([text]).decode()
    inside = markers_in_json(encoded)

    assert [each.ranges for each in inside] == [each.ranges for each in markers(text)]
    for place, other in zip(inside, markers(text), strict=True):
        piece = msgspec.json.decode(f'"{encoded[place.start : place.end]}"')
        assert piece == text[other.start : other.end]


@thorough
@given(st.lists(TEXTS.filter(lambda text: "think" not in text), min_size=2, max_size=3))
def test_a_sentence_with_a_marker_is_found_after_any_closed_paragraph(texts: list[str]) -> None:
    # What is open, such as a fence, or the item of a list, reaches into what comes after it.
    closed = [text.replace("`", "").replace("~", "").strip() for text in texts]
    text = "\n\n".join([*closed, "Llamas eat grass [1]."])

    assert markers(text)[-1] == Marker(len(text) - 4, len(text) - 1, ((1, 1),))


@pytest.mark.parametrize(
    "text",
    [
        *("[", "[1", "[1]", "[1, ", "(source ", "<passage number=1 a='", "` ", "```a`\n", "```\n"),
        *("    x\n\n", "【1†", "\\", ")[1]", "\n[1]:", '[1]: a "', " ", "\n", "<think>"),
        '"[1] \\n ',
    ],
)  # fmt: skip
def test_no_text_takes_more_time_than_its_length_warrants(text: str) -> None:
    long = text * (50_000 // len(text)) + "[1]"
    started = time.perf_counter()
    markers(long)
    markers_in_json(f'"{long}"')

    assert time.perf_counter() - started < 5
