"""Keys of a gateway that runs: made, revoked and broken while two workers answer."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import psutil
import pytest
from stack import servers

from tests.integration import fake_vllm

ROOT = Path(__file__).parents[2]
BUSY_S = 60.0
"""Every worker has looked at the file by then, on a machine that has other work; it does each
second."""
ASKED = 24
"""So many connections reach both workers."""
KEPT = "those keys are let in that were there before"
MISSING = "is not there: `python -m gateway keys make"


class Gateway:
    """One that runs, and the file with its keys."""

    def __init__(self, server: servers.Server, port: int, file: Path) -> None:
        self.file = file
        self.url = f"http://127.0.0.1:{port}/v1"
        self._server = server

    def workers(self) -> list[psutil.Process]:
        """The processes that answer, or are about to."""
        assert self._server.process is not None
        started = psutil.Process(self._server.process.pid).children()
        return [each for each in started if "spawn_main" in str(each.cmdline())]

    def keys(self, *arguments: str) -> str:
        """What `python -m gateway keys` prints."""
        command = [sys.executable, "-m", "gateway", "keys", *arguments]
        done = subprocess.run(
            [*command, "--api-keys-file", str(self.file)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        return done.stdout.strip()

    def lets_in(self, key: str) -> set[bool]:
        """What became of many requests with `key`, each on a connection of its own."""
        return {self._lets_in(key) for _ in range(ASKED)}

    def _lets_in(self, key: str) -> bool:
        request = urllib.request.Request(
            f"{self.url}/models", headers={"authorization": f"Bearer {key}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return bool(json.load(answer)["data"][-1]["id"] == "default")
        except urllib.error.HTTPError as exc:
            with exc:
                if json.load(exc)["error"]["code"] != "invalid_api_key":
                    raise
                return False

    def comes_to(self, expected: bool, key: str) -> bool:
        """Whether every worker does with `key` what is expected, soon."""
        ends = time.monotonic() + BUSY_S
        while time.monotonic() < ends:
            if self.lets_in(key) == {expected}:
                return True
        return False

    def comes_to_log(self, words: str, times: int = 1) -> bool:
        """Whether the log has these words so often, soon."""
        ends = time.monotonic() + BUSY_S
        while self.logged(words) < times:
            if time.monotonic() > ends:
                return False
            time.sleep(0.1)
        return True

    def logged(self, words: str) -> int:
        """Lines of the log that have these words."""
        return sum(words in line for line in self._server.log.read_text().splitlines())


@pytest.fixture
def gateway(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Gateway]:
    port = free_port()
    file = tmp_path / "keys.json"
    file.write_text('{"keys": []}')
    with fake_vllm.serving() as upstream_url:
        environment = {
            "GROUNDSERVE_OPEN_ACCESS": "",
            "GROUNDSERVE_API_KEYS_FILE": str(file),
            "GROUNDSERVE_WORKERS": "2",
            "GROUNDSERVE_UPSTREAM_URL": upstream_url,
            # Neither is asked for what is tried here.
            "GROUNDSERVE_ENCODER_URL": "http://127.0.0.1:1/v1",
            "GROUNDSERVE_MILVUS_URI": "http://127.0.0.1:1",
        }
        server = servers.gateway(port, environment, tmp_path)
        server.probe = servers.http_probe(f"http://127.0.0.1:{port}/health/live")
        with server:
            server.wait_ready()
            yield Gateway(server, port, file)


def test_keys_are_made_revoked_and_kept_while_the_gateway_runs(gateway: Gateway) -> None:
    with (
        openai.OpenAI(base_url=gateway.url, api_key="none", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match="Incorrect API key"),
    ):
        client.models.list()

    alice = gateway.keys("make", "--name", "alice")
    bob = gateway.keys("make", "--name", "bob")
    assert gateway.comes_to(True, alice)
    assert gateway.comes_to(True, bob)

    good = gateway.file.read_bytes()
    gateway.file.write_bytes(good[:-20])
    assert gateway.comes_to_log(KEPT, times=2)
    assert gateway.lets_in(alice) == {True}
    assert gateway.logged(KEPT) == 2

    gateway.file.write_bytes(good)
    gateway.keys("revoke", "alice")
    assert gateway.comes_to(False, alice)
    assert gateway.lets_in(bob) == {True}

    gateway.file.unlink()
    assert gateway.comes_to_log(MISSING, times=2)
    assert gateway.lets_in(bob) == {True}
    assert gateway.logged(MISSING) == 2
    assert gateway.logged("gs-") == 0


def test_a_worker_that_finds_its_keys_broken_leaves_the_work_to_the_others(
    gateway: Gateway,
) -> None:
    alice = gateway.keys("make", "--name", "alice")
    assert gateway.comes_to(True, alice)
    good = gateway.file.read_bytes()
    gateway.file.write_text("broken")
    assert gateway.comes_to_log(KEPT, times=2)
    _, other = gateway.workers()
    other.kill()

    assert gateway.comes_to_log("a worker cannot start: ")
    assert gateway.lets_in(alice) == {True}
    assert gateway.logged("Traceback") == 0

    gateway.file.write_bytes(good)
    gateway.keys("revoke", "alice")
    assert gateway.comes_to(False, alice)
