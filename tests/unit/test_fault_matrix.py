"""The page of faults is true: its tests exist, and what clients see is what the tests expect."""

import re
from pathlib import Path

from tests.integration.upstream_faults import FAULTS, Row

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "gateway" / "FAULTS.md").read_text()
ROW = re.compile(r"^\| ([^|]+?) \| ([^|]+?) \| ([^|]+?) \|$", re.MULTILINE)


def seen(expected: str | None) -> str:
    """How the page says what a test expects."""
    match (expected or "").split():
        case []:
            return "does not occur"
        case ["200", "whole"]:
            return "the whole answer"
        case [status, "None"]:
            return f"{status}, with vLLM's message"
        case ["event", code]:
            return f"an error event, `{code}`"
        case [status, code]:
            return f"{status} `{code}`"
    raise AssertionError(expected)


def told(row: Row) -> tuple[str, str]:
    return seen(row.whole), seen(row.stream)


def test_what_is_said_of_vllm_is_what_the_tests_expect() -> None:
    table = PAGE.split("| vLLM …")[1].split("\n\n")[0]
    listed = {name: (whole, stream) for name, whole, stream in ROW.findall(table)}

    expected = {name: told(row) for name, row in FAULTS.items() if name != "none"}
    assert {name: row for name, row in listed.items() if name in FAULTS} == expected


def test_every_test_that_is_named_exists() -> None:
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    named = set(re.findall(r"`(test_\w+)`", PAGE))

    assert len(named) > 40
    assert named <= defined
