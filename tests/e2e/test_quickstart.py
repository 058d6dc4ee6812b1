"""scripts/quickstart as a person runs it, on ports and in a folder of its own."""

import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import openai
import pytest
from stack import models
from stack.options import DEFAULT_STATE_DIR

ROOT = Path(__file__).parents[2]
QUESTION = "How high is the lighthouse of Port Vennel?"


@pytest.fixture
def command(tmp_path: Path, documents: Path, free_port: Callable[[], int]) -> list[str]:
    """The command line; its state is empty but for the models."""
    models.smollm2()
    (tmp_path / "models").symlink_to(DEFAULT_STATE_DIR / "models")
    ports = [f"--{name}-port={free_port()}" for name in ("vllm", "milvus", "gateway")]
    return [
        str(ROOT / "scripts" / "quickstart"),
        *("--profile", "local", "--docs", str(documents), "--ask", QUESTION),
        *("--state-dir", str(tmp_path), *ports),
    ]


def _ports(command: list[str]) -> list[int]:
    return [int(argument.split("=")[1]) for argument in command if "-port=" in argument]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_it_answers_from_the_documents_and_leaves_nothing_running(
    command: list[str], tmp_path: Path
) -> None:
    ended = subprocess.run(
        [*command, "--exit"], capture_output=True, text=True, timeout=280, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "2 added" in ended.stdout
    answer = ended.stdout.split(f"Question: {QUESTION}")[1]
    assert "[1] The lighthouse of Port Vennel" in answer
    assert "/lighthouse.md" in answer
    for name in ("vllm", "milvus", "gateway"):
        assert (tmp_path / "logs" / f"{name}.log").stat().st_size > 0
        assert str(tmp_path / "logs" / f"{name}.log") in ended.stdout
    assert all(map(_is_free, _ports(command)))


@pytest.mark.long
def test_it_stays_up_until_it_is_interrupted(command: list[str]) -> None:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        killer = threading.Timer(280, process.kill)  # a test that hangs must end too
        killer.start()
        try:
            assert process.stdout is not None
            output = []
            for line in process.stdout:
                output.append(line)
                if line.startswith("Press Ctrl-C"):
                    break
            base_url = next(line for line in output if line.startswith("Base URL: ")).split()[-1]
            assert base_url == f"http://127.0.0.1:{_ports(command)[2]}/v1"
            ready = httpx.get(base_url.replace("/v1", "/health/ready"))
            assert ready.json() == {"status": "ready"}
            assert f"    curl {base_url}/chat/completions" in "".join(output)
            with openai.OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
                store = client.vector_stores.create(name="uploads")
                upload = ("pier.md", b"# The pier\n\nThe pier of Port Vennel is 212 metres long.\n")
                uploaded = client.vector_stores.files.upload_and_poll(
                    vector_store_id=store.id, file=upload
                )
                assert uploaded.status == "completed"
                [found] = client.vector_stores.search(store.id, query="How long is the pier?").data
            assert found.filename == "pier.md"
            process.send_signal(signal.SIGINT)
            process.stdout.read()
            assert process.wait(timeout=60) == 0
        finally:
            killer.cancel()
            process.kill()
    assert all(map(_is_free, _ports(command)))


def test_a_port_that_is_taken_is_told_before_anything_starts(command: list[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", _ports(command)[2]))
        taken.listen()
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert f"{_ports(command)[2]}" in ended.stderr
    assert "--gateway-port" in ended.stderr
