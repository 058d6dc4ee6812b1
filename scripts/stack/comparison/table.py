"""The result as a Markdown table, with what is needed to read it."""

import os
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version

from stack.comparison.environment import PINS
from stack.comparison.scenarios import SCENARIOS, Outcome
from stack.comparison.sides import LEASE_S

Outcomes = list[list[Outcome | None]]
"""For each scenario, for each side."""

_COLUMNS = ("seconds", "encoding", "embedded", "rows", "found in between", "right")
_NONE = "-"
_PIN = re.compile(r"^([\w.-]+)==([^\s;]+)", re.MULTILINE)


def merged(rounds: Sequence[Outcomes]) -> Outcomes:
    """Times as medians; what was wrong in one round is wrong; the rest is the last round's."""
    return [
        [_merged([outcomes[row][side] for outcomes in rounds]) for side in range(len(cells))]
        for row, cells in enumerate(rounds[-1])
    ]


def lines(names: Sequence[str], outcomes: Outcomes, documents: int, rounds: int) -> Iterator[str]:
    """A paragraph, the table, and notes. `outcomes` has a row for each scenario."""
    yield (
        f"{documents} documents, {os.cpu_count()} CPU cores, "
        f"{'one round' if rounds == 1 else f'medians of {rounds} rounds'}; {_versions()}."
    )
    yield ""
    yield _row(["", *(f"{name}: {column}" for name in names for column in _COLUMNS)])
    yield _row(["---"] * (1 + len(names) * len(_COLUMNS)))
    for scenario, cells in zip(SCENARIOS, outcomes, strict=True):
        yield _row([scenario.title, *(text for cell in cells for text in _cells(cell))])
    yield ""
    yield (
        "Seconds are those of the last run, without imports and the loading of the model; in "
        "brackets the whole process. Encoding is the part of them that the encoder takes. Embedded "
        "are the chunks that the last run encoded. Right is what a clean run of the same side "
        "makes of the same documents. A write is an insert, upsert or delete that Milvus has "
        "acknowledged. Found in between is what readers find after the kill and before the next "
        "run: documents, or which version of the changed one the searches find. After a kill the "
        f"next run of Groundserve waits for the lease, here {LEASE_S} s, which is not counted."
    )


def _merged(outcomes: Sequence[Outcome | None]) -> Outcome | None:
    there = [outcome for outcome in outcomes if outcome is not None]
    if not there:
        return None
    shown = next((outcome for outcome in there if outcome.wrong), there[-1])
    figures = [outcome.figures for outcome in there]
    medians = replace(
        shown.figures,
        seconds=statistics.median(one.seconds for one in figures),
        encoding_s=statistics.median(one.encoding_s for one in figures),
        process_seconds=statistics.median(one.process_seconds for one in figures),
    )
    return replace(shown, figures=medians)


def _cells(outcome: Outcome | None) -> list[str]:
    if outcome is None:
        return [_NONE] * len(_COLUMNS)
    figures = outcome.figures
    return [
        f"{figures.seconds:.1f} ({figures.process_seconds:.1f})",
        f"{figures.encoding_s:.1f}",
        str(figures.embedded),
        str(outcome.rows),
        outcome.meanwhile or _NONE,
        f"**no**: {outcome.wrong}" if outcome.wrong else "yes",
    ]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _versions() -> str:
    pins = dict(_PIN.findall(PINS.read_text()))
    ours = ("pymilvus", "milvus-lite", "sentence-transformers")
    theirs = ("langchain-core", "langchain-classic", "langchain-milvus")
    return ", ".join(
        [f"{name} {version(name)}" for name in ours] + [f"{name} {pins[name]}" for name in theirs]
    )
