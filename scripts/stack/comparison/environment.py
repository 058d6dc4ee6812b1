"""LangChain's environment: `.groundserve/langchain`, which sees the packages of `.venv` as well.

So both sides run the same torch, the same sentence-transformers and the same pymilvus, and none of
LangChain's own packages gets into the pinned lists.
"""

import hashlib
import shutil
import sys
import sysconfig
from pathlib import Path

from stack.errors import InstallFailed
from stack.locks import sole_user
from stack.options import DEFAULT_STATE_DIR
from stack.processes import clean_environment, run, tail
from stack.profiles import REQUIREMENTS

PINS = REQUIREMENTS / "langchain.txt"


def ensure(folder: Path = DEFAULT_STATE_DIR / "langchain", pins: Path = PINS) -> Path:
    """Its Python, at once when it is already there, after some seconds of pip when not.

    Raises InstallFailed, and Unsuitable when another run is at it.
    """
    python, stamp = folder / "bin" / "python", folder / "groundserve.txt"
    below = sysconfig.get_path("purelib")
    wanted = hashlib.sha256(f"{below}\n{pins.read_text()}".encode()).hexdigest()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with sole_user(folder.parent, "another run is at .groundserve: wait until it is done"):
        if stamp.exists() and stamp.read_text() == wanted and python.exists():
            return python
        shutil.rmtree(folder, ignore_errors=True)
        log = folder.parent / "logs" / "langchain.log"
        if run([sys.executable, "-m", "venv", str(folder)], log) != 0:
            raise InstallFailed(f"python -m venv failed: {tail(log, 1)}; full log: {log}")
        packages = next((folder / "lib").glob("python3.*/site-packages"))
        # addsitedir reads the .pth files there too; LangChain's own packages come first.
        (packages / "below.pth").write_text(f"import site; site.addsitedir({below!r})\n")
        _install(python, pins, log)
        stamp.write_text(wanted)
    return python


def _install(python: Path, pins: Path, log: Path) -> None:
    # A user's PIP_USER or PIP_TARGET would send the packages somewhere else.
    strays = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX")
    environment = {name: value for name, value in clean_environment().items() if name not in strays}
    # Without dependencies: a second torch, or another pymilvus, would make the sides unequal.
    command = [str(python), "-m", "pip", "--no-input", "--disable-pip-version-check", "install"]
    command += ["--no-deps", "--require-hashes", "-r", str(pins)]
    if run(command, log, environment) != 0:
        raise InstallFailed(
            f"pip could not install LangChain: {tail(log, 1)}; check the network and pip's index "
            f"settings (pip config list); full log: {log}"
        )
