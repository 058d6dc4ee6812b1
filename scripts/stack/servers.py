"""The servers: how each is started, known to be ready, and stopped with all that it started.

The end-to-end tests start the same servers on free ports through this module.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from stack import ROOT, serve
from stack.errors import ServerFailed
from stack.interrupts import interrupts
from stack.processes import clean_environment, start, stop_groups, tail

HOST = "127.0.0.1"
_POLL_S = 0.25
_PROBE_TIMEOUT_S = 5.0
_OPEN = {
    "GROUNDSERVE_OPEN_ACCESS": "true",
    "GROUNDSERVE_API_KEYS": "",
    "GROUNDSERVE_API_KEYS_FILE": "",
}
"""A gateway that is tried out here asks nobody for a key, whatever this program's own would do."""
_ALONE = {"GROUNDSERVE_SHUTDOWN_DELAY_S": "0"}
"""And it need not wait for a load balancer before it ends."""
_LOADING_GRACE_S = 3.0
"""A server that never was ready has nothing to finish; vLLM, while it loads, ignores SIGTERM."""

Probe = Callable[[], str | None]
"""Returns None when a server is ready, otherwise what it answered instead."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def api_key() -> str:
    """For a gateway that was not started here: the key that OpenAI's clients would send, if any."""
    return os.environ.get("OPENAI_API_KEY", "none")


def http_probe(url: str) -> Probe:
    """Ready when GET `url` is answered with 200."""
    # Loopback is never behind a proxy, whatever the environment says.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def probe() -> str | None:
        try:
            with opener.open(url, timeout=_PROBE_TIMEOUT_S):
                return None
        except urllib.error.HTTPError as exc:
            with exc:
                return f"{exc.code} {exc.read(2000).decode(errors='replace').strip()}"
        except OSError as exc:
            return f"no answer ({getattr(exc, 'reason', None) or exc})"

    return probe


def tcp_probe(port: int) -> Probe:
    """Ready when 127.0.0.1:`port` takes connections."""

    def probe() -> str | None:
        try:
            with socket.create_connection((HOST, port), timeout=_PROBE_TIMEOUT_S):
                return None
        except OSError as exc:
            return f"no answer ({exc})"

    return probe


@dataclass(eq=False)
class Server:
    """One server process, in a process group of its own, with its output in a log file."""

    name: str
    command: Sequence[str]
    log: Path
    probe: Probe
    environment: Mapping[str, str] = field(default_factory=clean_environment)
    ready_timeout_s: float = 60.0
    grace_s: float = 10.0
    """Seconds between SIGTERM and SIGKILL."""
    started_at: float = field(default=0.0, init=False)
    """On the monotonic clock, in seconds."""
    was_ready: bool = field(default=False, init=False)
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> Self:
        """Start the process and return at once."""
        with interrupts.deferred():
            self.started_at, self.was_ready = time.monotonic(), False
            self.process = start(self.command, self.log, self.environment, ROOT)
        return self

    def wait_ready(self) -> None:
        """Return when it is ready. Raises ServerFailed as soon as it died, or when time is up."""
        end = time.monotonic() + self.ready_timeout_s
        while True:
            self.check_alive()
            answer = self.probe()
            if answer is None:
                # The answer may be another program's, if ours has died meanwhile.
                self.check_alive()
                self.was_ready = True
                return
            if time.monotonic() > end:
                raise self._failed(f"was not ready within {self.ready_timeout_s:.0f} s: {answer}")
            time.sleep(_POLL_S)

    def check_alive(self) -> None:
        """Raises ServerFailed, with the end of the log, when the process has ended."""
        if self.process is None:
            raise self._failed("was never started")
        code = self.process.poll()
        if code is not None:
            raise self._failed(
                f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            )

    def stop(self) -> None:
        """End the process and all that it started; return when they are gone. May be repeated."""
        stop_all([self])

    def _failed(self, what: str) -> ServerFailed:
        return ServerFailed(f"{self.name} {what}", self.log, tail(self.log))

    def __enter__(self) -> Self:
        """Start it; a `with` block stops it however it ends."""
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        """Stop it."""
        self.stop()


def milvus(port: int, data_dir: Path, log_dir: Path) -> Server:
    """A Milvus Lite server that keeps its data in `data_dir`."""
    program = Path(sys.executable).with_name("milvus-lite")
    # Its default host is 0.0.0.0, without authentication.
    command = [
        str(program),
        "server",
        "--data-dir",
        str(data_dir),
        "--host",
        HOST,
        "--port",
        str(port),
    ]
    return Server("Milvus Lite", command, log_dir / "milvus.log", tcp_probe(port))


def vllm(
    port: int, config_file: Path, model: str | None, log_dir: Path, flags: Sequence[str] = ()
) -> Server:
    """vLLM, serving what `config_file` says, or `model` instead of the one named there.

    Raises Unsuitable when vLLM is not installed.
    """
    command = serve.command(config_file, model, ["--host", HOST, "--port", str(port), *flags])
    return Server(
        "vLLM",
        command,
        log_dir / "vllm.log",
        http_probe(f"http://{HOST}:{port}/health"),
        environment=serve.environment(model or serve.configured_model(config_file)),
        # Compiling for a large model on a GPU takes minutes the first time.
        ready_timeout_s=900.0,
        # Longer than the shutdown-timeout of the quickstart's configuration.
        grace_s=20.0,
    )


def gateway(port: int, environment: Mapping[str, str], log_dir: Path) -> Server:
    """The gateway on 127.0.0.1:`port`; `environment` adds its settings to this program's own.

    It is open to this machine, unless `environment` says otherwise.
    """
    listen = {"GROUNDSERVE_LISTEN_HOST": HOST, "GROUNDSERVE_LISTEN_PORT": str(port)}
    return Server(
        "the gateway",
        [sys.executable, "-m", "gateway"],
        log_dir / "gateway.log",
        http_probe(f"http://{HOST}:{port}/health/ready"),
        environment=clean_environment(_OPEN | _ALONE | dict(environment) | listen),
        ready_timeout_s=120.0,
    )


def watcher(environment: Mapping[str, str], log_dir: Path) -> Server:
    """The indexer that waits for uploads; `environment` adds its settings to this program's own."""
    return Server(
        "the indexer of uploads",
        [sys.executable, "-m", "indexer", "watch"],
        log_dir / "watch.log",
        # It listens nowhere. What it has not indexed yet waits for it.
        lambda: None,
        environment=clean_environment(dict(environment)),
    )


def stop_all(servers: Sequence[Server]) -> None:
    """End these servers and all that they started, at the same time; return when they are gone."""
    stop_groups(
        {
            server.process: server.grace_s
            if server.was_ready
            else min(server.grace_s, _LOADING_GRACE_S)
            for server in servers
            if server.process is not None
        }
    )
