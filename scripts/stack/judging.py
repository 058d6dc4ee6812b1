"""Questions with known answers, and how well a ranking answers them. Knows no index and no model.

Every figure is a mean over questions. Its interval says how far chance may reach: 95 % of the
means of questions that are drawn anew from the same ones lie within it.
"""

import random
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from stack.errors import Unsuitable

_T = TypeVar("_T")
Values = NDArray[np.float64]
"""One number for each question, shape (n_questions,)."""
RESULTS = 10
RESAMPLES = 10_000
SEED = 415


class Document(NamedTuple):
    """A document as it is searched."""

    name: str
    title: str
    text: str


class Question(NamedTuple):
    """A question and its answers."""

    query: str
    documents: dict[str, int]
    """Gain of each document that answers it; empty where a chunk does."""
    expect: str = ""
    """What the chunk contains that answers it."""
    name: str = ""
    """Its id in a BEIR folder."""


class Scores(NamedTuple):
    """One number from 0 to 1 for each question."""

    ndcg: Values
    reciprocal_rank: Values
    found_in_5: Values


class Interval(NamedTuple):
    """A mean, and between what 95 % of the means of questions drawn anew lie."""

    mean: float
    low: float
    high: float


class _Row(msgspec.Struct, rename={"id": "_id"}):
    """A line of corpus.jsonl or of queries.jsonl."""

    id: str
    text: str
    title: str = ""


class _Answers(msgspec.Struct, rename={"id": "_id"}):
    """A line of answers.jsonl."""

    id: str
    answers: list[str]


def dcg(gains: Sequence[int]) -> float:
    """Discounted cumulative gain, as in Järvelin and Kekäläinen (2002) and in trec_eval."""
    return float(sum(gain / np.log2(rank + 1) for rank, gain in enumerate(gains, start=1)))


def ndcg(gains: Sequence[int], possible: Sequence[int], results: int = RESULTS) -> float:
    """What the first `results` gain, of what the best order of all `possible` gains would."""
    ideal = sorted(possible, reverse=True)[:results]
    return dcg(gains[:results]) / dcg(ideal)


def recall(gains: Sequence[int], possible: Sequence[int], results: int) -> float:
    """The share of what answers that is among the first `results`."""
    return sum(gain > 0 for gain in gains[:results]) / sum(gain > 0 for gain in possible)


def reciprocal_rank(gains: Sequence[int], results: int = RESULTS) -> float:
    """1 / rank of the first result that answers; 0 where none of the first `results` does."""
    rank = next((rank for rank, gain in enumerate(gains[:results], start=1) if gain), 0)
    return 1 / rank if rank else 0.0


def gains_of_documents(ranked: Sequence[str], documents: dict[str, int]) -> list[int]:
    """Gain of each document in `ranked`, which is where its first chunk is."""
    return [documents.get(name, 0) for name in dict.fromkeys(ranked)]


def interval(values: Values) -> Interval:
    """The mean of `values`, with the percentile interval of its bootstrap."""
    drawn = np.random.default_rng(SEED).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high))


def difference(first: Scores, other: Scores) -> str:
    """Mean of the paired differences in nDCG, with its interval; "-" where there is none."""
    return described_difference(first.ndcg, other.ndcg)


def described_difference(first: Values, other: Values) -> str:
    """Mean of what `other` has more than `first`, paired, with its interval; "-" if nothing."""
    differences = other - first
    if not differences.any():
        return "-"
    mean, low, high = interval(differences)
    return f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"


def beir(folder: Path, most: int = sys.maxsize) -> tuple[list[Document], list[Question]]:
    """A BEIR folder, or of its documents all that answer a question and others up to `most`.

    Raises Unsuitable.
    """
    questions = beir_questions(folder)
    relevant = {name for question in questions for name in question.documents}
    corpus = [Document(row.id, row.title, row.text) for row in lines(folder / "corpus.jsonl", _Row)]
    others = [document.name for document in corpus if document.name not in relevant]
    wanted = min(len(others), max(0, most - len(relevant)))
    chosen = relevant | set(random.Random(SEED).sample(others, wanted))  # nosec B311
    return [document for document in corpus if document.name in chosen], questions


def beir_questions(folder: Path) -> list[Question]:
    """The judged questions of a BEIR folder, in its order. Raises Unsuitable."""
    answers: dict[str, dict[str, int]] = defaultdict(dict)
    for query, document, gain in _judgements(folder / "qrels" / "test.tsv"):
        if gain > 0:
            answers[query][document] = gain
    return [
        Question(row.text, answers[row.id], name=row.id)
        for row in lines(folder / "queries.jsonl", _Row)
        if row.id in answers
    ]


def beir_answers(folder: Path) -> dict[str, list[str]]:
    """By the id of its question, what a right answer says; empty where the folder tells none."""
    path = folder / "answers.jsonl"
    return {row.id: row.answers for row in lines(path, _Answers)} if path.exists() else {}


def lines(path: Path, kind: type[_T]) -> list[_T]:
    """The lines of a JSON Lines file. Raises Unsuitable."""
    try:
        return msgspec.json.Decoder(kind).decode_lines(path.read_bytes())
    except msgspec.DecodeError as exc:
        raise Unsuitable(f"{path} is not what was expected: {exc}") from exc


def _judgements(path: Path) -> Iterator[tuple[str, str, int]]:
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        try:
            query, document, gain = line.split("\t")
            yield query, document, int(gain)
        except ValueError as exc:
            raise Unsuitable(f"{path} is not what was expected: {line!r}") from exc
