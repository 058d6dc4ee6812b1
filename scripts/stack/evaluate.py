"""How well the gateway's own retrieval finds, on questions with known answers.

FOLDER has BEIR's layout (corpus.jsonl, queries.jsonl, qrels/test.tsv); with --questions it holds
documents, and the questions name the piece of text that answers them. The index is made by the
indexer, unless one is named. A document is where its best chunk is; an answer is where a chunk
holds all of it. Brackets hold 95 % of the means of questions drawn anew.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from gateway.retrieval.options import MAX_CANDIDATES, Wanted
from gateway.settings import GatewaySettings
from indexer.index.records import SearchMode
from stack import answering, asking, chart, judging, report, score_table
from stack.asking import Found
from stack.errors import Unsuitable
from stack.judging import RESULTS, Question, Values
from stack.marked import Marked, gains_of_chunks, is_within, marked
from stack.processes import keep_loopback_direct
from stack.score_table import Measured

MODES: list[SearchMode] = ["dense", "bm25", "hybrid"]
LONGEST_CHUNK = 16_000
"""What `chunk_size_chars` allows; a chunk is never longer than what the encoder reads."""
_CORPUS = "corpus.jsonl#"
"""Stands in front of a document's id in the source of its chunks."""
CHARACTERS = 2000
"""Of context, in which chunks of different sizes are compared at equal cost."""


class Task(NamedTuple):
    """Questions of either kind."""

    questions: Sequence[Question | Marked]

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
                # A share of that size would be more than what the encoder reads.
                asking.index(given.folder, settings, size, 0 if given.whole else 10)
            measured += _measured(given, task, settings, size)
    for line in score_table.lines(measured):
        report.say(line)
    if given.plot:
        _plot(given, measured)
    found: dict[str, Any] = {"retrieval": score_table.as_json(measured)}
    if given.answers:
        found["answers"] = _answers(given, task)
    if given.json:
        report.say(json.dumps(found))
    return 0


def ways(modes: Sequence[str], weights: Sequence[float]) -> dict[str, Wanted]:
    """The ways of searching by their names."""
    found: dict[str, Wanted] = {}
    for mode in MODES:
        if mode in modes and mode != "hybrid":
            found[mode] = Wanted(mode=mode)
        elif mode in modes:
            found["hybrid by rank"] = Wanted(mode=mode)
            for weight in weights:
                wanted = Wanted(mode=mode, text_weight=weight)
                found[f"hybrid, words {weight}"] = wanted
    return found


def _measured(
    given: argparse.Namespace, task: Task, settings: GatewaySettings, size: int
) -> Iterator[Measured]:
    queries = task.queries()
    for depth in given.candidates:
        is_deep = depth >= MAX_CANDIDATES
        searched = {
            name: msgspec.structs.replace(wanted, candidates=depth)
            for name, wanted in ways(given.modes, given.text_weights).items()
        }
        asked = asking.ask(settings, queries, searched)
        for name, answers in asked.items():
            scores = task.scores(answers.found, is_deep=is_deep)
            mode = searched[name].mode
            yield Measured(name, mode, size, depth, scores, answers.milliseconds)
        if given.exact or given.whole:
            scores = task.scores(asking.exact(settings, queries, depth), is_deep=is_deep)
            yield Measured("exact, the same vectors", "exact", size, depth, scores)
    if given.whole:
        scores = _whole(given, task, settings)
        yield Measured("exact, a vector a document", "exact", size, given.candidates[-1], scores)


def _whole(given: argparse.Namespace, task: Task, settings: GatewaySettings) -> dict[str, Values]:
    """As others publish it: each document cut off where the encoder stops reading."""
    documents, _ = judging.beir(given.folder)
    texts = {each.name: f"{each.title} {each.text}" for each in documents}
    with report.Step(f"embedding {len(texts)} whole documents"):
        ranked = asking.exact_whole(settings, texts, task.queries())
    found = [[Found(f"{_CORPUS}{name}", 0, 0) for name in names] for names in ranked]
    return task.scores(found, is_deep=True)


