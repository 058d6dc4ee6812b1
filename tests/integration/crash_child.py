"""A run of the indexer that kills itself, or does something else, at a given step.

A step is a call that changes something in Milvus. The encoder is a digest: what a crash does to
the index does not depend on what the vectors mean, and a real model would take the time of the
whole matrix to load.
"""

import hashlib
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from indexer.chunking import Chunker, ChunkerSettings
from indexer.engines.local import Pipeline
from indexer.index.collection import IndexWriter
from indexer.index.embedding import Vectors
from indexer.index.passages import passage
from indexer.index.records import EncoderIdentity, Fingerprint
from indexer.index.settings import IndexSettings
from indexer.report import Report
from indexer.run import Rules, Run
from indexer.sources import Listing, sources_of
from indexer.work import Tools
from tests.unit.index_fakes import InThisProcess

STEPS = {
    "create_collection",
    "rename_collection",
    "alter_collection_properties",
    "drop_collection",
    "create_alias",
    "alter_alias",
    "upsert",
    "delete",
    "flush",
}
DIMENSION = 8


class DigestEncoder:
    """The same text, the same vector."""

    identity = EncoderIdentity(
        model="digest",
        revision="1",
        dimension=DIMENSION,
        pooling="none",
        normalised=True,
        query_prefix="",
        passage_prefix="",
    )

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return self.encode_passages(texts)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        digests = [hashlib.sha256(text.encode()).digest()[:DIMENSION] for text in texts]
        vectors = np.array([list(digest) for digest in digests], dtype=np.float32) + 1
        unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class ActsAtStep:
    """A Milvus client that does something before or after step number `at`."""

    def __init__(self, client: Any, at: int, after: bool, act: Callable[[], None]) -> None:
        self._client = client
        self._at = at
        self._after = after
        self._act = act
        self.steps: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return self._counted(name, method) if name in STEPS else method

    def _counted(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.steps.append(name)
            is_it = len(self.steps) == self._at
            if is_it and not self._after:
                self._act()
            result = method(*args, **kwargs)
            if is_it and self._after:
                self._act()
            return result

        return call


def run_once(
    uri: str,
    knowledge_base: str,
    folder: Path,
    *,
    size: int,
    at: int = 0,
    after: bool = False,
    act: Callable[[], None] = kill_this_process,
    timeout_s: float = 20,
) -> tuple[Report, list[str]]:
    """One run over `folder` with chunks of `size`; gives its report and its steps."""
    settings = IndexSettings(
        milvus_uri=uri, knowledge_base=knowledge_base, milvus_timeout_s=timeout_s
    )
    chunker = ChunkerSettings(size=size, overlap_percent=0)
    encoder = DigestEncoder()
    writer = IndexWriter(settings)
    counted = writer._client = ActsAtStep(writer._client, at, after, act)
    rules = Rules(tenants=["default"], default_tenant="default", allow_mass_deletion=True)
    tools = Tools(
        writer=writer,
        encoder=encoder,
        workers=InThisProcess(chunker),
        passage=passage,
        fingerprint=Fingerprint(encoder=encoder.identity, chunker=Chunker(chunker).description),
    )
    try:
        with writer.lease(60) as lease:
            job = Run(
                tools,
                Pipeline(tools, window_chunks=8, rows_at_once=4),
                rules,
                search=lambda _: lambda *_: [],
            )
            report = job.execute(Listing(sources_of([str(folder)], "default")), run=lease.run)
    finally:
        writer.close()
    return report, counted.steps
