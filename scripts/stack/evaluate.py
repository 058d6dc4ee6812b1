"""How well the gateway's own retrieval finds, on questions with known answers.

FOLDER has BEIR's layout (corpus.jsonl, queries.jsonl, qrels/test.tsv); with --questions it holds
documents, and the questions name the piece of text that answers them. The index is made by the
indexer, unless one is named. A document is where its best chunk is; an answer is where a chunk
holds all of it. Brackets hold 95 % of the means of questions drawn anew.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gateway.retrieval.options import MAX_CANDIDATES, Wanted
from gateway.settings import GatewaySettings
from stack import answering, asking, chart, judging, report
from stack.asking import Found
from stack.errors import Unsuitable
from stack.judging import RESULTS, Interval, Question, Values
from stack.marked import Marked, gains_of_chunks, is_within, marked
from stack.processes import keep_loopback_direct

MODES = ["dense", "bm25", "hybrid"]
LONGEST_CHUNK = 16_000
"""What `chunk_size_chars` allows; a chunk is never longer than what the encoder reads."""
CHARACTERS = 2000
"""Of context, in which chunks of different sizes are compared at equal cost."""


class Measured(NamedTuple):
    """One line of the table."""

    name: str
    scores: dict[str, Values]
    """By the name of the metric."""
    milliseconds: float | None = None
    """For one question."""

    def intervals(self) -> dict[str, Interval]:
        """The mean of each metric with its interval."""
        return {name: judging.interval(values) for name, values in self.scores.items()}


class Task(NamedTuple):
    """Questions of either kind."""

    questions: Sequence[Question] | Sequence[Marked]

    def queries(self) -> list[str]:
        """The words of the questions."""
        return [question.query for question in self.questions]

    def scores(self, found: Sequence[Sequence[Found]], *, is_deep: bool) -> dict[str, Values]:
        """Of the rankings `found`; 100 documents are in those that are deep alone."""
        rows = [
            _of_documents(question, chunks, is_deep=is_deep)
            if isinstance(question, Question)
            else _of_chunks(question, chunks)
            for question, chunks in zip(self.questions, found, strict=True)
        ]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def main() -> int:
    """Print a table with a line for each way of searching."""
    given = _arguments()
    keep_loopback_direct()
    task = _task(given)
    measured: list[Measured] = []
    with ExitStack() as stack:
        uri = given.milvus_uri or stack.enter_context(asking.milvus_for_now())
        for size in given.chunk_sizes:
            name = given.knowledge_base or f"evaluated{size}"
            settings = asking.configured(given.encoder_model, milvus_uri=uri, knowledge_base=name)
            if not given.milvus_uri:
                asking.index(given.folder, settings, size)
            prefix = f"{size}: " if len(given.chunk_sizes) > 1 else ""
            measured += _measured(given, task, settings, prefix)
    for line in table(measured):
        report.say(line)
    if given.plot:
        _plot(given, measured)
    found = {"retrieval": as_json(measured)}
    if given.answers:
        found["answers"] = answering.measure(
            given.gateway, _answered(given, task)[: given.answers], given.instruction
        )
    if given.json:
        report.say(json.dumps(found))
    return 0


def ways(modes: Sequence[str], weights: Sequence[float], depths: Sequence[int]) -> dict[str, Wanted]:
    """The ways of searching by their names."""
    found = {}
    for depth in depths:
        suffix = f", {depth} candidates" if len(depths) > 1 else ""
        wanted = Wanted(limit=RESULTS, candidates=depth)
        for mode in modes:
            if mode == "hybrid":
                by_rank = {"hybrid by rank": None}
                by_weight = {f"hybrid, words {weight}": weight for weight in weights}
                for name, weight in (by_rank | by_weight).items():
                    found[name + suffix] = _changed(wanted, mode="hybrid", text_weight=weight)
            else:
                found[mode + suffix] = _changed(wanted, mode=mode)
    return found


def table(measured: Sequence[Measured]) -> Iterator[str]:
    """The lines of a table; differences are paired, in nDCG@10, from each leg of the hybrid."""
    metrics = list(dict.fromkeys(name for row in measured for name in row.scores))
    legs = [row for row in measured if row.name.split(": ")[-1].split(",")[0] in ("dense", "bm25")]
    width = max(len(row.name) for row in measured) + 2
    yield (
        f"{'':{width}}"
        + "".join(f"{metric:24}" for metric in metrics)
        + f"{'ms':>7}   nDCG@10 beyond a leg"
    )
    for row in measured:
        intervals = row.intervals()
        cells = "".join(
            f"{described(intervals[metric]):24}" if metric in intervals else f"{'-':24}"
            for metric in metrics
        )
        time = f"{row.milliseconds:7.1f}" if row.milliseconds is not None else f"{'-':>7}"
        yield f"{row.name:{width}}{cells}{time}   {'; '.join(_beyond(row, legs))}"


def described(found: Interval) -> str:
    """`0.678 [0.631, 0.724]`."""
    return f"{found.mean:.4f} [{found.low:.3f}, {found.high:.3f}]"


def as_json(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """The lines of the table, each metric as mean, low and high."""
    return [
        {"name": row.name, "milliseconds": row.milliseconds, **row.intervals()} for row in measured
    ]


def _measured(
    given: argparse.Namespace, task: Task, settings: GatewaySettings, prefix: str
) -> Iterator[Measured]:
    searched = ways(given.modes, given.text_weights, given.candidates)
    with report.Step(f"asking {len(task.questions)} questions in {len(searched)} ways"):
        asked = asking.ask(settings, task.queries(), searched)
    for name, answers in asked.items():
        scores = task.scores(answers.found, is_deep=searched[name].candidates >= MAX_CANDIDATES)
        yield Measured(prefix + name, scores, answers.milliseconds)
    if given.exact or given.whole:
        depth = max(given.candidates)
        exact = asking.exact(settings, task.queries(), depth)
        scores = task.scores(exact, is_deep=depth >= MAX_CANDIDATES)
        yield Measured(f"{prefix}exact, the same vectors", scores)
    if given.whole:
        documents, _ = judging.beir(given.folder)
        texts = {each.name: f"{each.title} {each.text}" for each in documents}
        with report.Step("embedding whole documents"):
            ranked = asking.exact_whole(settings, texts, task.queries())
        whole = [[Found(f"corpus.jsonl#{name}", 0, 0) for name in names[:200]] for names in ranked]
        yield Measured(f"{prefix}exact, one vector each", task.scores(whole, is_deep=True))


def _of_documents(
    question: Question, chunks: Sequence[Found], *, is_deep: bool
) -> dict[str, float]:
    names = [chunk.source.partition("corpus.jsonl#")[2] for chunk in chunks]
    gains = judging.gains_of_documents(names, question.documents)
    possible = list(question.documents.values())
    scores = {
        "nDCG@10": judging.ndcg(gains, possible),
        "recall@10": judging.recall(gains, possible, RESULTS),
        "MRR@10": judging.reciprocal_rank(gains),
    }
    return scores | ({"recall@100": judging.recall(gains, possible, 100)} if is_deep else {})


def _of_chunks(question: Marked, chunks: Sequence[Found]) -> dict[str, float]:
    gains = gains_of_chunks(chunks, question.answers)
    return {
        "nDCG@10": judging.ndcg(gains, [1]),
        "recall@2": judging.recall(gains, [1], 2),
        "recall@10": judging.recall(gains, [1], RESULTS),
        "MRR@10": judging.reciprocal_rank(gains),
        f"in {CHARACTERS} characters": float(is_within(chunks, question.answers, CHARACTERS)),
    }


def _beyond(row: Measured, legs: Sequence[Measured]) -> Iterator[str]:
    """What it has more than the legs of the same index with as many candidates."""
    if "hybrid" not in row.name and "exact" not in row.name:
        return
    prefix, depth = row.name.rpartition(": ")[0], row.name.partition(" candidates")[0].split()[-1]
    for leg in legs:
        is_same_depth = " candidates" not in leg.name or leg.name.split()[-2] == depth
        if leg.name.rpartition(": ")[0] == prefix and is_same_depth:
            first, other = leg.scores["nDCG@10"], row.scores["nDCG@10"]
            name = leg.name.split(": ")[-1].split(",")[0]
            yield f"{name} {judging.described_difference(first, other)}"


