"""A real stack of one's own whose parts are killed, stopped and started again.

Real vLLM, real Milvus Lite, a real gateway. Slow: no part of the tests that are run by default.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import openai
import pytest
from stack import models, profiles, servers

from tests.servers import kill, pause, resume, start_again, wait_until

ROOT = Path(__file__).parents[2]
KNOWLEDGE_BASE = "faults"
FACT = "1874"
"""What only the documents know."""
QUESTION = "When was the lighthouse of Port Vennel built?"
SILENCE_S = 15.0
"""Longest silence of vLLM that the gateway of these tests bears."""
MILVUS_TIMEOUT_S = 3.0


class Part:
    """A server of the stack, and what may happen to it."""

    def __init__(self, server: servers.Server) -> None:
        self.server = server

    def kill(self) -> None:
        """As the kernel does where memory ends."""
        kill(self.server)

    def pause(self) -> None:
        """It keeps its connections, and says nothing any more."""
        pause(self.server)

    def go_on(self) -> None:
        """After a pause."""
        resume(self.server)

    def start(self) -> float:
        """Start it again; the moment at which it was ready, on the monotonic clock."""
        return start_again(self.server)

    def mend(self) -> None:
        """Whatever was done to it, it runs again afterwards."""
        assert self.server.process is not None
        if self.server.process.poll() is None:
            self.go_on()
        else:
            self.start()


class Stack:
    """Where everything is."""

    def __init__(self, milvus: Part, vllm: Part, gateway: Part, port: int) -> None:
        self.milvus = milvus
        self.vllm = vllm
        self.gateway = gateway
        self.url = f"http://127.0.0.1:{port}"

    def client(self, timeout_s: float = 120) -> openai.OpenAI:
        """An SDK that hides nothing: it does not try again."""
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key="unused", max_retries=0, timeout=timeout_s
        )

    def missing(self) -> dict[str, str]:
        """What /health/ready says is not there."""
        answer = httpx.get(f"{self.url}/health/ready", timeout=30)
        found: dict[str, str] = answer.json().get("missing", {})
        return found

    def metric(self, name: str) -> float:
        """The sum of all samples with that name."""
        lines = httpx.get(f"{self.url}/metrics", timeout=30).text.splitlines()
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith((f"{name} ", f"{name}{{"))
        )

    def until_ready(self, timeout_s: float = 120) -> None:
        """Wait until nothing is missing."""
        wait_until(lambda: not self.missing(), timeout_s)


@pytest.fixture(scope="session")
def stack(
    encoder_folder: Path,
    free_port: Callable[[], int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("faults")
    documents, logs = folder / "docs", folder / "logs"
    documents.mkdir()
    (documents / "lighthouse.md").write_text(
        "# The lighthouse of Port Vennel\n\n"
        f"The lighthouse of Port Vennel was built in {FACT} and is 43 metres high.\n"
    )
    milvus_port, vllm_port, gateway_port = free_port(), free_port(), free_port()
    environment = {
        "GROUNDSERVE_OPEN_ACCESS": "true",
        "GROUNDSERVE_MILVUS_URI": f"http://127.0.0.1:{milvus_port}",
        "GROUNDSERVE_MILVUS_TIMEOUT_S": str(MILVUS_TIMEOUT_S),
        "GROUNDSERVE_ENCODER_MODEL": str(encoder_folder),
        "GROUNDSERVE_ENCODER_THREADS": "1",
        "GROUNDSERVE_UPSTREAM_URL": f"http://127.0.0.1:{vllm_port}/v1",
        "GROUNDSERVE_UPSTREAM_READ_TIMEOUT_S": str(SILENCE_S),
        "GROUNDSERVE_UPSTREAM_STALL_TIMEOUT_S": str(SILENCE_S),
        "GROUNDSERVE_KNOWLEDGE_BASE": KNOWLEDGE_BASE,
        "GROUNDSERVE_POLL_INTERVAL_S": "1",
    }
    vllm = servers.vllm(
        vllm_port,
        profiles.VLLM_CONFIGS / "smollm2-135m-cpu.yaml",
        str(models.smollm2()),
        logs,
    )
    milvus = servers.milvus(milvus_port, folder / "milvus", logs)
    gateway = servers.gateway(gateway_port, environment, logs)
    with vllm, milvus:
        milvus.wait_ready()
        indexed = subprocess.run(
            [sys.executable, "-m", "indexer", "run", str(documents)],
            env=os.environ | environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert indexed.returncode == 0, indexed.stderr
        vllm.wait_ready()
        with gateway:
            gateway.wait_ready()
            yield Stack(Part(milvus), Part(vllm), Part(gateway), gateway_port)


@pytest.fixture(autouse=True)
def _mended(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test finds everything running, and the gateway knowing it."""
    yield
    if "stack" in request.fixturenames:
        stack: Stack = request.getfixturevalue("stack")
        for part in (stack.milvus, stack.vllm, stack.gateway):
            part.mend()
        stack.until_ready()
