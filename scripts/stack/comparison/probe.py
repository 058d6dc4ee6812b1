"""Runs a program as `python -m` would, measures it, and may kill it at an exact point.

    python -m stack.comparison.probe --report FILE [options] MODULE [arguments]

Both sides run under it, so both are measured, and killed, in the same way: it counts the texts
that sentence-transformers encodes and the writes that pymilvus has done, and leaves imports and the
loading of the model out of the time. It knows nothing of either side.
"""

import argparse
import hashlib
import importlib
import json
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymilvus import MilvusClient
from sentence_transformers import SentenceTransformer

WRITES = ("insert", "upsert", "delete")
"""What changes rows. Making and describing collections is not counted."""


class Probe:
    """What a run did so far. SIGKILL comes after so many writes, or seconds; 0 is never."""

    def __init__(self, kill_after_writes: int, kill_after_s: float) -> None:
        self._kill_after_writes = kill_after_writes
        self._kill_after_s = kill_after_s
        self._started = time.perf_counter()
        self._loading_s = 0.0
        self._encoding_s = 0.0
        self._embedded = 0
        self._writes = 0
        self._lock = threading.Lock()

    def model_loaded(self, seconds: float) -> None:
        """It took so long, which does not count."""
        self._loading_s += seconds
        if self._kill_after_s:
            timer = threading.Timer(self._kill_after_s, _die)
            timer.daemon = True
            timer.start()

    def encoded(self, texts: int, seconds: float) -> None:
        """So many texts have a vector now."""
        self._embedded += texts
        self._encoding_s += seconds

    def written(self) -> None:
        """Milvus has acknowledged a write."""
        with self._lock:
            self._writes += 1
            if self._writes == self._kill_after_writes:
                _die()

    def figures(self) -> dict[str, float]:
        """Times in seconds; `seconds` is without imports and the loading of the model."""
        return {
            "seconds": time.perf_counter() - self._started - self._loading_s,
            "encoding_s": self._encoding_s,
            "embedded": self._embedded,
            "writes": self._writes,
        }


def watch(probe: Probe, *, pretend: bool) -> None:
    """Tell `probe` of every model, text and write. `pretend` makes vectors up."""
    load, encode = SentenceTransformer.__init__, SentenceTransformer.encode

    def loaded(model: SentenceTransformer, *args: Any, **options: Any) -> None:
        started = time.perf_counter()
        load(model, *args, **options)
        probe.model_loaded(time.perf_counter() - started)

    def encoded(model: SentenceTransformer, texts: list[str], *args: Any, **options: Any) -> Any:
        started = time.perf_counter()
        if pretend:
            vectors: Any = made_up(texts, int(model.get_embedding_dimension() or 0))
        else:
            vectors = encode(model, texts, *args, **options)
        probe.encoded(len(texts), time.perf_counter() - started)
        return vectors

    # mypy is right that this is no way to write programs; it is one to watch them.
    SentenceTransformer.__init__ = loaded  # type: ignore[method-assign,assignment]
    SentenceTransformer.encode = encoded  # type: ignore[method-assign,assignment]
    for name in WRITES:
        setattr(MilvusClient, name, _watched(getattr(MilvusClient, name), probe))


def made_up(texts: list[str], dimension: int) -> NDArray[np.float32]:
    """Vectors that tell texts apart and mean nothing, shape (len(texts), dimension), unit norm."""
    vectors = np.empty((len(texts), dimension), dtype=np.float32)
    for row, text in enumerate(texts):
        seed = hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest()
        vectors[row] = np.random.default_rng(int.from_bytes(seed)).standard_normal(dimension)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _watched(write: Callable[..., Any], probe: Probe) -> Callable[..., Any]:
    def watched(*args: Any, **options: Any) -> Any:
        answer = write(*args, **options)
        probe.written()
        return answer

    return watched


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run the module; the report is written however it ends, unless it is killed."""
    parser = argparse.ArgumentParser(prog="probe", description=__doc__)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--import", dest="imports", action="append", default=[])
    parser.add_argument("--kill-after-writes", type=int, default=0)
    parser.add_argument("--kill-after-s", type=float, default=0.0)
    parser.add_argument("--pretend", action="store_true")
    parser.add_argument("module")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    for name in given.imports:
        importlib.import_module(name)
    probe = Probe(given.kill_after_writes, given.kill_after_s)
    watch(probe, pretend=given.pretend)
    sys.argv[1:] = given.arguments
    try:
        runpy.run_module(given.module, run_name="__main__", alter_sys=True)
    finally:
        given.report.write_text(json.dumps(probe.figures()))


if __name__ == "__main__":
    main()
