"""Groundserve's indexer beside LangChain's indexing API, on the same documents, encoder and Milvus.

Each side gets a Milvus Lite server of its own, one at a time. Each run is a process of its own, so
that SIGKILL is real. LangChain and what it needs is installed into .groundserve/langchain.
"""

import argparse
import logging
import sys
import tempfile
from pathlib import Path

from stack import report
from stack.comparison import corpus, environment, table
from stack.comparison.bench import NOTHING_DONE, Bench, RunFailed
from stack.comparison.scenarios import SCENARIOS, Outcome, Trial
from stack.comparison.sides import Groundserve, LangChain, Side
from stack.models import minilm
from stack.processes import keep_loopback_direct


def main() -> int:
    """Print the table on stdout, progress on stderr."""
    given = _parser().parse_args()
    keep_loopback_direct()
    # Milvus Lite keeps no snapshots for iterators, and pymilvus warns of it each time.
    logging.getLogger("pymilvus").setLevel(logging.ERROR)
    _tell("preparing LangChain's environment")
    python, encoder = environment.ensure(), str(minilm())
    sides: list[Side] = [Groundserve(Path(sys.executable), encoder), LangChain(python, encoder)]
    with tempfile.TemporaryDirectory(prefix="compare-langchain-") as name:
        folder = Path(name)
        documents = corpus.prepare(given.documents.absolute(), folder / "corpus", given.limit)
        trials = [Trial(Bench(side, folder / side.name), documents) for side in sides]
        for side, trial in zip(sides, trials, strict=True):
            _tell(f"{side.name}: what clean runs make")
            trial.learn()
        names = [side.name for side in sides]
        rounds = [_round(names, trials, number + 1) for number in range(given.rounds)]
        count = len(documents.paths())
    report.say("\n".join(table.lines(names, table.merged(rounds), count, given.rounds)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/compare-langchain",
        description="Indexes the same documents with Groundserve and with LangChain's indexing API "
        "(SQLRecordManager, Milvus, cleanup='full'), with the same encoder: first run, unchanged, "
        "changed, removed, renamed, killed, stores lost. Prints a Markdown table: seconds without "
        "imports and model loading, chunks embedded, rows in Milvus, and whether they are those of "
        "a clean run.",
    )
    parser.add_argument(
        "documents",
        type=Path,
        metavar="FOLDER",
        help=f"folder with documents ({', '.join(corpus.SUFFIXES)}), or a JSONL file with _id, "
        "title and text in each line; nothing is written to it",
    )
    parser.add_argument(
        "--limit", type=_positive, metavar="N", help="only the first N documents (default: all)"
    )
    parser.add_argument(
        "--rounds",
        type=_positive,
        default=1,
        metavar="N",
        help="how often to run each scenario; times are medians (default: 1)",
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _round(names: list[str], trials: list[Trial], number: int) -> table.Outcomes:
    outcomes: table.Outcomes = []
    for scenario in SCENARIOS:
        row: list[Outcome | None] = []
        # One side right after the other, so that a busy machine slows both.
        for name, trial in zip(names, trials, strict=True):
            _tell(f"round {number}, {name}: {scenario.title}")
            try:
                row.append(scenario.play(trial))
            except RunFailed as failure:
                _tell(f"{failure}\n{failure.detail}")
                row.append(Outcome(NOTHING_DONE, 0, str(failure)))
        outcomes.append(row)
    return outcomes


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(report.run(main))
