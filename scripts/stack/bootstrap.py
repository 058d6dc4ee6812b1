"""The first half of scripts/quickstart and scripts/test: checks the machine and makes `.venv`.

Runs with whatever Python 3.11 to 3.14 the machine has, and the standard library alone.
"""

import os
import sys
from pathlib import Path

from stack import ROOT, checks, hub, options, report
from stack.environment import Environment
from stack.errors import Unsuitable
from stack.interrupts import interrupts
from stack.options import DEFAULT_STATE_DIR, Options
from stack.profiles import LOCAL, REQUIREMENTS, Profile, gpu_memory_gib
from stack.report import Step


def main() -> int:
    """Prepare, then become the second half; returns only by an exception."""
    if len(sys.argv) < 2 or sys.argv[1] not in ("quickstart", "test"):
        raise Unsuitable("run scripts/quickstart or scripts/test, not this module")
    arguments = sys.argv[2:]
    if sys.argv[1] == "quickstart":
        given = options.parse(arguments)
        _prepare_quickstart(given)
        _hand_over("stack.quickstart", [*arguments, f"--started={given.started}"])
    lists = (LOCAL.requirements, REQUIREMENTS / "dev.txt")
    _check_machine(LOCAL, lists, DEFAULT_STATE_DIR)
    Environment().ensure(lists, DEFAULT_STATE_DIR / "logs")
    _hand_over("stack.verify", arguments)
    return 1


def _prepare_quickstart(given: Options) -> None:
    lists = (given.profile.requirements,)
    with Step(f"checking this machine for profile {given.profile.name}"):
        checks.documents(given.docs)
        checks.ports(given.ports.by_flag())
        checks.gpu(given.profile, gpu_memory_gib() if given.profile.gpu_memory_gib else 0.0)
        _check_machine(given.profile, lists, given.state_dir)
    if given.profile.from_hub:
        with Step("asking the model hub for access"):
            hub.check_access(given.profile.chat_model)
            hub.check_access(given.profile.encoder_model)
    Environment().ensure(lists, given.log_dir)


def _check_machine(profile: Profile, lists: tuple[Path, ...], state_dir: Path) -> None:
    checks.system()
    checks.virtual_environments()
    checks.cpu(profile)
    checks.memory(profile, checks.available_memory_bytes())
    installed = Environment().is_current(lists)
    checks.disk(ROOT, checks.disk_for(profile, installed))
    checks.writable(state_dir)


def _hand_over(module: str, arguments: list[str]) -> None:
    """Become `module`, run by the Python of `.venv`, in the same process."""
    sys.stdout.flush()
    python = str(Environment().python)
    # No moment in between at which Ctrl-C would end the program with a traceback.
    interrupts.block()
    variables = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    os.execve(python, [python, "-m", module, *arguments], variables)  # nosec B606  # the purpose


if __name__ == "__main__":
    sys.exit(report.run(main))
