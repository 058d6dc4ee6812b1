"""Embeds and writes what has changed: three stages that work at the same time.

::

    changes ──▶ windows of chunks ──▶ vectors ──▶ rows in Milvus
    a thread, and processes           this thread  a thread

The encoder is the slow one, so nothing may make it wait: the next window is made, and what is
known of its vectors is looked up, while this one is embedded and the one before is written.
Memory holds a handful of windows, however large the corpus.
"""

import time
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec
import numpy as np
from numpy.typing import NDArray

from indexer.changes import Change, Changes
from indexer.engines.streams import ahead
from indexer.index.collection import Generation, IndexWriter
from indexer.index.embedding import TextEncoder, Vectors
from indexer.index.records import Chunk
from indexer.report import Report
from indexer.work import Passage, Tools, Work

WINDOW_CHUNKS = 512
"""Chunks that are embedded together: sorted by length, so that a batch holds little padding."""
FIRST_WINDOW_CHUNKS = 64
"""The first window is small, so that the encoder begins early; each next one is twice as large."""
ROWS_AT_ONCE = 256
"""Chunks in one request to Milvus, which takes up to 64 MiB in one."""
WINDOWS_AHEAD = 2


KnownVectors = dict[str, NDArray[np.float32]]
"""Vectors of shape (dimension,) by `chunk_hash`."""


class Done(msgspec.Struct, frozen=True):
    """A document whose last chunk is in a window."""

    document_id: str
    name: str
    is_stored: bool


class Window(msgspec.Struct, frozen=True):
    """Chunks of some documents, a part of a large one, and what is known of their vectors."""

    chunks: list[Chunk]
    done: list[Done]
    known: KnownVectors


class Pipeline:
    """The engine on one machine: processes that parse, one encoder, one connection."""

    def __init__(
        self, tools: Tools, window_chunks: int = WINDOW_CHUNKS, rows_at_once: int = ROWS_AT_ONCE
    ) -> None:
        self._tools = tools
        self._window_chunks = window_chunks
        self._rows_at_once = rows_at_once

    def run(self, work: Work) -> None:
        """See `Engine.run`."""
        started = time.monotonic()
        writes: deque[Future[None]] = deque()
        changes = Changes(work, self._tools.workers, self._tools.passage)
        windows = ahead(self._windows(changes, work.known_in), WINDOWS_AHEAD)
        # Left by an exception, it waits for the write that is under way, and no other begins.
        with ThreadPoolExecutor(1, thread_name_prefix="writes") as thread:
            try:
                for window in windows:
                    vectors = embed(
                        self._tools.encoder,
                        self._tools.passage,
                        window.chunks,
                        window.known,
                        work.report,
                    )
                    while len(writes) >= WINDOWS_AHEAD:
                        writes.popleft().result()
                    writes.append(thread.submit(self._write, work, window, vectors))
                while writes:
                    writes.popleft().result()
            finally:
                thread.shutdown(wait=False, cancel_futures=True)
                windows.close()
        work.report.pipeline_seconds = time.monotonic() - started

    def _windows(
        self, changes: Iterable[Change], known_in: Sequence[Generation]
    ) -> Generator[Window, None, None]:
        chunks: list[Chunk] = []
        done: list[Done] = []
        size = min(FIRST_WINDOW_CHUNKS, self._window_chunks)
        for change in changes:
            for chunk in change.chunks:
                if len(chunks) == size:
                    yield Window(chunks, done, known_vectors(self._tools.writer, chunks, known_in))
                    chunks, done = [], []
                    size = min(2 * size, self._window_chunks)
                chunks.append(chunk)
            done.append(Done(change.document_id, change.name, change.is_stored))
        if chunks:
            yield Window(chunks, done, known_vectors(self._tools.writer, chunks, known_in))

    def _write(self, work: Work, window: Window, vectors: Vectors) -> None:
        for first in range(0, len(window.chunks), self._rows_at_once):
            rows = slice(first, first + self._rows_at_once)
            work.upsert(work.target, window.chunks[rows], vectors[rows])
        work.report.chunks_written += len(window.chunks)
        replaced = [done.document_id for done in window.done if done.is_stored]
        if replaced:
            self._tools.writer.delete_older(work.target, replaced)
        for done in window.done:
            work.on_document(done.name)


def known_vectors(
    writer: IndexWriter, chunks: Sequence[Chunk], generations: Sequence[Generation]
) -> KnownVectors:
    """The vectors of `chunks` that stand in one of `generations`. Raises IndexFailure."""
    known: KnownVectors = {}
    for generation in generations:
        wanted = {chunk.chunk_hash for chunk in chunks} - known.keys()
        known |= writer.vectors(generation, sorted(wanted))
    return known


def embed(
    encoder: TextEncoder,
    passage: Passage,
    chunks: Sequence[Chunk],
    known: KnownVectors,
    report: Report,
) -> Vectors:
    """A vector for each chunk, shape (len(chunks), dimension); none is made twice.

    Raises EncodingFailed. `report` counts what was embedded and what was known.
    """
    new = {
        chunk.chunk_hash: passage(chunk.title, chunk.heading_path, chunk.text)
        for chunk in chunks
        if chunk.chunk_hash not in known
    }
    vectors = dict(known)
    if new:
        started = time.monotonic()
        vectors |= zip(new, encoder.encode_passages(list(new.values())), strict=True)
        report.encode_seconds += time.monotonic() - started
    report.chunks_embedded += len(new)
    report.chunks_reused += len(chunks) - len(new)
    return np.stack([vectors[chunk.chunk_hash] for chunk in chunks])
