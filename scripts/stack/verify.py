"""The second half of scripts/test, run by `.venv`: checks of the code, then the tests.

Two processes run the tests: one has vLLM and, later, the unit tests, the other what needs Milvus.
What takes long is run by one, as its parts have the machine to themselves.
"""

import os
import subprocess
import sys
from pathlib import Path

from stack import ROOT, models, report
from stack.errors import StackError
from stack.options import DEFAULT_STATE_DIR
from stack.processes import clean_environment, start, stop_groups
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


IN_TWO_PROCESSES = ("--numprocesses=2", "--dist=loadscope", "--no-loadscope-reorder")


def main() -> int:
    """Run the checks, then become pytest; returns only by an exception. Raises StackError."""
    arguments = sys.argv[1:]
    chosen = [argument for argument in arguments[:1] if argument in (*LEVELS, LONG)]
    if failures := _complaints():
        error = StackError(f"checks failed, so no test was run; their output: {_LOG_DIR}")
        error.detail = "\n".join(failures)
        raise error
    os.chdir(ROOT)
    tests = [*IN_TWO_PROCESSES, *(f"tests/{level}" for level in chosen)]
    if chosen == [LONG]:
        tests = ["-m", LONG]
    pytest = [sys.executable, "-m", "pytest", *tests, *arguments[len(chosen) :]]
    os.execve(sys.executable, pytest, clean_environment())  # nosec B606  # the purpose


def _complaints() -> list[str]:
    """What the checks of the checkout say, while the model for the tests is made."""
    checks = {name: _started(name, command) for name, command in _CHECKS.items()}
    try:
        models.smollm2()
        return [said for name, process in checks.items() if (said := _complaint(name, process))]
    finally:
        stop_groups({each: 5.0 for each in checks.values() if each.returncode is None})


def _started(name: str, command: tuple[str, ...]) -> subprocess.Popen[bytes]:
    program = Path(sys.executable).with_name(command[0])
    return start([str(program), *command[1:]], _log(name), clean_environment(), ROOT)


def _complaint(name: str, process: subprocess.Popen[bytes]) -> str:
    """What one check complains about when it has ended, or nothing."""
    command = _CHECKS[name]
    with Step(f"checking {name} with {command[0]}") as step:
        if process.wait() == 0:
            return ""
        step.outcome = "failed"
    return (
        _log(name).read_text(errors="replace")
        or f"{' '.join(command)} ended with exit code {process.returncode}"
    )


def _log(name: str) -> Path:
    return _LOG_DIR / f"{name}.log"


if __name__ == "__main__":
    sys.exit(report.run(main))
