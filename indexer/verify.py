"""Finds every way in which the index differs from its sources or from itself. Changes nothing."""

from collections.abc import Callable, Collection, Iterable

import msgspec
import numpy as np

from indexer.changes import typed_attributes
from indexer.comparison import document_hash, document_id
from indexer.documents import Content
from indexer.errors import DocumentGone, DocumentUnusable
from indexer.index.collection import Generation, StoredRow
from indexer.index.records import Chunk, content_hash, key
from indexer.report import DONE, DONE_IN_PART, DRIFT_FOUND
from indexer.sources.reading import read_ahead
from indexer.work import Documents, Passage, Tools

NORM_TOLERANCE = 1e-3
"""How far from 1 the norm of a vector may be: float32 and bfloat16 round."""


class Drift(msgspec.Struct, frozen=True):
    """One way in which the index differs from what it should be."""

    kind: str
    """In words: "rows without source", "source without rows", "changed", "several versions",
    "missing chunks", "doubled chunks", "wrong text", "wrong vector"."""
    document: str
    detail: str = ""


class Verification(msgspec.Struct):
    """What was looked at, and what was found."""

    generation: str
    documents: int = 0
    chunks: int = 0
    drifts: list[Drift] = []
    skipped: list[tuple[str, str]] = []
    """Documents that cannot be read, so that their rows cannot be compared."""
    failed_sources: list[tuple[str, str]] = []
    broken: set[str] = set()
    """Ids of the documents that a repair has to write anew."""

    @property
    def exit_code(self) -> int:
        """The code that the process returns."""
        if self.drifts:
            return DRIFT_FOUND
        return DONE_IN_PART if self.skipped or self.failed_sources else DONE

    def add(self, kind: str, document: str, detail: str = "") -> None:
        """Note a drift."""
        self.drifts.append(Drift(kind, document, detail))


class _Document(msgspec.Struct):
    """What the rows of one document say, all of them read."""

    source: str
    chunk_count: int
    versions: set[tuple[int, str]]
    ordinals: list[int]
    wrong_text: int = 0
    wrong_vector: int = 0


def verify(
    tools: Tools,
    generation: Generation,
    documents: Documents,
    tenants: Collection[str],
    on_document: Callable[[str], None] = lambda _: None,
) -> Verification:
    """Compare every row of `generation` with itself and with `documents`; reads all vectors.

    `on_document` is told the name of each document that was compared with its rows.
    Raises IndexFailure and SourceUnusable.
    """
    found = Verification(generation.collection)
    rows = tools.writer.stored_rows(generation, tenants)
    stored = _stored(rows, tools.passage, found)
    for identity, document in stored.items():
        _check_rows(identity, document, found)

    def prepare(content: Content) -> None:
        prepared = tools.workers.submit(content).result()
        typed_attributes(prepared, generation.fingerprint)

    _check_sources(documents, prepare, stored, found, on_document)
    found.failed_sources = list(documents.failures)
    if not found.failed_sources:
        for document in stored.values():
            found.add("rows without source", document.source, f"{len(document.ordinals)} rows")
    return found


def _stored(
    rows: Iterable[StoredRow], passage: Passage, found: Verification
) -> dict[str, _Document]:
    documents: dict[str, _Document] = {}
    for row in rows:
        chunk = row.chunk
        document = documents.setdefault(
            chunk.document_id,
            _Document(chunk.source, chunk.chunk_count, set(), []),
        )
        document.versions.add((chunk.run, chunk.document_hash))
        document.ordinals.append(chunk.ordinal)
        document.wrong_text += not _is_genuine(chunk, passage)
        document.wrong_vector += not abs(np.linalg.norm(row.vector) - 1) <= NORM_TOLERANCE
        found.chunks += 1
    found.documents = len(documents)
    return documents


def _is_genuine(chunk: Chunk, passage: Passage) -> bool:
    """Whether key, hash and length of a chunk are those of its text."""
    embedded = passage(chunk.title, chunk.heading_path, chunk.text)
    return (
        chunk.chunk_id == key(chunk.tenant, chunk.document_id, chunk.ordinal, chunk.text)
        and chunk.chunk_hash == content_hash(embedded.encode())
        and chunk.end - chunk.start == len(chunk.text)
    )


def _check_rows(identity: str, document: _Document, found: Verification) -> None:
    """Note what the rows of a document say against themselves."""
    problems = {
        "several versions": len(document.versions) - 1,
        "missing chunks": len(set(range(document.chunk_count)) - set(document.ordinals)),
        "doubled chunks": len(document.ordinals) - len(set(document.ordinals)),
        "wrong text": document.wrong_text,
        "wrong vector": document.wrong_vector,
    }
    for kind, rows in problems.items():
        if rows:
            found.add(kind, document.source, str(rows))
            found.broken.add(identity)


def _check_sources(
    documents: Documents,
    prepare: Callable[[Content], None],
    stored: dict[str, _Document],
    found: Verification,
    on_document: Callable[[str], None],
) -> None:
    """Compare with the sources; `stored` loses each document that they have.

    A document without rows is prepared, because there may be nothing in it to store.
    """
    for document, content in read_ahead(documents, lambda _: ""):
        on_document(document.name)
        identity = document_id(document.tenant, document.uri)
        match content:
            case DocumentGone():
                continue
            case DocumentUnusable():
                found.skipped.append((document.name, str(content)))
                stored.pop(identity, None)
            case Content() if identity not in stored:
                try:
                    prepare(content)
                except DocumentUnusable as exc:
                    found.skipped.append((document.name, str(exc)))
                else:
                    found.add("source without rows", document.name)
            case Content():
                rows = stored.pop(identity)
                if document_hash(content) not in {digest for _, digest in rows.versions}:
                    found.add("changed", document.name, "since the last run")
