"""The second half of scripts/test, run by `.venv`: checks of the code, then the tests."""

import os
import sys
from pathlib import Path

from stack import ROOT, models, report
from stack.errors import StackError
from stack.options import DEFAULT_STATE_DIR
from stack.processes import clean_environment, run
from stack.report import Step

_LOG_DIR = DEFAULT_STATE_DIR / "logs"
LEVELS = ("unit", "integration", "e2e")
LONG = "long"
"""Stands for the tests, of whatever level, that are run only when they are asked for."""
BANDIT = (
    *("bandit", "--quiet", "--recursive", "--configfile", "pyproject.toml"),
    *("gateway", "indexer", "scripts"),
)
_CHECKS = {
    "format": ("ruff", "format", "--check", "--quiet"),
    "lint": ("ruff", "check", "--quiet"),
    "types": ("mypy",),
    "weaknesses": BANDIT,
}


def main() -> int:
    """Run the checks, then become pytest; returns only by an exception. Raises StackError."""
    arguments = sys.argv[1:]
    chosen = [argument for argument in arguments[:1] if argument in (*LEVELS, LONG)]
    models.smollm2()
    failures = [failure for name, command in _CHECKS.items() if (failure := _check(name, command))]
    if failures:
        error = StackError(f"checks failed, so no test was run; their output: {_LOG_DIR}")
        error.detail = "\n".join(failures)
        raise error
    os.chdir(ROOT)
    tests = ["-m", LONG] if chosen == [LONG] else [f"tests/{level}" for level in chosen]
    pytest = [sys.executable, "-m", "pytest", *tests, *arguments[len(chosen) :]]
    os.execve(sys.executable, pytest, clean_environment())  # nosec B606  # the purpose


def _check(name: str, command: tuple[str, ...]) -> str:
    """Run one check over the checkout; what it complains about, or nothing."""
    log = _LOG_DIR / f"{name}.log"
    program = Path(sys.executable).with_name(command[0])
    with Step(f"checking {name} with {command[0]}") as step:
        code = run([str(program), *command[1:]], log, clean_environment(), ROOT)
        if code == 0:
            return ""
        step.outcome = "failed"
    return log.read_text(errors="replace") or f"{' '.join(command)} ended with exit code {code}"


if __name__ == "__main__":
    sys.exit(report.run(main))
