"""Judges a benchmark by ratios within it, so that the machine does not matter."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from stack import report
from stack.bench import scenarios
from stack.bench.scenarios import Measured, Result, Scenario, medians

_Table = Mapping[str, Mapping[str, Result]]


class Limit(msgspec.Struct, frozen=True):
    """Something that must not grow."""

    what: str
    found: float
    most: float

    @property
    def holds(self) -> bool:
        """Whether it is kept."""
        return self.found <= self.most


def judged(found: Sequence[Measured], searches: Mapping[str, float]) -> int:
    """0 where every limit is kept that this run can tell of; 1, and each in a line, where not."""
    wrong = sum(each.result.wrong for each in found)
    limits = [*_limits(medians(found), searches), Limit("wrong answers", wrong, 0)]
    report.say()
    for limit in limits:
        verdict = "holds" if limit.holds else "BROKEN"
        report.say(f"{verdict:8}{limit.what}: {limit.found:.2f}, at most {limit.most:g}")
    return 0 if len(limits) > 1 and all(limit.holds for limit in limits) else 1


def _limits(table: _Table, searches: Mapping[str, float]) -> Iterator[Limit]:
    for scenario, field, most in (
        (scenarios.ONE, "first_p50", 10.0),
        (scenarios.AT_ONCE, "cpu_ms", 10.0),
        (scenarios.PACED, "cpu_ms", 2.0),
        (scenarios.PLAIN, "cpu_ms", 10.0),
    ):
        if both := _both(table, scenario, "gateway", "raw relay"):
            ours, least = (getattr(each, field) for each in both)
            name = "CPU" if field == "cpu_ms" else "first token"
            yield Limit(f"{scenario.name}: {name}, times the bare relay's", ours / least, most)
    if both := _both(table, scenarios.AT_ONCE, "gateway, dense", "tutorial, dense"):
        ours, theirs = both
        what = f"{scenarios.AT_ONCE.name}, dense: "
        yield Limit(f"{what}CPU, times the tutorial's", ours.cpu_ms / theirs.cpu_ms, 1 / 3)
        wanted = min(4 * theirs.rate, 0.9 * searches["dense"])
        what += "four times the tutorial's rate, or nine tenths of Milvus', times ours"
        yield Limit(what, wanted / ours.rate, 1.0)
    for mode in ("dense", "hybrid"):
        if both := _both(table, scenarios.HALF, f"gateway, {mode}", f"gateway, {mode}"):
            what = f"{scenarios.HALF.name}, {mode}: p99, times p50"
            yield Limit(what, both[0].total_p99 / both[0].total_p50, 1.5)
        if both := _both(table, scenarios.ONE, f"gateway, {mode}", "stand-in"):
            what = (
                f"{scenarios.ONE.name}, {mode}: first token, milliseconds beyond embed and search"
            )
            yield Limit(what, both[0].beyond_p50 - both[1].first_p50, 3.5)
        if both := _both(table, scenarios.PACED, f"gateway, {mode}", "stand-in"):
            what = f"{scenarios.PACED.name}, {mode}: longest gap, milliseconds more than upstream's"
            yield Limit(what, both[0].gap_max - both[1].gap_max, 20.0)


def _both(table: _Table, scenario: Scenario, one: str, other: str) -> tuple[Result, Result] | None:
    by_side = table.get(scenario.name, {})
    return (by_side[one], by_side[other]) if {one, other} <= by_side.keys() else None
