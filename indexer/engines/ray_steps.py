"""The steps of the Ray engine that run in its tasks and actors. Knows neither Ray nor formats.

Each is given a batch of rows and yields batches of rows, as Ray Data wants them: one column,
"row", that holds the structs below. Rows that are not a step's own pass through it.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from indexer.changes import Changes
from indexer.comparison import StoredDocument, document_id, is_unchanged
from indexer.documents import Content, SourceDocument
from indexer.engines.local import embed, known_vectors
from indexer.errors import DocumentUnusable, IndexerFailure
from indexer.index.collection import Generation, IndexWriter
from indexer.index.embedding import TextEncoder
from indexer.index.errors import EncoderUnavailable, IndexFailure
from indexer.index.records import Chunk, EncoderIdentity
from indexer.report import Report
from indexer.sources.reading import read_ahead
from indexer.work import Documents, Passage, Prepares, Work

Batch = dict[str, NDArray[Any]]

_READ_AT_ONCE = 64
_READ_AT_ONCE_BYTES = 256 << 10


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """Makes in an actor what the local engine is given. What they hold is sent to every actor."""

    encoder: Callable[[], TextEncoder]
    writer: Callable[[], IndexWriter]
    """A connection that looks vectors up; it never has the lease."""
    workers: Callable[[], AbstractContextManager[Prepares]]


class Read(msgspec.Struct, frozen=True):
    """A document that was read, and what was stored of it."""

    uri: str
    name: str
    tenant: str
    outcome: Content | DocumentUnusable | None
    stored: StoredDocument | None
    is_due: bool
    """Whether it is to be written anew although it has not changed."""

    @property
    def document_id(self) -> str:
        """See `indexer.comparison`."""
        return document_id(self.tenant, self.uri)

    def read(self, known_version: str = "") -> Content | None:  # noqa: ARG002
        """What reading it has given. Raises what that has raised."""
        if isinstance(self.outcome, DocumentUnusable):
            raise self.outcome
        return self.outcome


class Cut(msgspec.Struct, frozen=True):
    """A chunk of a document that is new or has changed."""

    chunk: Chunk
    name: str
    is_stored: bool
    """Whether rows of an earlier version of the document are there."""


class Embedded(msgspec.Struct, frozen=True):
    """A chunk with its vector."""

    cut: Cut
    vector: NDArray[np.float32]
    """Shape (dimension,)."""


class Counted(msgspec.Struct, frozen=True):
    """What one call of a step has counted."""

    report: Report
    documents: int = 0
    """How many it has looked at."""
    there: list[str] = []
    """Ids of stored documents that the sources still have."""
    told: list[str] = []
    """Names of documents that are done, of which no chunk comes."""


class Listed(msgspec.Struct, frozen=True):
    """The sources were listed to their end."""

    documents: int
    failures: list[tuple[str, str]]


class Failed(msgspec.Struct, frozen=True):
    """What ends the run, as a row: raised here, Ray would make an error of its own of it."""

    failure: IndexFailure | IndexerFailure


def read(
    _: Batch,
    documents: Documents,
    stored: dict[str, StoredDocument],
    rewrite: Collection[str],
) -> Iterator[Batch]:
    """Everything that the sources list, with its content where that has changed."""

    def known_version(document: SourceDocument) -> str:
        identity = document_id(document.tenant, document.uri)
        known = stored.get(identity)
        return known.version if known and known.is_whole and identity not in rewrite else ""

    waiting: list[Read] = []
    count = size = 0
    try:
        for document, outcome in read_ahead(documents, known_version):
            identity = document_id(document.tenant, document.uri)
            known, is_due = stored.get(identity), identity in rewrite
            is_kept = isinstance(outcome, Content) and not is_due and is_unchanged(known, outcome)
            kept = None if is_kept else outcome
            waiting.append(Read(document.uri, document.name, document.tenant, kept, known, is_due))
            count += 1
            size += len(kept.data) if isinstance(kept, Content) else 0
            if len(waiting) == _READ_AT_ONCE or size > _READ_AT_ONCE_BYTES:
                yield batch_of(waiting)
                waiting, size = [], 0
        yield batch_of([*waiting, Listed(count, list(documents.failures))])
    except IndexerFailure as exc:
        yield batch_of([Failed(exc)])


class Prepare:
    """Parses and cuts, in worker processes of its own: one bad document costs only itself."""

    def __init__(self, parts: Parts, passage: Passage, work: Work) -> None:
        """Of `work` what is the same for every document is used."""
        self._passage = passage
        self._work = work
        self._stack = ExitStack()
        self._workers = self._stack.enter_context(parts.workers())

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        """The chunks of what has changed, and the counts of all."""
        reads, others = _divided(batch, Read)
        yield from others
        stored = {row.document_id: row.stored for row in reads if row.stored is not None}
        before, told, report = set(stored), list[str](), Report()
        work = msgspec.structs.replace(
            self._work,
            documents=ReadDocuments(reads),
            stored=stored,
            rewrite={row.document_id for row in reads if row.is_due},
            report=report,
            on_document=told.append,
        )
        for change in Changes(work, self._workers, self._passage):
            yield batch_of([Cut(chunk, change.name, change.is_stored) for chunk in change.chunks])
        yield batch_of([Counted(report, len(reads), sorted(before - stored.keys()), told)])

    def __del__(self) -> None:
        """Ray deletes what an actor holds before it ends the actor."""
        self._stack.close()


class Embed:
    """Embeds what has no vector yet. The model is loaded once in each actor."""

    def __init__(
        self,
        parts: Parts,
        passage: Passage,
        expected: EncoderIdentity,
        known_in: Sequence[Generation],
    ) -> None:
        self._parts = parts
        self._passage = passage
        self._expected = expected
        self._known_in = known_in
        self._loaded: tuple[TextEncoder, IndexWriter] | None = None

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        """Every chunk with its vector, and the counts."""
        cuts, others = _divided(batch, Cut)
        yield from others
        if not cuts:
            return
        chunks, report = [cut.chunk for cut in cuts], Report()
        try:
            encoder, writer = self._loaded or self._load()
            known = known_vectors(writer, chunks, self._known_in)
            vectors = embed(encoder, self._passage, chunks, known, report)
        except IndexFailure as exc:
            yield batch_of([Failed(exc)])
            return
        embedded = [Embedded(cut, vector) for cut, vector in zip(cuts, vectors, strict=True)]
        yield batch_of([*embedded, Counted(report)])

    def __del__(self) -> None:
        """Close the connection."""
        if self._loaded is not None:
            self._loaded[1].close()

    def _load(self) -> tuple[TextEncoder, IndexWriter]:
        """Not in the constructor: Ray calls one that fails again. Raises IndexFailure."""
        encoder = self._parts.encoder()
        if differences := self._expected.differences(encoder.identity):
            raise EncoderUnavailable(
                f"the embedding model of a Ray actor is another one: {'; '.join(differences)}"
            )
        self._loaded = encoder, self._parts.writer()
        return self._loaded


class ReadDocuments(list[Read]):
    """The documents of one call, listed as a source lists them."""

    def __init__(self, reads: Iterable[Read] = ()) -> None:
        super().__init__(reads)
        self.failures: list[tuple[str, str]] = []


def batch_of(rows: Sequence[Any]) -> Batch:
    """`rows` as Ray Data takes them."""
    column = np.empty(len(rows), dtype=object)
    column[:] = rows
    return {"row": column}


def _divided(batch: Batch, kind: type[Any]) -> tuple[list[Any], list[Batch]]:
    """The rows of a kind, and the others as a batch, if there are any."""
    rows = list(batch["row"])
    others = [row for row in rows if not isinstance(row, kind)]
    return [row for row in rows if isinstance(row, kind)], [batch_of(others)] if others else []
