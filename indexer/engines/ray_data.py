"""The engine on many machines: the local one's steps, spread over a Ray cluster by Ray Data.

::

    list and read ──▶ parse and cut ──▶ embed ──▶ write
    a task            actors            actors    this process

Sources are listed and read in one task on this process' own machine: only there are local folders
what the configuration means, and a web site is to be asked at one pace by one client. What has not
changed goes no further. Parsing and embedding, which take the time, go to whichever machine is
free. Rows are written here, where the lease is.

Every machine needs this project installed. Blocks of rows are small, and Ray holds the steps
before a slow one back, so memory does not grow with the corpus.
"""

import logging
import math
import signal
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import msgspec
import numpy as np

from indexer.engines.local import ROWS_AT_ONCE, WINDOW_CHUNKS
from indexer.engines.ray_steps import (
    Batch,
    Counted,
    Embed,
    Embedded,
    Failed,
    Listed,
    Parts,
    Prepare,
    ReadDocuments,
    read,
)
from indexer.errors import EngineUnavailable
from indexer.index.collection import IndexWriter
from indexer.report import Report
from indexer.work import Tools, Work, written_nowhere

DOCUMENTS_AT_ONCE = 32
"""Documents in one call of a parsing actor."""
BLOCK_BYTES = 512 << 10
"""Of rows that Ray moves at once: small, so that the encoders get the first ones early."""


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """Where Ray runs, and what the actors take of it."""

    address: str = ""
    """Of the cluster, host:port or "auto"; where it is empty, Ray is started for this run."""
    encoders: int = 1
    cpus_per_encoder: float = 1.0
    gpus_per_encoder: float = 0.0
    parsers: int = 1
    cpus_per_parser: float = 1.0
    object_store_mib: int = 512
    """Shared memory of a Ray that is started for this run."""


class RayEngine:
    """Spreads a run over a cluster."""

    def __init__(self, tools: Tools, parts: Parts, cluster: Cluster) -> None:
        """`tools` are this process' own, `parts` make those of the actors."""
        self._tools = tools
        self._parts = parts
        self._cluster = cluster

    def run(self, work: Work) -> None:
        """See `Engine.run`. Raises EngineUnavailable when Ray is not there or breaks off."""
        started = time.monotonic()
        rows = _Rows(work, self._tools.writer)
        with _ray(self._cluster):
            for batch in self._batches(work):
                rows.take(batch["row"])
        rows.check()
        work.report.pipeline_seconds = time.monotonic() - started

    def _batches(self, work: Work) -> Iterable[Batch]:
        import ray
        import ray.data

        cluster = self._cluster
        same_for_all = Work(
            documents=ReadDocuments(),
            stored={},
            target=work.target,
            upsert=written_nowhere,
            run=work.run,
            keeps_fragments=work.keeps_fragments,
            report=Report(),
        )
        batches: Iterable[Batch] = (
            ray.data.from_items([{"row": None}])
            .map_batches(
                partial(
                    read,
                    documents=work.documents,
                    stored=work.stored,
                    rewrite=frozenset(work.rewrite),
                ),
                num_cpus=0,  # it waits more than it works, and the first machine may offer none
                label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()},
            )
            .map_batches(
                Prepare,
                fn_constructor_args=(self._parts, self._tools.passage, same_for_all),
                batch_size=DOCUMENTS_AT_ONCE,
                compute=ray.data.ActorPoolStrategy(size=cluster.parsers),
                num_cpus=cluster.cpus_per_parser,
            )
            .map_batches(
                Embed,
                fn_constructor_args=(
                    self._parts,
                    self._tools.passage,
                    self._tools.encoder.identity,
                    list(work.known_in),
                ),
                batch_size=WINDOW_CHUNKS,
                compute=ray.data.ActorPoolStrategy(size=cluster.encoders),
                num_cpus=cluster.cpus_per_encoder,
                num_gpus=cluster.gpus_per_encoder,
            )
            .iter_batches(batch_size=ROWS_AT_ONCE, batch_format="numpy")
        )
        return batches


