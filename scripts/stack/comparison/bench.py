"""Runs one side on a Milvus Lite server of its own, kills it, saves and restores what it stored."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pymilvus import MilvusClient

from stack import ROOT, servers
from stack.comparison.sides import LEASE_S, Row, Side
from stack.errors import StackError
from stack.processes import clean_environment, start, stop_groups, tail

Chunks = Counter[tuple[str, str]]
"""How often each (source, text) is stored."""
_KILLED = -9
_GRPC_OPTIONS = {"grpc.keepalive_permit_without_calls": 0}  # as in indexer/index/collection


class RunFailed(StackError):
    """A run of one side ended with an error of its own."""


@dataclass(frozen=True)
class Kill:
    """When a run gets SIGKILL: after so many writes, or so long after its model was loaded."""

    after_writes: int = 0
    after_s: float = 0.0


@dataclass(frozen=True)
class Figures:
    """What a run took, as the probe saw it."""

    seconds: float
    """Without imports and the loading of the model."""
    encoding_s: float
    """Of these, in the encoder."""
    process_seconds: float
    """From the start of the process to its end."""
    embedded: int
    """Texts that were encoded."""
    writes: int


NOTHING_DONE = Figures(0.0, 0.0, 0.0, 0, 0)


class Bench:
    """One side with its documents and its stores, all of it in one folder."""

    def __init__(self, side: Side, folder: Path) -> None:
        self.side = side
        self.documents = folder / "documents"
        """Always the same path: it is a part of what is stored."""
        self._folder = folder
        self._state = folder / "state"
        self._log = folder / "run.log"
        self._uri = ""
        folder.mkdir(parents=True)

    @contextmanager
    def started(self, saved: str = "", lost: str = "") -> Iterator[None]:
        """Run Milvus on the stores that were saved under a name, or on empty ones.

        `lost` is a file or folder of them that is gone. Raises ServerFailed.
        """
        shutil.rmtree(self._state, ignore_errors=True)
        if saved:
            shutil.copytree(self._folder / saved, self._state)
        if lost:
            path = self._state / lost
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        port = servers.free_port()
        with servers.milvus(port, self._state / "milvus", self._folder) as server:
            server.wait_ready()
            self._uri = f"http://{servers.HOST}:{port}"
            yield

    def save(self, name: str) -> None:
        """Keep the stores under `name`. Milvus must not run."""
        shutil.rmtree(self._folder / name, ignore_errors=True)
        shutil.copytree(self._state, self._folder / name)

    def run(self, kill: Kill | None = None, *, pretend: bool = False) -> Figures | None:
        """Run the side over its documents; None when it was killed. `pretend` makes vectors up.

        A run that finds the lease of a killed one is repeated until that has expired. Raises
        RunFailed.
        """
        end = time.monotonic() + 3 * LEASE_S
        report = self._folder / "report.json"
        report.unlink(missing_ok=True)
        while True:
            began = time.perf_counter()
            code = self._process(self._command(report, kill, pretend=pretend))
            seconds = time.perf_counter() - began
            if code == _KILLED and kill is not None:
                return None
            if code in self.side.busy and time.monotonic() < end:
                time.sleep(1)
                continue
            if code not in self.side.done:
                raise self._failed(code)
            found = json.loads(report.read_text())
            return Figures(process_seconds=seconds, **found)

    def complete(self, *, pretend: bool = False) -> Figures:
        """A run that nobody kills. Raises RunFailed."""
        figures = self.run(pretend=pretend)
        if figures is None:
            raise self._failed(_KILLED)
        return figures

    def rows(self, *, with_vectors: bool = False) -> list[Row]:
        """Everything that is stored where readers look."""
        with self._client() as client:
            return self.side.rows(client, with_vectors=with_vectors)

    def answers(self, questions: list[Row]) -> list[list[str]]:
        """For each of these rows, the texts that a search with its vector finds."""
        with self._client() as client:
            return [
                self.side.search(client, self._uri, question.vector)
                for question in questions
                if question.vector is not None
            ]

    @contextmanager
    def _client(self) -> Iterator[MilvusClient]:
        client = MilvusClient(self._uri, timeout=30, grpc_options=_GRPC_OPTIONS)
        try:
            yield client
        finally:
            client.close()

    def _command(self, report: Path, kill: Kill | None, *, pretend: bool) -> list[str]:
        command = [str(self.side.python), "-m", "stack.comparison.probe", "--report", str(report)]
        for name in self.side.imports:
            command += ["--import", name]
        if kill is not None:
            command += ["--kill-after-writes", str(kill.after_writes)]
            command += ["--kill-after-s", str(kill.after_s)]
        if pretend:
            command.append("--pretend")
        return command + self.side.command(self.documents, self._uri, self._state)

    def _process(self, command: list[str]) -> int:
        environment = {
            name: value
            for name, value in clean_environment().items()
            if not name.startswith("GROUNDSERVE_")
        }
        environment |= {
            "PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        environment |= self.side.environment(self._uri)
        process = start(command, self._log, environment, self._folder)
        try:
            return process.wait()
        finally:
            # Processes that a killed run has started live on; a machine would take them along.
            stop_groups({process: 0.0 if process.returncode == _KILLED else 10.0})

    def _failed(self, code: int) -> RunFailed:
        failure = RunFailed(f"a run of {self.side.name} ended with exit code {code}")
        failure.detail = tail(self._log)
        return failure


def chunks(rows: list[Row]) -> Chunks:
    """How often each (source, text) is among `rows`."""
    return Counter((row.source, row.text) for row in rows)
