"""A virtual environment in the checkout: made, filled from the pinned lists, reused."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from stack import ROOT
from stack.errors import InstallFailed
from stack.locks import sole_user
from stack.processes import clean_environment, run, tail
from stack.profiles import REQUIREMENTS
from stack.report import Step, say

_PROBE_PACKAGE = "typing-extensions"
_TORCH_FOR_CPUS = REQUIREMENTS / "torch-cpu.txt"
_LIBRARIES_OF_CUDA = REQUIREMENTS / "cuda.txt"
_PROFILE_LISTS = {"local.txt", "gpu.txt"}
_FETCHED = ("Collecting ", "Processing ", "Requirement already satisfied", "Ignoring ")


class Environment:
    """`.venv`, or another that holds what some of the list files in deploy/requirements say."""

    def __init__(self, folder: Path = ROOT / ".venv") -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        self._stamp = folder / "groundserve.json"

    def is_current(self, lists: Sequence[Path]) -> bool:
        """Whether it holds exactly what each of the list files says."""
        installed = self._installed()
        return all(installed.get(file.name) == _digest(file) for file in lists)

    def ensure(self, lists: Sequence[Path], log_dir: Path) -> None:
        """Bring it to what the list files say; at once when it is already there, minutes when not.

        Raises InstallFailed, with pip's own last error, and Unsuitable when another run is at it.
        """
        with sole_user(
            self.folder.parent, "another run is installing packages: wait until it is done"
        ):
            if self.is_current(lists):
                return
            installed = self._installed()
            # Both builds of vLLM install the same files: one must not overlay the other.
            other_profile = (installed.keys() & _PROFILE_LISTS) - {file.name for file in lists}
            if other_profile or not self._is_usable():
                self._create(log_dir / "venv.log")
                installed = {}
            self._stamp.unlink(missing_ok=True)
            self._check_index(lists, log_dir)
            self._prefer_torch_for_cpus(lists, log_dir / "pip.log")
            self._install(lists, log_dir / "pip.log")
            self._complete_torch(lists, log_dir)
            # Importable from any folder, and editable, without a build.
            (self._packages() / "groundserve.pth").write_text(f"{ROOT}\n")
            stamp = {
                "root": str(ROOT),
                "lists": installed | {file.name: _digest(file) for file in lists},
            }
            self._stamp.write_text(json.dumps(stamp, indent=2))

    def _installed(self) -> dict[str, str]:
        """List files with their digests; empty where it is missing, half made, or was moved."""
        try:
            stamp = json.loads(self._stamp.read_text())
            if stamp["root"] != str(ROOT) or not self.python.exists():
                return {}
            return {str(name): str(digest) for name, digest in stamp["lists"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def _is_usable(self) -> bool:
        """Whether it has a pip, and a Python that this project runs on."""
        check = "import sys, pip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))"
        try:
            found = subprocess.run([self.python, "-c", check], capture_output=True, check=False)
        except OSError:
            return False
        return found.returncode == 0

    def _create(self, log: Path) -> None:
        version = ".".join(str(part) for part in sys.version_info[:3])
        with Step(f"making {self.folder.name} with Python {version}"):
            if self.folder.exists():
                shutil.rmtree(self.folder)
            if run([sys.executable, "-m", "venv", str(self.folder)], log) != 0:
                raise InstallFailed(f"python -m venv failed: {tail(log, 1)}; full log: {log}")

    def _packages(self) -> Path:
        return next((self.folder / "lib").glob("python3.*/site-packages"))

    def _check_index(self, lists: Sequence[Path], log_dir: Path) -> None:
        """Fetch one small package with little patience: with no network pip retries for minutes."""
        pinned = [pin for file in lists for pin in _pins(file)]
        probe = [pin for pin in pinned if pin.startswith(f"{_PROBE_PACKAGE}==")]
        # Hashes can stand in files alone.
        file = log_dir / "probe.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text((probe or pinned)[0])
        with Step("asking pip's index for a package"):
            self._pip(["--retries", "1", "--timeout", "20", "-r", str(file)], log_dir / "pip.log")

    def _prefer_torch_for_cpus(self, lists: Sequence[Path], log: Path) -> None:
        """Install it ahead of lists that take either build, if pip's index has it at all."""
        [pin] = _pins(_TORCH_FOR_CPUS)
        if not any(_hashes(pin) <= _hashes(either) for file in lists for either in _pins(file)):
            return
        with Step("asking pip's index for torch's CPU build") as step:
            try:
                self._pip(["-r", str(_TORCH_FOR_CPUS)], log)
            except InstallFailed:
                step.outcome = "it has none"

    def _install(self, lists: Sequence[Path], log: Path) -> None:
        total = sum(len(_pins(file)) for file in lists)
        packages = self._packages()

        def progress() -> str:
            lines = log.read_text(errors="replace").splitlines() if log.exists() else []
            if any(line.startswith("Installing collected") for line in lines):
                done, verb = sum(1 for _ in packages.glob("*.dist-info")), "installed"
            else:
                done, verb = sum(line.startswith(_FETCHED) for line in lines), "fetched"
            return f"{min(done, total)} of {total} {verb}"

        say(f"pip writes its log to {log}")
        with Step(f"installing {total} packages into {self.folder.name}", progress):
            self._pip([part for file in lists for part in ("-r", str(file))], log)

    def _pip(self, arguments: list[str], log: Path) -> None:
        command = [
            str(self.python),
            "-m",
            "pip",
            "--no-input",
            "--disable-pip-version-check",
            "install",
            # Most of what is installed is never imported; Python compiles the rest as it goes. That
            # takes 144 s instead of 199 for all packages of the tests.
            "--no-compile",
            # The lists are complete, and what is not what they say is not installed.
            "--no-deps",
            "--require-hashes",
        ]
        # A user's PIP_USER or PIP_TARGET would send the packages somewhere else.
        strays = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX")
        environment = {
            name: value for name, value in clean_environment().items() if name not in strays
        }
        if run([*command, *arguments], log, environment) != 0:
            lines = log.read_text(errors="replace").splitlines()
            errors = [line for line in lines if line.startswith("ERROR:")]
            reason = errors[-1].removeprefix("ERROR:").strip() if errors else tail(log, 1)
            raise InstallFailed(
                f"pip could not install the packages: {reason}; check the network, the proxy, free "
                f"disk and pip's index settings (pip config list); full log: {log}"
            )

    def _complete_torch(self, lists: Sequence[Path], log_dir: Path) -> None:
        """Add what the CPU lists leave out where pip's index has only torch's CUDA build."""
        has_torch = any(pin.startswith("torch==") for file in lists for pin in _pins(file))
        if not has_torch or self._torch_loads(log_dir):
            return
        title = "adding CUDA's libraries: pip's index has no CPU build of torch, which needs none"
        with Step(title):
            self._pip(["-r", str(_LIBRARIES_OF_CUDA)], log_dir / "pip.log")
        if not self._torch_loads(log_dir):
            log = log_dir / "torch.log"
            raise InstallFailed(f"torch does not load: {tail(log, 1)}; full log: {log}")

    def _torch_loads(self, log_dir: Path) -> bool:
        return run([str(self.python), "-c", "import torch"], log_dir / "torch.log") == 0


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _pins(file: Path) -> list[str]:
    """Each package that the list pins, with the hashes that its files may have."""
    return re.findall(r"^[^#\s].*(?:\n[ \t].*)*", file.read_text(), re.MULTILINE)


def _hashes(pin: str) -> set[str]:
    return set(re.findall(r"--hash=(\S+)", pin))
