"""What the gateway adds to vLLM, beside a bare relay, a tutorial's version and other programs.

Everything is measured within one run, in turns, round by round; medians are shown. The server that
is measured has a core to itself; the stand-in for vLLM, Milvus and the load share the other one.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from stack import report
from stack.bench import guard, scenarios, sides, stage, tables
from stack.bench.scenarios import Load, Measured, Result, Scenario
from stack.bench.sides import Side
from stack.errors import StackError
from stack.processes import clean_environment


def main() -> int:
    """Measure, print the table, write what was asked for; 1 where the guard finds something."""
    given = _arguments()
    chosen = [
        msgspec.structs.replace(each, seconds=given.seconds)
        for each in scenarios.ALL
        if given.only in each.name
    ]
    with stage.up(
        retrieval=not given.without_retrieval,
        baseline=not given.without_tutorial,
        peers=given.peer,
    ) as up:
        found: list[Measured] = []
        alone: list[dict[str, float]] = []
        for number in range(given.rounds):
            found += _round(number, chosen, up)
            alone.append(up.searches_alone(given.seconds))
    searches = {mode: statistics.median(each[mode] for each in alone) for mode in alone[0]}
    report.say(tables.printed(found))
    for mode, rate in searches.items():
        report.say(f"Milvus alone, {mode}: {rate:.0f} searches a second")
    if given.json:
        given.json.write_bytes(
            msgspec.json.format(msgspec.json.encode({"rounds": found, "searches": searches}))
        )
    if given.plot:
        given.plot.write_text(tables.plotted(found))
    return guard.judged(found, searches) if given.check else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each measurement")
    parser.add_argument("--only", default="", help="scenarios whose name contains this")
    parser.add_argument("--without-retrieval", action="store_true", help="measure the relay alone")
    parser.add_argument("--without-tutorial", action="store_true")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="another program; {port} and {upstream} in its command are filled in",
    )
    parser.add_argument("--json", type=Path, help="write every result there")
    parser.add_argument("--plot", type=Path, help="write a chart there, as SVG")
    parser.add_argument("--check", action="store_true", help="fail where a ratio is too high")
    return parser.parse_args()


def _round(number: int, chosen: Sequence[Scenario], up: stage.Stage) -> list[Measured]:
    """Each scenario for each side once; which side begins changes from round to round."""
    turn = number % len(up.sides)
    found: list[Measured] = []
    for scenario in chosen:
        sides.pace(up.upstream_port, scenario.pace_ms)
        for side in [*up.sides[turn:], *up.sides[:turn]]:
            if scenario.share and not side.searches:
                continue
            rate = scenario.share * _rate_at_once(found, side)
            load = msgspec.structs.replace(scenario, rate=rate)
            result = _loaded(load, side, up.questions)
            found.append(Measured(scenario.name, side.name, result))
    return found


def _rate_at_once(found: Sequence[Measured], side: Side) -> float:
    return next(
        (
            each.result.rate
            for each in found
            if (each.scenario, each.side) == (scenarios.AT_ONCE.name, side.name)
        ),
        1.0,
    )


def _loaded(scenario: Scenario, side: Side, questions: list[str]) -> Result:
    load = Load(
        scenario=scenario,
        port=side.port,
        pid=side.pid,
        extra=side.extra,
        questions=questions,
        begin=random.randrange(len(questions)),  # nosec B311  # no secret
    )
    with report.Step(f"{scenario.name}: {side.name}") as step:
        process = subprocess.Popen(
            [sys.executable, "-m", "stack.bench.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=clean_environment({"PYTHONPATH": os.pathsep.join(sys.path)}),
        )
        os.sched_setaffinity(process.pid, sides.OTHERS)
        said, _ = process.communicate(msgspec.json.encode(load))
        if process.returncode:
            raise StackError("the process that makes the load failed: what it wrote is above")
        result = msgspec.json.decode(said, type=Result)
        step.outcome = f"{result.rate:.0f}/s, {result.cpu_ms:.2f} ms of CPU each"
    if result.wrong:
        report.say(f"  {result.wrong} answers were wrong, as this one: {result.first_wrong}")
    return result


if __name__ == "__main__":
    sys.exit(report.run(main))
