"""Finds the relevance threshold below which the gateway should say that nothing was found.

The relevance of each question is what the gateway itself compares with the threshold: the cosine
of the nearest chunk. The threshold is chosen on one half of the questions, by the mean of the share
of answerable ones that are answered and the share of the others that are refused (balanced
accuracy), and measured on the other half, both ways; what is recommended is chosen on all. It holds
for this embedding model, and for documents like these.
"""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stack import asking, judging, report
from stack.errors import Unsuitable
from stack.judging import RESAMPLES, SEED, Interval, Values
from stack.processes import keep_loopback_direct

THRESHOLDS = np.arange(1, 100) / 100
SHOWN = THRESHOLDS[4::5]
CHUNK_SIZE = 512


class Questions(NamedTuple):
    """How relevant the nearest chunk is to each question, 0..1, shape (n_questions,)."""

    answerable: Values
    unanswerable: Values

    def answered(self, threshold: float) -> float:
        """The share of the answerable ones that get an answer."""
        return float((self.answerable >= threshold).mean())

    def refused(self, threshold: float) -> float:
        """The share of the unanswerable ones that get none."""
        return float((self.unanswerable < threshold).mean())

    def accuracy(self, threshold: float) -> float:
        """The mean of both shares: balanced accuracy."""
        return (self.answered(threshold) + self.refused(threshold)) / 2

    def halves(self) -> tuple["Questions", "Questions"]:
        """One half of each kind, drawn at random but the same every time, and the other."""
        parts = [_halved(values) for values in self]
        return Questions(*(one for one, _ in parts)), Questions(*(other for _, other in parts))


class _Line(msgspec.Struct):
    """A line of a file of questions; what else stands in it is left alone."""

    query: str


def main() -> int:
    """Print what each threshold would do, and recommend one."""
    given = _arguments()
    keep_loopback_direct()
    files = [
        [line.query for line in judging.lines(path, _Line)]
        for path in (given.answerable, given.unanswerable)
    ]
    with ExitStack() as stack:
        uri = given.milvus_uri or stack.enter_context(asking.milvus_for_now())
        settings = asking.configured(
            given.encoder_model, milvus_uri=uri, knowledge_base=given.knowledge_base or "calibrated"
        )
        if not given.milvus_uri:
            asking.index(given.folder, settings, CHUNK_SIZE)
        found = asking.relevances(settings, [query for queries in files for query in queries])
    count = len(files[0])
    questions = Questions(np.array(found[:count]), np.array(found[count:]))
    report.say(f"{count} answerable and {len(files[1])} unanswerable questions")
    report.say(f"{'threshold':>9}{'answered':>10}{'refused':>9}{'accuracy':>10}")
    for threshold in SHOWN:
        report.say(_described(questions, threshold))
    if given.threshold is None:
        _recommend(questions)
    else:
        report.say(f"{given.threshold} on these: {_accuracy(questions, given.threshold)}")
    return 0


def recommended(questions: Questions) -> float:
    """The mean of the thresholds that are best for questions drawn anew, to two places.

    What is best for a few questions by themselves hangs on one or two of them.
    """
    draw = np.random.default_rng(SEED)
    accuracies = _shares(draw, questions.answerable[:, None] >= THRESHOLDS)
    accuracies += _shares(draw, questions.unanswerable[:, None] < THRESHOLDS)
    best = accuracies >= accuracies.max(axis=1, keepdims=True) - 1e-9
    return round(float(((best * THRESHOLDS).sum(axis=1) / best.sum(axis=1)).mean()), 2)


def accuracy_interval(questions: Questions, threshold: float) -> Interval:
    """Balanced accuracy, and where 95 % of it lie with questions of each kind drawn anew."""
    answered, refused = questions.answerable >= threshold, questions.unanswerable < threshold
    draw = np.random.default_rng(SEED)
    drawn = _shares(draw, answered[:, None]) + _shares(draw, refused[:, None])
    low, high = np.percentile(drawn / 2, [2.5, 97.5])
    return Interval(questions.accuracy(threshold), float(low), float(high))


def _shares(draw: np.random.Generator, is_right: NDArray[np.bool_]) -> Values:
    """Means over questions drawn anew, shape (RESAMPLES, n); of shape (n_questions, n)."""
    count = len(is_right)
    draws = draw.multinomial(count, np.full(count, 1 / count), RESAMPLES)
    return draws @ is_right.astype(np.float64) / count


def _recommend(questions: Questions) -> None:
    one, other = questions.halves()
    for chosen_on, measured_on in ((one, other), (other, one)):
        threshold = recommended(chosen_on)
        report.say(f"{threshold:.2f}, chosen on one half, on the other:")
        report.say(f"  {_accuracy(measured_on, threshold)}")
    report.say(f"GROUNDSERVE_RELEVANCE_THRESHOLD={recommended(questions):.2f}, chosen on all")


def _accuracy(questions: Questions, threshold: float) -> str:
    mean, low, high = accuracy_interval(questions, threshold)
    return (
        f"balanced accuracy {mean:.3f} [{low:.3f}, {high:.3f}], "
        f"{questions.answered(threshold):.1%} of the answerable answered, "
        f"{questions.refused(threshold):.1%} of the others refused"
    )


def _described(questions: Questions, threshold: float) -> str:
    return (
        f"{threshold:9.2f}{questions.answered(threshold):10.1%}"
        f"{questions.refused(threshold):9.1%}{questions.accuracy(threshold):10.3f}"
    )


def _halved(values: Values) -> tuple[Values, Values]:
    mixed = np.random.default_rng(SEED).permutation(values)
    half = (len(mixed) + 1) // 2
    return mixed[:half], mixed[half:]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/calibrate", description=__doc__)
    parser.add_argument(
        "folder", type=Path, nargs="?", help="documents to make an index of, or BEIR layout"
    )
    for name, help_text in (
        ("answerable", "questions that the documents answer"),
        ("unanswerable", "questions that they do not"),
    ):
        parser.add_argument(
            f"--{name}", type=Path, required=True, help=f'{help_text}: lines of {{"query": …}}'
        )
    parser.add_argument("--threshold", type=float, help="measure this one, found on another set")
    parser.add_argument("--milvus-uri", help="where an index is, instead of making one")
    parser.add_argument("--knowledge-base", help="the name of that index")
    parser.add_argument("--encoder-model", help="a name on the hub or a folder; all-MiniLM-L6-v2")
    given = parser.parse_args()
    if bool(given.milvus_uri) != bool(given.knowledge_base):
        raise Unsuitable("--milvus-uri and --knowledge-base go together")
    if not given.milvus_uri and (given.folder is None or not given.folder.is_dir()):
        raise Unsuitable("name a folder with documents, or an index that is there")
    return given


if __name__ == "__main__":
    sys.exit(report.run(main))
