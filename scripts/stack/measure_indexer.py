"""How fast the indexer is, how busy it keeps the encoder, and how much memory it takes.

Each measurement is a process of its own, on a Milvus Lite server of its own, with MiniLM on the
CPU. `encode` alone gets the very passages that the run embedded, in one call, in the same process
right after it: the ratio of the two is the share of the encoder that the pipeline reaches.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from indexer.engines.local import Pipeline
from indexer.index.collection import IndexWriter
from indexer.index.embedding import Encoder, Vectors
from indexer.parsing.workers import Workers
from indexer.parts import (
    chunker_settings,
    configuration,
    fingerprint_of,
    parse_processes,
    tools_of,
)
from indexer.preparation import Preparation
from indexer.run import Rules, Run
from indexer.settings import RunSettings
from indexer.sources import Listing
from stack import report, servers
from stack.models import minilm

_WORDS = ["river", "stone", "bridge", "valley", "harbour", "engine", "garden", "window", "letter"]
_WARM_UP = ["A text that is embedded before the clock starts."] * 8


class _Recording:
    """An encoder that keeps the passages it was given."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.identity = encoder.identity
        self.passages: list[str] = []

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return self._encoder.encode_queries(texts)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        self.passages += texts
        return self._encoder.encode_passages(texts)


def main() -> int:
    """Measure, and print one line for each figure."""
    parser = argparse.ArgumentParser(prog="scripts/measure-indexer", description=__doc__)
    parser.add_argument("sources", nargs="*", help="what is indexed: folders, files, URLs")
    parser.add_argument("--config", help="or a file that lists it")
    parser.add_argument(
        "--memory",
        type=int,
        nargs="*",
        metavar="N",
        help="peak memory for N short documents that are made up, for each N",
    )
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(_measure(given.sources, given.config)))
        return 0
    if given.sources or given.config:
        _show(_in_a_process(given.sources, given.config))
    with tempfile.TemporaryDirectory() as folder:
        for count in given.memory or []:
            documents = _made_up(Path(folder, str(count)), count)
            found = _in_a_process([str(documents)], None)
            print(
                f"{count} documents: {found['peak_mib']:.0f} MiB at the peak, "
                f"{found['loaded_mib']:.0f} MiB of it once the encoder was loaded and warm",
                flush=True,
            )
    return 0


def _measure(sources: list[str], config: str | None) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        port = servers.free_port()
        with servers.milvus(port, Path(folder, "data"), Path(folder, "logs")) as server:
            server.wait_ready()
            settings = RunSettings(
                milvus_uri=f"http://{servers.HOST}:{port}",
                encoder_model=str(minilm()),
                paths=sources,
                config=Path(config) if config else None,
            )
            return _runs(settings)


def _runs(settings: RunSettings) -> dict[str, float]:
    encoder = Encoder.load(settings, batch_size=settings.encoder_batch_size)
    encoder.encode_passages(_WARM_UP)
    loaded = _peak_mib()
    recording = _Recording(encoder)
    configured = configuration(settings)
    sources = configured.sources
    chunker = chunker_settings(settings, encoder)
    fingerprint = fingerprint_of(settings, configured.attributes, encoder, chunker)
    rules = Rules(
        tenants=sorted({source.tenant for source in sources}),
        default_tenant=settings.tenant,
    )
    writer = IndexWriter(settings)
    reports = []
    for _ in range(2):
        with (
            Workers(
                Preparation(chunker),
                processes=parse_processes(settings),
                timeout_s=settings.parse_timeout_s,
                memory_mib=settings.parse_memory_mib,
                preload=[Preparation.__module__],
            ) as workers,
            writer.lease(settings.lease_duration_s) as lease,
        ):
            tools = tools_of(writer, recording, workers, chunker, fingerprint)
            job = Run(tools, Pipeline(tools), rules, search=lambda _: lambda *_: [])
            reports.append(job.execute(Listing(sources), run=lease.run))
    peak = _peak_mib()
    writer.close()
    started = time.monotonic()
    encoder.encode_passages(recording.passages)
    alone = time.monotonic() - started
    first, second = reports
    return {
        "documents": first.documents,
        "chunks": first.chunks_written,
        "skipped": len(first.skipped),
        "first_run_s": first.seconds,
        "no_change_run_s": second.seconds,
        "pipeline_s": first.pipeline_seconds,
        "encode_s": first.encode_seconds,
        "encode_alone_s": alone,
        "loaded_mib": loaded,
        "peak_mib": peak,
    }


def _show(found: dict[str, float]) -> None:
    print(f"{found['documents']} documents, {found['chunks']} chunks, {found['skipped']} skipped")
    print(f"first run: {found['first_run_s']:.1f} s; no change: {found['no_change_run_s']:.2f} s")
    print(
        f"encoder: {found['encode_s']:.1f} of {found['pipeline_s']:.1f} s busy; the same passages "
        f"in one call of encode alone take {found['encode_alone_s']:.1f} s, "
        f"{found['encode_alone_s'] / found['pipeline_s']:.0%} of the pipeline's time"
    )
    print(
        f"memory: {found['peak_mib']:.0f} MiB at the peak, {found['loaded_mib']:.0f} MiB of it "
        "once the encoder was loaded and warm"
    )


def _in_a_process(sources: list[str], config: str | None) -> dict[str, float]:
    command = [sys.executable, "-m", "stack.measure_indexer", "--one", *sources]
    if config:
        command += ["--config", config]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _made_up(folder: Path, count: int) -> Path:
    """`count` text files of 20 words each, the same in every run."""
    words = random.Random(415)  # nosec B311  # test data
    folder.mkdir()
    for number in range(count):
        text = " ".join(words.choices(_WORDS, k=20))
        (folder / f"{number:06d}.txt").write_text(f"{number} {text}\n")
    return folder


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(report.run(main))
