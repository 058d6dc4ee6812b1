"""The script that measures what titles and headings give: its scores, and what it reads."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from stack import ROOT, judging, measure_passages
from stack.errors import Unsuitable
from stack.judging import Question, Scores
from stack.measure_passages import Chunk, judge

CHUNKS = [
    Chunk(name, "", "", f"text {place}") for place, name in enumerate("aabbccddeeffgghhiijjkk")
]


def ranked(*places: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Similarities that put the chunks at `places` first, in that order."""
    row = np.zeros(len(CHUNKS), dtype=np.float32)
    for rank, place in enumerate(places):
        row[place] = 1 - rank / 100
    return row[None]


def scores(question: Question, *places: int) -> tuple[float, ...]:
    return tuple(
        round(float(values[0]), 4) for values in judge([question], CHUNKS, ranked(*places))
    )


def test_a_document_is_where_its_best_chunk_is() -> None:
    question = Question("q", {"c": 1})

    assert scores(question, 4, 0) == (1, 1, 1)
    assert scores(question, 0, 1, 5) == (0.6309, 0.5, 1)  # 1 / log2(3): two chunks of one document


def test_gains_are_discounted_and_compared_with_the_best_order() -> None:
    question = Question("q", {"a": 2, "b": 1})
    best = 2 + 1 / np.log2(3)

    assert scores(question, 0, 2)[0] == 1
    assert scores(question, 2, 0)[0] == round((1 + 2 / np.log2(3)) / best, 4)


def test_what_is_not_among_the_first_ten_is_not_found() -> None:
    assert scores(Question("q", {"k": 1}), *range(20)) == (0, 0, 0)
    assert scores(Question("q", {"f": 1}), *range(0, 20, 2)) == (
        round(1 / np.log2(7), 4),
        0.1667,
        0,
    )


def test_the_first_chunk_that_answers_counts() -> None:
    question = Question("q", {}, "text 1")  # text 10 and so on contain it as well

    assert scores(question, 1, 10, 11) == (1, 1, 1)
    assert scores(question, 2, 3, 10, 11) == (0.5, 0.3333, 1)


def test_the_difference_comes_with_its_interval() -> None:
    first = np.zeros(200)
    other = np.tile([0.0, 0.0, 0.0, 0.4], 50)

    described = judging.difference(Scores(first, first, first), Scores(other, other, other))

    mean, low, high = (float(part.strip("[],")) for part in described.split())
    assert mean == 0.1
    assert 0.07 < low < 0.1 < high < 0.13


def beir(folder: Path) -> Path:
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\td7\t1\n1\td8\t0\n")
    corpus = [{"_id": f"d{n}", "title": "T", "text": "Text."} for n in range(10)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    queries = [{"_id": "1", "text": "one?"}, {"_id": "2", "text": "unjudged?"}]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    return folder


def test_a_part_of_a_corpus_has_all_that_answers(tmp_path: Path) -> None:
    documents, questions = judging.beir(beir(tmp_path), 4)

    assert len(documents) == 4
    assert "d7" in {document.name for document in documents}
    assert questions == [Question("one?", {"d7": 1}, name="1")]


def test_a_file_that_is_no_question_list_is_named(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"query": "what?"}\n')
    given = argparse.Namespace(folder=tmp_path, questions=tmp_path / "q.jsonl")

    with pytest.raises(Unsuitable, match=r"q\.jsonl"):
        measure_passages._folder(given)


def test_the_questions_of_the_project_are_golden_queries(tmp_path: Path) -> None:
    file = ROOT / "scripts" / "stack" / "questions" / "milvus-docs.jsonl"

    _, questions = measure_passages._folder(argparse.Namespace(folder=tmp_path, questions=file))

    assert len(questions) > 100
    assert len({question.query for question in questions}) == len(questions)
