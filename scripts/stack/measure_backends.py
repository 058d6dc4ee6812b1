"""How fast the encoder is with each backend and kind of numbers, and how well it finds.

The same passages and questions go through each, one after the other; the first is what the others
are compared with. A question takes so many milliseconds where 1, 8 or 32 come together; of the
first's ten best chunks of a question, so many are among the others' ten. A backend whose packages
are missing is told and passed over.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.index.embedding import Encoder, TextEncoder, Vectors
from indexer.index.errors import EncoderUnavailable
from indexer.index.passages import passage
from indexer.index.settings import IndexSettings
from stack import report
from stack.errors import Unsuitable
from stack.judging import RESULTS, Question, Scores, beir, difference
from stack.measure_passages import Chunk, cut, judge, parsed
from stack.models import minilm

BACKENDS = ["torch/float32", "torch/bfloat16", "openvino/float32", "openvino/int8"]

TOGETHER = (1, 8, 32)
"""Questions that a gateway embeds in one call: where one client asks, and where many do."""


class Measured(NamedTuple):
    """What a backend gave."""

    rate: float
    """Passages a second."""
    vectors: Vectors
    """Of the passages."""
    best: NDArray[np.intp]
    """Places of the best chunks of each question, shape (n_questions, RESULTS)."""
    scores: Scores


def main() -> int:
    """Print one line for each backend."""
    given = _arguments()
    first = _loaded(given, given.backends[0])
    documents, questions = beir(given.folder, given.documents)
    chunks = list(cut(documents, first, given))
    report.say(f"{len(chunks)} passages, {len(questions)} questions, {first.identity.model}")
    asked = "".join(f"{f'ms, {at_once}':>9}" for at_once in TOGETHER)
    report.say(
        f"{'backend':20}{'passages/s':>11}{'ratio':>7}{asked}{'cosine':>9}"
        f"{'same 10':>9}{'nDCG@10':>9}   difference in nDCG@10"
    )
    compare(given, chunks, questions)
    return 0


def compare(
    given: argparse.Namespace, chunks: Sequence[Chunk], questions: Sequence[Question]
) -> None:
    """Print speed, mean cosine with the vectors of the first backend, and what is found."""
    passages = [passage(*chunk[1:]) for chunk in chunks]
    queries = [question.query for question in questions]
    base: Measured | None = None
    for backend in given.backends:
        try:
            encoder = _loaded(given, backend)
        except Unsuitable as exc:
            report.say(f"{backend:20} {exc}")
            continue
        encoder.encode_passages(passages[:64])  # the first call warms up
        started = time.monotonic()
        vectors = encoder.encode_passages(passages)
        rate = len(passages) / (time.monotonic() - started)
        similarity = encoder.encode_queries(queries) @ vectors.T
        best = np.argsort(-similarity, axis=1)[:, :RESULTS]
        found = Measured(rate, vectors, best, judge(questions, chunks, similarity))
        base = base or found
        asked = "".join(f"{milliseconds(encoder, queries, many):9.2f}" for many in TOGETHER)
        cosine = float((vectors * base.vectors).sum(axis=1).mean())
        report.say(
            f"{backend:20}{rate:11.1f}{rate / base.rate:7.2f}{asked}{cosine:9.4f}"
            f"{shared(base.best, best):9.4f}{found.scores.ndcg.mean():9.4f}"
            f"   {difference(base.scores, found.scores)}"
        )


def milliseconds(encoder: TextEncoder, queries: Sequence[str], at_once: int) -> float:
    """What one of `queries` takes where `at_once` come together: the median of all calls."""
    took = []
    for start in range(0, len(queries) - at_once + 1, at_once):
        started = time.perf_counter()
        encoder.encode_queries(queries[start : start + at_once])
        took.append(time.perf_counter() - started)
    return statistics.median(took) * 1000 / at_once if took else math.nan


def shared(first: NDArray[np.intp], other: NDArray[np.intp]) -> float:
    """The share of `first` that is in the same row of `other`, both of shape (n_questions, n)."""
    rows = zip(first, other, strict=True)
    return float(np.mean([np.isin(one, two).mean() for one, two in rows]))


def _loaded(given: argparse.Namespace, backend: str) -> Encoder:
    name, _, dtype = backend.partition("/")
    try:
        settings = IndexSettings.model_validate(
            {
                "encoder_model": given.encoder_model or str(minilm()),
                "encoder_threads": given.encoder_threads,
                "encoder_device": given.device,
                "encoder_backend": name,
                "encoder_dtype": dtype or "float32",
            }
        )
        return Encoder.load(settings, batch_size=given.batch_size)
    except (EncoderUnavailable, ValueError) as exc:
        raise Unsuitable(str(exc)) from exc


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/measure-backends", description=__doc__)
    parser.add_argument("folder", type=Path, help="BEIR layout")
    parser.add_argument("--backends", nargs="+", default=BACKENDS, metavar="BACKEND/DTYPE")
    parser.add_argument("--documents", type=int, default=1500, help="so many of BEIR's")
    parser.add_argument("--device", help="cpu or cuda; the fastest, if not given")
    parser.add_argument("--batch-size", type=int, default=32)
    return parsed(parser)


if __name__ == "__main__":
    sys.exit(report.run(main))
