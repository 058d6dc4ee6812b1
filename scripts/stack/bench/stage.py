"""Everything that a benchmark needs running: the stand-in, Milvus with real chunks, the sides."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import msgspec

from gateway.settings import GatewaySettings
from stack import asking, servers
from stack.bench import corpus, sides
from stack.bench.sides import Side
from stack.models import minilm
from stack.options import DEFAULT_STATE_DIR
from stack.processes import clean_environment

_FOLDER = DEFAULT_STATE_DIR / "bench"
_LOGS = _FOLDER / "logs"
_KNOWLEDGE_BASE = "bench"
_SEARCHES = {"dense": 2, "hybrid": 40}
"""Hits that the gateway asks Milvus for: as the tutorial does, and as it does by itself."""


class Stage(msgspec.Struct, frozen=True):
    """What runs."""

    upstream_port: int
    environment: dict[str, str]
    """The gateway's settings, beside those that it has from this program's environment."""
    sides: list[Side]
    questions: list[str]

    def searches_alone(self, seconds: float) -> dict[str, float]:
        """Searches a second that Milvus answers by itself, by mode."""
        return {mode: self._searches(mode, limit, seconds) for mode, limit in _SEARCHES.items()}

    def _searches(self, mode: str, limit: int, seconds: float) -> float:
        flags = ["--mode", mode, "--limit", str(limit), "--seconds", str(seconds)]
        process = subprocess.Popen(
            [sys.executable, "-m", "stack.bench.searching", *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=clean_environment({**self.environment, "PYTHONPATH": os.pathsep.join(sys.path)}),
        )
        os.sched_setaffinity(process.pid, sides.MEASURED)
        said, _ = process.communicate(json.dumps(self.questions).encode())
        return float(said)


@contextmanager
def up(*, retrieval: bool, baseline: bool, peers: Sequence[str]) -> Iterator[Stage]:
    """Everything, started and on its core, as long as the block lasts. Raises StackError."""
    with ExitStack() as stack:
        milvus, questions = _index(stack)
        port = servers.free_port()
        _start(stack, sides.upstream(port, _LOGS), sides.OTHERS)
        environment = _environment(milvus)
        gateway = sides.gateway(port, environment, _LOGS)
        compared = [Side("stand-in", port), sides.raw_relay(port, _LOGS), gateway]
        compared += [sides.peer(each, port, _LOGS) for each in peers]
        if baseline:
            compared.append(sides.baseline("tutorial", port, _LOGS))
        if baseline and retrieval:
            flags = ["--milvus", milvus, "--collection", _KNOWLEDGE_BASE, "--model", str(minilm())]
            compared.append(sides.baseline("tutorial, dense", port, _LOGS, flags))
        for side in compared:
            if side.server is not None:
                _start(stack, side.server, sides.MEASURED)
        if retrieval:
            for mode, extra in (("dense", sides.AS_THE_BASELINE), ("hybrid", {})):
                name = f"{sides.GATEWAY}, {mode}"
                compared.append(Side(name, gateway.port, gateway.server, extra, searches=True))
        yield Stage(port, environment, compared, questions)


def _start(stack: ExitStack, server: servers.Server, cores: set[int]) -> None:
    stack.callback(server.stop)
    sides.started(server, cores)


def _index(stack: ExitStack) -> tuple[str, list[str]]:
    """The address of a Milvus with real chunks, and questions about them."""
    documents, questions = _FOLDER / "documents", _FOLDER / "questions.json"
    if not questions.exists():
        corpus.write(documents, questions)
    port = servers.free_port()
    _start(stack, servers.milvus(port, _FOLDER / "milvus", _LOGS), sides.OTHERS)
    uri = f"http://{servers.HOST}:{port}"
    settings = GatewaySettings(
        milvus_uri=uri, knowledge_base=_KNOWLEDGE_BASE, encoder_model=str(minilm())
    )
    asking.index(documents, settings, chunk_size=512)
    return uri, json.loads(questions.read_text())


def _environment(milvus_uri: str) -> dict[str, str]:
    return {
        "GROUNDSERVE_MILVUS_URI": milvus_uri,
        "GROUNDSERVE_KNOWLEDGE_BASE": _KNOWLEDGE_BASE,
        "GROUNDSERVE_ENCODER_MODEL": str(minilm()),
        "GROUNDSERVE_ENCODER_THREADS": "1",
    }
