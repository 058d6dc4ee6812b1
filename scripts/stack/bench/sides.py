"""The servers of a benchmark: how each is started, and on which core it runs."""

import os
import shlex
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from stack import servers
from stack.processes import clean_environment
from stack.servers import HOST, Server

_CORES = sorted(os.sched_getaffinity(0))
MEASURED = {_CORES[0]}
"""The core of the server that is measured."""
OTHERS = set(_CORES[1:2] or _CORES)
"""That of everything else; the same one where there is but one."""

RAW_RELAY = "raw relay"
GATEWAY = "gateway"
WITHOUT = {"retrieval": {"enabled": False}}
"""What a request to the gateway says for an answer without documents."""
AS_THE_BASELINE = {"retrieval": {"mode": "dense", "candidates": 2}}
"""The search of the baseline: the two nearest chunks by meaning."""


class Side(msgspec.Struct, frozen=True):
    """One of the servers that are compared."""

    name: str
    port: int
    server: Server | None = None
    """None for the stand-in itself, asked with nothing between."""
    extra: dict[str, Any] = {}
    """Further fields of each request."""
    searches: bool = False
    """Whether it answers from documents."""

    @property
    def pid(self) -> int | None:
        """The process whose time counts."""
        process = self.server.process if self.server is not None else None
        return None if process is None else process.pid


def upstream(port: int, log_dir: Path) -> Server:
    """The stand-in for vLLM."""
    return _module("upstream", port, [], log_dir)


def pace(port: int, milliseconds: float) -> None:
    """Tell the stand-in how long it waits between two tokens."""
    request = urllib.request.Request(
        f"http://{HOST}:{port}/pace", msgspec.json.encode({"milliseconds": milliseconds})
    )
    with urllib.request.urlopen(request, timeout=10):  # nosec B310  # loopback
        pass


def raw_relay(upstream_port: int, log_dir: Path) -> Side:
    """The least that a relay can be."""
    port = servers.free_port()
    flags = ["--upstream", str(upstream_port)]
    return Side(RAW_RELAY, port, _module("raw_relay", port, flags, log_dir))


def baseline(name: str, upstream_port: int, log_dir: Path, flags: Sequence[str] = ()) -> Side:
    """The tutorial's version; with `flags` that name a Milvus it searches."""
    port = servers.free_port()
    common = ["--upstream", f"http://{HOST}:{upstream_port}/v1"]
    server = _module("baseline", port, [*common, *flags], log_dir / name.replace(" ", "-"))
    return Side(name, port, server, searches=bool(flags))


def gateway(upstream_port: int, environment: Mapping[str, str], log_dir: Path) -> Side:
    """The gateway, asked without documents."""
    port = servers.free_port()
    settings = {"GROUNDSERVE_UPSTREAM_URL": f"http://{HOST}:{upstream_port}/v1", **environment}
    return Side(GATEWAY, port, servers.gateway(port, settings, log_dir), WITHOUT)


def peer(said: str, upstream_port: int, log_dir: Path) -> Side:
    """Another program, as NAME=COMMAND says; {port} and {upstream} in the command are filled in."""
    name, _, command = said.partition("=")
    port = servers.free_port()
    filled = command.format(port=port, upstream=f"http://{HOST}:{upstream_port}")
    log = log_dir / f"{name}.log"
    server = Server(name, shlex.split(filled), log, servers.tcp_probe(port), ready_timeout_s=120.0)
    return Side(name, port, server)


def started(server: Server, cores: set[int]) -> Server:
    """`server`, started on these cores alone, and ready. Raises ServerFailed."""
    server.start()
    assert server.process is not None  # nosec B101  # for the type checker
    os.sched_setaffinity(server.process.pid, cores)
    server.wait_ready()
    return server


def _module(name: str, port: int, flags: Sequence[str], log_dir: Path) -> Server:
    command = [sys.executable, "-m", f"stack.bench.{name}", "--port", str(port), *flags]
    return Server(
        f"the {name.replace('_', ' ')}",
        command,
        log_dir / f"{name}.log",
        servers.http_probe(f"http://{HOST}:{port}/health"),
        environment=clean_environment({"PYTHONPATH": os.pathsep.join(sys.path)}),
    )
