"""Scores of several ways of searching as a table and as JSON. Knows numbers, not searches."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from stack.judging import Interval, Values, described_difference, interval

LEGS = ("dense", "bm25")
"""Modes that the others are compared with."""
COMPARED = "nDCG@10"


class Measured(NamedTuple):
    """One line of the table."""

    name: str
    mode: str
    chunk_size: int
    """In characters; 0 where an index was named that was there before."""
    candidates: int
    """Chunks that were looked at."""
    scores: dict[str, Values]
    """By the name of the metric."""
    milliseconds: float | None = None
    """Mean for one question."""

    def intervals(self) -> dict[str, Interval]:
        """The mean of each metric with its interval."""
        return {name: interval(values) for name, values in self.scores.items()}


def lines(measured: Sequence[Measured]) -> Iterator[str]:
    """A heading, and a line for each; what is beyond a leg of the same index is paired."""
    metrics = list(dict.fromkeys(name for row in measured for name in row.scores))
    names = titles(measured)
    width = max(map(len, names)) + 2
    heading = "".join(f"{metric:22}" for metric in metrics)
    yield f"{'':{width}}{heading}{'ms':>7}   {COMPARED} beyond"
    for name, row in zip(names, measured, strict=True):
        found = row.intervals()
        cells = "".join(
            f"{described(found[metric]) if metric in found else '-':22}" for metric in metrics
        )
        time = "-" if row.milliseconds is None else f"{row.milliseconds:.1f}"
        yield f"{name:{width}}{cells}{time:>7}   {'; '.join(_beyond(row, measured))}".rstrip()


def titles(measured: Sequence[Measured]) -> list[str]:
    """The name of each with what else tells it from the others."""
    has_sizes = len({row.chunk_size for row in measured}) > 1
    has_depths = len({row.candidates for row in measured}) > 1
    return [
        (f"{row.chunk_size}: " if has_sizes else "")
        + row.name
        + (f", {row.candidates} candidates" if has_depths else "")
        for row in measured
    ]


def as_json(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """The same lines, each metric as mean, low and high."""
    return [row._asdict() | {"scores": row.intervals()} for row in measured]


def described(found: Interval) -> str:
    """The mean and its interval: `0.6782 [0.631, 0.724]`."""
    return f"{found.mean:.4f} [{found.low:.3f}, {found.high:.3f}]"


def _beyond(row: Measured, measured: Sequence[Measured]) -> Iterator[str]:
    """What it has more than each leg of the same index, with as many candidates."""
    for leg in measured:
        alike = (leg.chunk_size, leg.candidates) == (row.chunk_size, row.candidates)
        if alike and leg.mode in LEGS and row.mode not in LEGS:
            first, other = leg.scores[COMPARED], row.scores[COMPARED]
            yield f"{leg.mode} {described_difference(first, other)}"
