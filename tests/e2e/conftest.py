"""The whole stack as processes: real vLLM, Milvus Lite, a run of the indexer, the gateway."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import openai
import pytest
from stack import models, profiles, servers

ROOT = Path(__file__).parents[2]
KNOWLEDGE_BASE = "end_to_end"
VLLM_CONFIG = profiles.VLLM_CONFIGS / "smollm2-135m-cpu.yaml"


class Stack(NamedTuple):
    """Where the parts of a running stack are, and what vLLM was started with."""

    gateway_url: str
    vllm_url: str
    vllm: servers.Server
    vllm_port: int
    vllm_config: Path
    knowledge_base: str


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a fact that no model knows."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "lighthouse.md").write_text(
        "# The lighthouse of Port Vennel\n\n"
        "The lighthouse of Port Vennel was built in 1874 and is 43 metres high. "
        "Its lamp flashes every 12 seconds.\n"
    )
    (folder / "ferry.md").write_text(
        "# The ferry\n\nThe ferry to Port Vennel leaves at 07:15 and takes 50 minutes.\n"
    )
    return folder


@pytest.fixture(scope="session")
def stack(
    milvus_uri: str,
    encoder_folder: Path,
    documents: Path,
    free_port: Callable[[], int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    logs = tmp_path_factory.mktemp("logs")
    vllm_port, gateway_port = free_port(), free_port()
    environment = {
        "GROUNDSERVE_MILVUS_URI": milvus_uri,
        "GROUNDSERVE_ENCODER_MODEL": str(encoder_folder),
        "GROUNDSERVE_UPSTREAM_URL": f"http://127.0.0.1:{vllm_port}/v1",
        "GROUNDSERVE_KNOWLEDGE_BASE": KNOWLEDGE_BASE,
        "GROUNDSERVE_LIBRARY_URL": str(tmp_path_factory.mktemp("library")),
    }
    vllm = servers.vllm(vllm_port, VLLM_CONFIG, str(models.smollm2()), logs)
    vllm.environment = {**vllm.environment, "VLLM_ENABLE_RESPONSES_API_STORE": "1"}
    alone = {"GROUNDSERVE_ENCODER_THREADS": "1"}  # vLLM has the same cores
    gateway = servers.gateway(gateway_port, environment | alone, logs)
    watch = servers.watcher(environment | alone, logs)
    with vllm:
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
        with gateway, watch:
            gateway.wait_ready()
            yield Stack(
                f"http://127.0.0.1:{gateway_port}/v1",
                f"http://127.0.0.1:{vllm_port}/v1",
                vllm,
                vllm_port,
                VLLM_CONFIG,
                KNOWLEDGE_BASE,
            )


@pytest.fixture
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=stack.gateway_url, api_key="unused", max_retries=0) as client:
        yield client