def _of_documents(
    question: Question, chunks: Sequence[Found], *, is_deep: bool
) -> dict[str, float]:
    names = [chunk.source.partition(_CORPUS)[2] for chunk in chunks]
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


def _plot(given: argparse.Namespace, measured: Sequence[Measured]) -> None:
    metric = score_table.COMPARED
    names = score_table.titles(measured)
    bars = {name: row.intervals()[metric] for name, row in zip(names, measured, strict=True)}
    title = f"{metric} on {given.folder.name}, with 95 % intervals"
    given.plot.write_text(chart.svg(title, bars), encoding="utf-8")


def _answers(given: argparse.Namespace, task: Task) -> dict[str, Any]:
    """Print and return how good the gateway's answers are."""
    known = judging.beir_answers(given.folder)
    expected = {
        question.query: known[question.name]
        for question in task.questions
        if isinstance(question, Question) and question.name in known
    }
    if not expected:
        raise Unsuitable(f"{given.folder} has no answers.jsonl with answers to its questions")
    chosen = dict(list(expected.items())[: given.answers])
    with report.Step(f"asking the gateway {len(chosen)} questions"):
        answers = answering.ask(given.gateway, list(chosen), given.instruction)
    measured = answering.scores(answers, list(chosen.values()))
    found = {name: judging.interval(values) for name, values in measured.items() if len(values)}
    for name in measured:
        said = score_table.described(found[name]) if name in found else "nothing is cited"
        report.say(f"{name:52}{said}")
    return found


def _task(given: argparse.Namespace) -> Task:
    if given.questions is None:
        return Task(judging.beir_questions(given.folder))
    settings = asking.configured(given.encoder_model)
    return Task(marked(given.folder, given.questions, settings.tenant))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/evaluate", description=__doc__)
    parser.add_argument("folder", type=Path, help="BEIR layout; with --questions, documents")
    parser.add_argument("--questions", type=Path, help='lines of {"query": …, "expect": …}')
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--text-weights", nargs="*", type=float, default=[0.3, 0.5, 0.7])
    parser.add_argument(
        "--candidates",
        nargs="+",
        type=int,
        default=[60],
        help=f"chunks that are looked at; recall@100 needs {MAX_CANDIDATES}",
    )
    parser.add_argument(
        "--chunk-sizes", "--chunk-size-chars", nargs="+", type=int, default=[512], metavar="N"
    )
    parser.add_argument("--exact", action="store_true", help="also search without Milvus")
    parser.add_argument(
        "--whole", action="store_true", help="chunks as long as the encoder reads, of BEIR's"
    )
    parser.add_argument("--milvus-uri", help="where an index is, instead of making one")
    parser.add_argument("--knowledge-base", help="the name of that index")
    parser.add_argument("--encoder-model", help="a name on the hub or a folder; all-MiniLM-L6-v2")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    parser.add_argument("--json", action="store_true", help="the figures once more, as one line")
    parser.add_argument("--answers", type=int, default=0, metavar="N", help="of so many questions")
    parser.add_argument("--gateway", default="http://127.0.0.1:8080/v1", metavar="URL")
    parser.add_argument("--instruction", default="", help="system message for the answers")
    given = parser.parse_args()
    if not given.folder.is_dir():
        raise Unsuitable(f"{given.folder} is not a folder")
    if bool(given.milvus_uri) != bool(given.knowledge_base):
        raise Unsuitable("--milvus-uri and --knowledge-base go together")
    if given.whole and given.questions:
        raise Unsuitable("--whole is for BEIR's layout")
    if given.whole:
        given.chunk_sizes = [LONGEST_CHUNK]
    return given


if __name__ == "__main__":
    sys.exit(report.run(main))
