"""The scripts that evaluate and calibrate: what they count, without an index."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stack import ROOT, answering, asking, calibrate, chart, evaluate, judging, score_table
from stack.answering import Answered
from stack.asking import Found
from stack.calibrate import Questions
from stack.errors import AskFailed, Unsuitable
from stack.judging import Interval, Question
from stack.marked import Marked, covers, gains_of_chunks, is_within, marked, ranges
from stack.score_table import Measured

QUESTIONS = ROOT / "scripts" / "stack" / "questions"


def chunk(start: int, end: int, source: str = "a.md") -> Found:
    return Found(source, start, end)


def abstract(name: str) -> Found:
    return Found(f"scifact/corpus.jsonl#{name}", 0, 9)


# What a ranking is worth.


def test_ndcg_compares_with_the_best_order_of_all_that_answers() -> None:
    assert judging.ndcg([2, 1], [1, 2]) == 1
    assert judging.ndcg([0, 1], [1]) == pytest.approx(1 / np.log2(3))
    assert judging.ndcg([1], [1, 1]) == pytest.approx(1 / (1 + 1 / np.log2(3)))
    assert judging.ndcg([0] * 10 + [1], [1]) == 0


def test_recall_is_the_share_of_what_answers() -> None:
    assert judging.recall([0, 1, 0, 1], [1, 1, 1], 2) == pytest.approx(1 / 3)
    assert judging.recall([0, 1, 0, 2], [1, 2], 4) == 1


def test_the_reciprocal_rank_is_that_of_the_first_answer() -> None:
    assert judging.reciprocal_rank([0, 0, 1, 1]) == pytest.approx(1 / 3)
    assert judging.reciprocal_rank([0] * 10 + [1]) == 0


def test_a_document_is_where_its_first_chunk_is() -> None:
    assert judging.gains_of_documents(["a", "a", "b", "c", "b"], {"b": 2}) == [0, 2, 0]


def test_chunks_are_judged_by_the_documents_that_they_are_of() -> None:
    task = evaluate.Task([Question("q", {"7": 1, "9": 1})])
    names = ["1", "1", "7", *[f"x{number}" for number in range(20)], "9"]

    scores = task.scores([[abstract(name) for name in names]], is_deep=True)

    assert {name: round(float(values[0]), 4) for name, values in scores.items()} == {
        "nDCG@10": 0.3869,  # 1 / log2(3) of 1 + 1 / log2(3)
        "recall@10": 0.5,
        "MRR@10": 0.5,
        "recall@100": 1,
    }


def test_what_was_not_looked_at_deep_enough_has_no_recall_of_100() -> None:
    task = evaluate.Task([Question("q", {"7": 1})])

    assert "recall@100" not in task.scores([[abstract("7")]], is_deep=False)


def test_an_interval_holds_the_mean_and_narrows_with_more_questions() -> None:
    few, many = (judging.interval(np.tile([0.0, 1.0], count)) for count in (20, 500))

    assert few.mean == many.mean == 0.5
    assert few.low < 0.4 < many.low < 0.5 < many.high < 0.6 < few.high
    assert judging.interval(np.full(30, 0.3)) == pytest.approx((0.3, 0.3, 0.3))


# Answers marked by character range.


def test_every_place_of_the_answer_is_marked() -> None:
    texts = {"a.md": "one two one", "b.md": "two"}

    assert ranges(texts, "one") == [chunk(0, 3), chunk(8, 11)]
    assert ranges(texts, "two") == [chunk(4, 7), chunk(0, 3, "b.md")]
    assert ranges(texts, "three") == []


def test_overlapping_places_are_all_found() -> None:
    assert ranges({"a.md": "aaa"}, "aa") == [chunk(0, 2), chunk(1, 3)]


def test_a_chunk_covers_an_answer_that_it_has_all_of() -> None:
    answers = [chunk(10, 20)]

    assert covers(chunk(10, 20), answers)
    assert covers(chunk(0, 99), answers)
    assert not covers(chunk(11, 99), answers)
    assert not covers(chunk(0, 19), answers)
    assert not covers(chunk(0, 99, "b.md"), answers)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), max_size=12))
def test_of_the_chunks_that_cover_the_first_one_gains(places: list[tuple[int, int]]) -> None:
    found = [chunk(start, start + length) for start, length in places]
    covering = [place for place, each in enumerate(found) if covers(each, [chunk(5, 8)])]

    gains = gains_of_chunks(found, [chunk(5, 8)])

    assert [place for place, gain in enumerate(gains) if gain] == covering[:1]
    assert len(gains) == len(found)


def test_an_answer_is_within_so_many_characters_of_context() -> None:
    found = [chunk(0, 500), chunk(900, 1400), chunk(2000, 2500)]

    assert is_within(found, [chunk(1000, 1010)], 1000)
    assert not is_within(found, [chunk(1000, 1010)], 999)
    assert not is_within(found, [chunk(2100, 2110)], 1000)


def test_chunks_are_judged_by_the_ranges_that_they_cover() -> None:
    task = evaluate.Task([Marked("q", [chunk(1000, 1010)])])

    scores = task.scores([[chunk(0, 1500, "b.md"), chunk(900, 1400), chunk(0, 2000)]], is_deep=True)

    assert {name: round(float(values[0]), 4) for name, values in scores.items()} == {
        "nDCG@10": 0.6309,
        "recall@2": 1,
        "recall@10": 1,
        "MRR@10": 0.5,
        "in 2000 characters": 1,
    }


def test_ranges_are_those_of_the_document_as_it_is_indexed(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "b.jsonl").write_text("{}\n")
    (docs / "a.md").write_text("---\ntitle: A\n---\n# A\n\nThe answer is 42.\n")
    questions = tmp_path / "q.jsonl"
    questions.write_text('{"query": "What is it?", "expect": "is 42"}\n')

    [question] = marked(docs, questions, "default")

    assert question.query == "What is it?"
    # The front matter is no part of the text, and what is no document is passed over.
    assert question.answers == [chunk(len("# A\n\nThe answer "), 21, "docs/a.md")]


def test_a_question_without_its_answer_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A\n\nText.\n")
    questions = tmp_path / "q.jsonl"
    questions.write_text('{"query": "What is it?", "expect": "is 43"}\n')

    with pytest.raises(Unsuitable, match="is 43"):
        marked(tmp_path, questions, "default")


# Answers of the gateway.


def answer(text: str, *chunks: str, numbers: tuple[int, ...] = (1,)) -> Answered:
    """Each "[n]" of `text` is a marker."""
    markers = []
    place = 0
    for number in numbers:
        marker = f"[{number}]"
        place = text.index(marker, place)
        markers.append((place, place + len(marker), number))
        place += len(marker)
    return Answered(text, markers, list(chunks))


def test_exact_match_leaves_case_articles_and_punctuation_aside() -> None:
    assert answering.exact_match("The  Milvus, Lite!", ["milvus lite"])
    assert answering.exact_match("no", ["yes", "No."])
    assert not answering.exact_match("milvus", ["milvus lite"])


def test_f1_is_that_of_the_best_answer() -> None:
    assert answering.f1("a red fox ran", ["the red fox"]) == pytest.approx(2 * 2 / (3 + 2))
    assert answering.f1("red", ["blue", "red"]) == 1
    assert answering.f1("red red", ["red"]) == pytest.approx(2 / 3)
    assert answering.f1("", ["red"]) == 0


def test_markers_are_no_part_of_what_an_answer_says() -> None:
    scores = answering.scores([answer("SUPPORT [1].", "…")], [["SUPPORT"]])

    assert scores["exact match"].tolist() == [1]
    assert scores["F1"].tolist() == [1]


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("Cats purr. Dogs bark ", "Dogs bark"),
        ("Cats purr. Dogs bark. ", "Dogs bark."),
        ("Cats purr.\n- Dogs bark", "- Dogs bark"),
        ("Version 2.4 barks ", "Version 2.4 barks"),
        ("", ""),
    ],
)
def test_a_marker_stands_for_the_sentence_before_it(before: str, expected: str) -> None:
    assert answering.claim(before) == expected


def test_support_is_the_share_of_the_claims_words_in_the_chunk() -> None:
    text = "Cats purr [1]. Dogs are barking loudly. [2]"

    shares = answering.support(answer(text, "A cat purrs.", "The dog barks.", numbers=(1, 2)))

    assert shares == pytest.approx([1, 2 / 3])  # stemmed, without "are"


def test_two_markers_of_one_sentence_stand_for_the_same_claim() -> None:
    found = answer("Cats purr [1][2].", "Cats purr.", "Cats sleep.", numbers=(1, 2))

    assert answering.support(found) == [1, 0.5]


def test_a_citation_is_valid_where_marker_and_chunk_are() -> None:
    valid = answer("Cats purr [1].", "Cats.")

    assert answering.is_cited(valid)
    assert not answering.is_cited(valid._replace(markers=[]))
    assert not answering.is_cited(valid._replace(chunks=[]))
    assert not answering.is_cited(valid._replace(markers=[(0, 4, 1)]))


def test_a_gateway_that_is_not_there_is_said() -> None:
    with pytest.raises(AskFailed, match="did not answer"):
        answering.ask("http://127.0.0.1:9/v1", ["why?"], "")


# Calibration.


def test_a_question_as_relevant_as_the_threshold_is_answered() -> None:
    questions = Questions(np.array([0.5, 0.7]), np.array([0.5, 0.3]))

    assert questions.answered(0.5) == 1
    assert questions.refused(0.5) == 0.5
    assert questions.accuracy(0.5) == 0.75


def test_the_threshold_in_the_middle_of_the_best_is_recommended() -> None:
    questions = Questions(np.full(9, 0.605), np.full(5, 0.395))

    assert calibrate.recommended(questions) == 0.5
    assert questions.accuracy(0.5) == 1


def test_one_odd_question_hardly_moves_what_is_recommended() -> None:
    usual = Questions(np.linspace(0.4, 0.8, 40), np.linspace(0.1, 0.5, 40))
    odd = Questions(usual.answerable, np.append(usual.unanswerable, 0.6))

    assert calibrate.recommended(usual) == pytest.approx(0.45, abs=0.03)
    assert calibrate.recommended(odd) == pytest.approx(calibrate.recommended(usual), abs=0.02)


def test_kinds_count_the_same_however_many_questions_they_have() -> None:
    questions = Questions(np.array([0.2, *[0.8] * 99]), np.array([0.1, 0.5]))

    assert calibrate.recommended(questions) > 0.5


def test_halves_have_each_question_once_and_are_the_same_again() -> None:
    questions = Questions(np.arange(9) / 10, np.arange(4) / 10)

    one, other = questions.halves()

    assert [len(values) for values in (*one, *other)] == [5, 2, 4, 2]
    for kind in range(2):
        assert sorted([*one[kind], *other[kind]]) == questions[kind].tolist()
    assert np.array_equal(one.answerable, questions.halves()[0].answerable)


def test_the_accuracy_has_an_interval() -> None:
    questions = Questions(np.tile([0.2, 0.8], 50), np.tile([0.1, 0.3], 50))

    mean, low, high = calibrate.accuracy_interval(questions, 0.5)

    assert mean == 0.75
    assert 0.68 < low < 0.75 < high < 0.82


def test_the_projects_questions_are_of_either_kind_and_asked_once() -> None:
    answerable, unanswerable = (
        [line.query for line in judging.lines(QUESTIONS / name, calibrate._Line)]
        for name in ("milvus-docs.jsonl", "milvus-docs-unanswerable.jsonl")
    )

    assert len(set(unanswerable)) == len(unanswerable) == 40
    assert not set(answerable) & set(unanswerable)


# What is searched, and how it is shown.


def test_a_hybrid_search_is_asked_by_rank_and_by_weight() -> None:
    found = evaluate.ways(["dense", "hybrid"], [0.3])

    assert list(found) == ["dense", "hybrid by rank", "hybrid, words 0.3"]
    assert [each.text_weight for each in found.values()] == [None, None, 0.3]
    assert {each.document_share for each in found.values()} == {1.0}


def measured(name: str, mode: str, *values: float, size: int = 512) -> Measured:
    return Measured(name, mode, size, 60, {"nDCG@10": np.array(values)}, 12.34)


def test_the_table_tells_what_is_beyond_the_legs_of_the_same_index() -> None:
    rows = [
        measured("dense", "dense", 0.5, 0.5),
        measured("hybrid", "hybrid", 0.6, 0.6),
        measured("dense", "dense", 0.1, 0.1, size=256),
    ]

    heading, dense, hybrid, other = score_table.lines(rows)

    assert heading.split()[0] == "nDCG@10"
    assert dense.startswith("512: dense ")
    assert dense.endswith("12.3")
    assert "0.6000 [0.600, 0.600]" in hybrid
    assert hybrid.endswith("dense +0.1000 [+0.1000, +0.1000]")
    assert other.startswith("256: dense ")


def test_the_same_figures_are_there_as_json() -> None:
    [row] = json.loads(json.dumps(score_table.as_json([measured("dense", "dense", 0.5, 0.5)])))

    assert row["scores"] == {"nDCG@10": [0.5, 0.5, 0.5]}
    assert row["candidates"] == 60


def test_a_chart_has_a_bar_for_each_mean_and_a_line_for_its_interval() -> None:
    bars = {"a < b": Interval(0.5, 0.25, 0.75), "c": Interval(1, 1, 1)}

    root = ET.fromstring(chart.svg("x & y", bars))

    _, first, second = root.iter("{http://www.w3.org/2000/svg}rect")  # behind the background
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert float(second.get("width", 0)) == 2 * float(first.get("width", 0))
    assert {"x & y", "a < b", "0.500", "c", "1.000"} <= set(texts)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is not a folder"),
        ([".", "--milvus-uri", "http://x"], "go together"),
        ([".", "--whole", "--questions", "q.jsonl"], "BEIR"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["evaluate", *arguments])

    with pytest.raises(Unsuitable, match=message):
        evaluate._arguments()


def test_the_local_model_is_taken_where_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GROUNDSERVE_ENCODER_MODEL", raising=False)
    assert "minilm" in asking.configured(None).encoder_model.lower()

    monkeypatch.setenv("GROUNDSERVE_ENCODER_MODEL", "from-environment")
    assert asking.configured(None).encoder_model == "from-environment"
    assert asking.configured("named", knowledge_base="kb").encoder_model == "named"
