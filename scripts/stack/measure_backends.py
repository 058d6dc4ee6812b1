"""How fast the encoder is with each backend and kind of numbers, and how well it finds.

The same passages and questions go through each, one after the other; the first is what the others
are compared with. A backend whose packages are missing is told and passed over.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from indexer.index.embedding import Encoder
from indexer.index.errors import EncoderUnavailable
from indexer.index.passages import passage
from indexer.index.settings import IndexSettings
from stack import report
from stack.errors import Unsuitable
from stack.judging import Question, Scores, beir, difference
from stack.measure_passages import Chunk, cut, judge, parsed
from stack.models import minilm

BACKENDS = ["torch/float32", "torch/bfloat16", "openvino/float32", "openvino/int8"]


def main() -> int:
    """Print one line for each backend."""
    given = _arguments()
    first = _loaded(given, given.backends[0])
    documents, questions = beir(given.folder, given.documents)
    chunks = list(cut(documents, first, given))
    report.say(f"{len(chunks)} passages, {len(questions)} questions, {first.identity.model}")
    report.say(
        f"{'backend':20}{'passages/s':>11}{'ratio':>7}{'cosine':>9}{'nDCG@10':>9}   "
        "difference in nDCG@10"
    )
    compare(given, chunks, questions)
    return 0


def compare(
    given: argparse.Namespace, chunks: Sequence[Chunk], questions: Sequence[Question]
) -> None:
    """Print speed, mean cosine with the vectors of the first backend, and nDCG@10."""
    passages = [passage(*chunk[1:]) for chunk in chunks]
    base: tuple[float, np.ndarray[tuple[int, int], np.dtype[np.float32]], Scores] | None = None
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
        queries = encoder.encode_queries([question.query for question in questions])
        scores = judge(questions, chunks, queries @ vectors.T)
        base = base or (rate, vectors, scores)
        cosine = float((vectors * base[1]).sum(axis=1).mean())
        report.say(
            f"{backend:20}{rate:11.1f}{rate / base[0]:7.2f}{cosine:9.4f}"
            f"{scores.ndcg.mean():9.4f}   {difference(base[2], scores)}"
        )


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