class _Rows:
    """Writes what comes back, in whatever order, and counts it."""

    def __init__(self, work: Work, writer: IndexWriter) -> None:
        self._work = work
        self._writer = writer
        self._missing: dict[str, int] = {}
        """Chunks that are still to come, of each document of which some have."""
        self._listed: int | None = None
        """Documents of the sources, once all are listed."""
        self._counted = 0

    def take(self, rows: Iterable[Any]) -> None:
        """Raises what a step has met, IndexFailure and LeaseLost."""
        embedded: list[Embedded] = []
        for row in rows:
            match row:
                case Embedded():
                    embedded.append(row)
                case Counted():
                    self._count(row)
                case Listed():
                    self._work.documents.failures[:] = row.failures
                    self._listed = row.documents
                case Failed():
                    raise row.failure
        if embedded:
            self._write(embedded)

    def check(self) -> None:
        """Raises EngineUnavailable unless all has come back: what was lost would be deleted."""
        if self._missing or self._counted != self._listed:
            raise EngineUnavailable("Ray has lost a part of the work; the next run does it again")

    def _write(self, embedded: Sequence[Embedded]) -> None:
        chunks = [row.cut.chunk for row in embedded]
        self._work.upsert(self._work.target, chunks, np.stack([row.vector for row in embedded]))
        self._work.report.chunks_written += len(chunks)
        whole = [row.cut for row in embedded if self._is_last(row)]
        replaced = [cut.chunk.document_id for cut in whole if cut.is_stored]
        if replaced:
            self._writer.delete_older(self._work.target, replaced)
        for cut in whole:
            self._work.on_document(cut.name)

    def _is_last(self, row: Embedded) -> bool:
        """Whether it is the last chunk of its document to come; counts it."""
        chunk = row.cut.chunk
        missing = self._missing.pop(chunk.document_id, chunk.chunk_count) - 1
        if missing:
            self._missing[chunk.document_id] = missing
        return not missing

    def _count(self, counted: Counted) -> None:
        self._counted += counted.documents
        for identity in counted.there:
            self._work.stored.pop(identity, None)
        for name in counted.told:
            self._work.on_document(name)
        ours, theirs = self._work.report, counted.report
        ours.skipped += theirs.skipped
        for count in _COUNTS:
            setattr(ours, count, getattr(ours, count) + getattr(theirs, count))


_COUNTS = (
    "added",
    "changed",
    "kept",
    "chunks_embedded",
    "chunks_reused",
    "chunks_kept",
    "documents_kept_unread",
    "encode_seconds",
)
"""What the steps count; the rest of a report is of the run as a whole."""


@contextmanager
def _ray(cluster: Cluster) -> Iterator[None]:
    """Ray, connected or started for this run. Raises EngineUnavailable, inside as well."""
    try:
        import ray.data
        from ray.exceptions import RayError, RayTaskError
    except ImportError as exc:
        raise EngineUnavailable(
            f"the package {exc.name!r} is not installed, which --engine ray needs"
        ) from exc
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what it logs, it raises as well
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = BLOCK_BYTES
    with ExitStack() as stack:
        if not ray.is_initialized():
            stack.enter_context(_connected(cluster))
        stack.enter_context(ray.data.DataContext.current(context))
        try:
            yield
        except RayTaskError:
            raise  # an error in our own code, not of the cluster
        except RayError as exc:
            raise EngineUnavailable(f"Ray broke off: {_first_line(exc)}") from exc


@contextmanager
def _connected(cluster: Cluster) -> Iterator[None]:
    """Ray as the cluster at an address, or on this machine with no traces left behind."""
    import ray

    cpus = cluster.encoders * cluster.cpus_per_encoder + cluster.parsers * cluster.cpus_per_parser
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        started: dict[str, Any] = {
            "num_cpus": math.ceil(cpus),
            "object_store_memory": cluster.object_store_mib << 20,
            "include_dashboard": False,
            "_temp_dir": folder,
        }
        try:
            try:
                with _sigterm_as_it_was():
                    ray.init(
                        cluster.address or "local",
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                        **{} if cluster.address else started,
                    )
            except Exception as exc:  # a plain one, where its processes do not start in time
                raise EngineUnavailable(f"Ray cannot be reached: {_first_line(exc)}") from exc
            yield
        finally:
            ray.shutdown()


@contextmanager
def _sigterm_as_it_was() -> Iterator[None]:
    """Ray sets a handler of its own, which would end the run as if something had failed."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _first_line(exc: Exception) -> str:
    return str(exc).strip().partition("\n")[0] or type(exc).__name__
