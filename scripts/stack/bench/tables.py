"""Results as a table and as a chart."""

import statistics
from collections.abc import Sequence

from stack.bench.scenarios import Measured, Result, medians
from stack.chart import svg
from stack.judging import Interval

_COLUMNS = {
    "answers/s": "rate",
    "CPU ms": "cpu_ms",
    "first p50": "first_p50",
    "first p99": "first_p99",
    "beyond": "beyond_p50",
    "total p50": "total_p50",
    "total p99": "total_p99",
    "gap p50": "gap_p50",
    "gap p99": "gap_p99",
    "gap max": "gap_max",
    "late p99": "lateness_p99",
    "MiB": "memory_mib",
    "wrong": "wrong",
}


def printed(found: Sequence[Measured]) -> str:
    """A table for each scenario; times in milliseconds."""
    lines: list[str] = []
    by_scenario = medians(found)
    for scenario, by_side in by_scenario.items():
        lines += ["", scenario, " " * 20 + "".join(f"{name:>11}" for name in _COLUMNS)]
        lines += [f"{side:20}" + _cells(result) for side, result in by_side.items()]
    return "\n".join(lines)


def plotted(found: Sequence[Measured]) -> str:
    """A chart of CPU time for an answer: that of the leanest side, as a share of each one's."""
    spent: dict[str, dict[str, list[float]]] = {}
    for each in found:
        if each.result.cpu_ms:
            by_side = spent.setdefault(each.scenario, {})
            by_side.setdefault(each.side, []).append(each.result.cpu_ms)
    bars: dict[str, Interval] = {}
    for scenario, by_side in spent.items():
        least = min(map(statistics.median, by_side.values()))
        for side, milliseconds in by_side.items():
            shares = [min(1.0, least / each) for each in milliseconds]
            name = f"{scenario.partition(',')[0]}: {side}"
            bars[name] = Interval(statistics.median(shares), min(shares), max(shares))
    return svg("CPU time of the leanest, as a share of what each takes for an answer", bars)


def _cells(result: Result) -> str:
    return "".join(f"{getattr(result, field):>11.4g}" for field in _COLUMNS.values())
