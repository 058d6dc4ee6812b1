"""A gateway with two workers: one encoder for both, and what happens when processes die."""

import json
import os
import signal
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from stack import servers

from indexer.index.settings import IndexSettings
from tests.integration import fake_vllm
from tests.integration.conftest import RunIndexer

QUESTION = "What do llamas eat?"
RECOVERY_S = 60.0


class Gateway:
    """One that runs, as a client and the machine see it."""

    def __init__(self, server: servers.Server, port: int, folder: Path) -> None:
        self.server = server
        self.url = f"http://127.0.0.1:{port}"
        self.folder = folder
        """Where it makes its private one."""

    @property
    def pid(self) -> int:
        assert self.server.process is not None
        return self.server.process.pid

    def asked(self) -> tuple[int, str]:
        """Status of a chat, and the title of what was found or the code of the error."""
        body = {"model": "default", "messages": [{"role": "user", "content": QUESTION}]}
        request = urllib.request.Request(
            f"{self.url}/v1/chat/completions",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                [choice] = json.load(response)["choices"]
                return 200, choice["message"]["context"]["citations"][0]["title"]
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, json.load(exc)["error"]["code"]
        except OSError:
            return 0, "refused"

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=30) as response:
            return str(response.read().decode())

    def processes(self) -> dict[str, list[int]]:
        """Ids of its children that have torch, and of those that answer requests."""
        found: dict[str, list[int]] = {"encoder": [], "workers": []}
        for pid in children(self.pid):
            maps = Path(f"/proc/{pid}/maps").read_text()
            if "libtorch" in maps:
                found["encoder"].append(pid)
            elif "grpc" in maps:
                found["workers"].append(pid)
        return found

    def answers_again(self) -> None:
        """Wait until both workers and the encoder are there, and questions are answered."""
        ends = time.monotonic() + RECOVERY_S
        while list(map(len, self.processes().values())) != [1, 2] or {
            self.asked() for _ in range(8)
        } != {(200, "Llamas")}:
            assert time.monotonic() < ends
            time.sleep(0.2)


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(each) for each in listed.split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int]) -> bool:
    ends = time.monotonic() + 20
    while any(map(is_running, pids)):
        if time.monotonic() > ends:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def starting(
    documents: Path,
    run_indexer: RunIndexer,
    index_settings: IndexSettings,
    free_port: Callable[[], int],
    tmp_path: Path,
) -> Iterator[Callable[[], Any]]:
    run_indexer(documents)

    @contextmanager
    def start() -> Iterator[Gateway]:
        port = free_port()
        environment = {
            "GROUNDSERVE_WORKERS": "2",
            "GROUNDSERVE_MILVUS_URI": index_settings.milvus_uri,
            "GROUNDSERVE_ENCODER_MODEL": index_settings.encoder_model,
            "GROUNDSERVE_ENCODER_THREADS": "1",
            "GROUNDSERVE_KNOWLEDGE_BASE": index_settings.knowledge_base,
            "GROUNDSERVE_UPSTREAM_URL": upstream_url,
            "GROUNDSERVE_POLL_INTERVAL_S": "0.2",
            "TMPDIR": folder,
        }
        with servers.gateway(port, environment, tmp_path / "logs") as server:
            server.wait_ready()
            gateway = Gateway(server, port, Path(folder))
            gateway.answers_again()
            yield gateway

    # Not in tmp_path, which may be too long for a socket.
    with fake_vllm.serving() as upstream_url, tempfile.TemporaryDirectory() as folder:
        yield start


def counted(metrics: str) -> float:
    name = 'groundserve_stage_seconds_count{stage="search"} '
    [line] = [line for line in metrics.splitlines() if line.startswith(name)]
    return float(line.removeprefix(name))


def test_workers_share_an_encoder_come_back_when_they_die_and_leave_nothing(
    starting: Callable[[], Any],
) -> None:
    with starting() as gateway:
        before = counted(gateway.get("/metrics"))
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: gateway.asked(), range(40)))
        assert set(answers) == {(200, "Llamas")}
        assert {counted(gateway.get("/metrics")) for _ in range(6)} == {before + 40}
        [private] = gateway.folder.iterdir()
        assert private.stat().st_mode & 0o777 == 0o700
        # One file for each of them that has answered.
        assert len(list(private.glob("histogram_*.db"))) == 2

        first = gateway.processes()
        os.kill(first["encoder"][0], signal.SIGKILL)
        os.kill(first["workers"][0], signal.SIGKILL)
        while (answer := gateway.asked()) == (200, "Llamas"):
            pass
        assert answer in {(503, "encoder_unavailable"), (0, "refused")}
        gateway.answers_again()
        second = gateway.processes()
        assert second["encoder"] != first["encoder"]
        assert len(set(second["workers"]) & set(first["workers"])) == 1
        assert counted(gateway.get("/metrics")) > before + 40

        running = children(gateway.pid)
        gateway.server.process.terminate()
        assert gateway.server.process.wait(timeout=20) == 0
        assert gone(running)
        assert list(gateway.folder.iterdir()) == []


def test_nothing_outlives_a_gateway_that_is_killed(starting: Callable[[], Any]) -> None:
    with starting() as gateway:
        running = children(gateway.pid)
        assert len(running) >= 3
        gateway.server.process.kill()

        assert gone(running)
        assert list(gateway.folder.iterdir()) == []


@pytest.mark.long
def test_a_worker_that_is_stopped_does_not_keep_a_gateway_from_ending(
    starting: Callable[[], Any],
) -> None:
    with starting() as gateway:
        running = children(gateway.pid)
        os.kill(gateway.processes()["workers"][0], signal.SIGSTOP)
        for _ in range(2):
            gateway.server.process.terminate()
            time.sleep(0.5)

        # With the time that a supervisor needs to see that a worker hangs.
        assert gateway.server.process.wait(timeout=60) == 128 + signal.SIGTERM
        assert gone(running)
        assert list(gateway.folder.iterdir()) == []
