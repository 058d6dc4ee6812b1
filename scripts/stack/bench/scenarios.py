"""What is measured: how many clients ask for what, and how fast the answers come."""

import statistics
from collections.abc import Sequence
from typing import Any

import msgspec


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of load."""

    name: str
    clients: int
    """Requests at a time; each is followed by the next one at once, unless there is a rate."""
    stream: bool = True
    pace_ms: float = 0.0
    """Between two tokens; at 0 the stand-in for vLLM writes the whole stream at once."""
    pause_ms: float = 0.0
    """What each client waits between an answer and its next request."""
    rate: float = 0.0
    """Requests a second at random moments (a Poisson process), whether or not others are answered.
    """
    share: float = 0.0
    """The rate, as a share of what the same side answered to AT_ONCE in the same round; for sides
    that search, whose streams are far fewer."""
    seconds: float = 4.0


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """A scenario for one server: what the process that makes the load is told."""

    scenario: Scenario
    port: int
    pid: int | None
    """Whose CPU time is counted, with all its descendants; None counts nobody's."""
    extra: dict[str, Any] = {}
    """Further fields of each request."""
    questions: list[str]
    begin: int = 0
    """Which of them comes first: what was asked a short while ago may be remembered."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. Times in milliseconds."""

    requests: int
    rate: float
    """Answers a second."""
    cpu_ms: float
    """Of the server, for each answer."""
    total_p50: float
    total_p99: float
    first_p50: float
    """Until the first token is there."""
    first_p99: float
    beyond_p50: float
    """The same beyond what embedding and searching took, as the server's own header tells."""
    gap_p50: float
    """Of the longest waits between two pieces of a stream: the middle one."""
    gap_p99: float
    gap_max: float
    lateness_p99: float
    """How much later than it should the load itself did what was due."""
    memory_mib: float
    """Resident memory of the server at the end, with all its descendants."""
    wrong: int
    """Answers that were not right; they are counted nowhere else."""
    first_wrong: str = ""


ONE = Scenario(name="one client, stream", clients=1)
PAUSING = Scenario(
    name="one client that pauses, 30 ms, paced stream", clients=1, pause_ms=30.0, pace_ms=2.0
)
"""As long as a search takes: what has to wake up first is slower than what never sleeps."""
AT_ONCE = Scenario(name="streams at once, 64 clients", clients=64)
HALF = Scenario(
    name="random moments, 45 % of that, paced streams", clients=256, pace_ms=20.0, share=0.45
)
PACED = Scenario(name="paced streams, 64 clients", clients=64, pace_ms=20.0)
PLAIN = Scenario(name="plain, 16 clients", clients=16, stream=False)
ALL = [ONE, PAUSING, AT_ONCE, HALF, PACED, PLAIN]


class Measured(msgspec.Struct, frozen=True):
    """One scenario for one side in one round."""

    scenario: str
    side: str
    result: Result


def medians(found: Sequence[Measured]) -> dict[str, dict[str, Result]]:
    """By scenario and side: the median of each figure over the rounds; wrong answers in all."""
    by_place: dict[tuple[str, str], list[Result]] = {}
    for each in found:
        by_place.setdefault((each.scenario, each.side), []).append(each.result)
    table: dict[str, dict[str, Result]] = {}
    for (scenario, side), results in by_place.items():
        table.setdefault(scenario, {})[side] = _median(results)
    return table


def _median(results: Sequence[Result]) -> Result:
    numbers = [name for name in Result.__struct_fields__ if name != "first_wrong"]
    middle = {
        name: statistics.median(getattr(result, name) for result in results) for name in numbers
    }
    wrong = [result for result in results if result.wrong]
    middle["wrong"] = sum(result.wrong for result in wrong)
    return Result(**middle, first_wrong=wrong[0].first_wrong if wrong else "")
