"""Reads the sources, compares them with what is stored, and prepares what differs."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from indexer.comparison import document_hash, document_id, is_unchanged
from indexer.documents import Content, SourceDocument
from indexer.errors import DocumentGone, DocumentUnusable
from indexer.index.attributes import typed
from indexer.index.collection import NAME_MAX_BYTES, VERSION_MAX_BYTES
from indexer.index.records import Chunk, Fingerprint, content_hash, key
from indexer.preparation import Prepared
from indexer.sources.reading import read_ahead
from indexer.work import Passage, Prepares, Work

PREPARED_AHEAD = 64
"""Documents that wait for the worker processes or have come back from them."""


class Change(msgspec.Struct, frozen=True):
    """A document that is new, or differs from what is stored."""

    document_id: str
    name: str
    is_stored: bool
    """Whether rows of an earlier version are there."""
    chunks: list[Chunk]


class Changes:
    """What differs between the sources and what is stored; the report counts the rest."""

    def __init__(self, work: Work, workers: Prepares, passage: Passage) -> None:
        self._work = work
        self._workers = workers
        self._passage = passage

    def __iter__(self) -> Generator[Change, None, None]:
        """The changes in the order of the sources."""
        waiting: deque[_Waiting] = deque()
        for document, content in read_ahead(self._work.documents, self._known_version):
            match content:
                case DocumentGone():
                    self._work.on_document(document.name)
                case DocumentUnusable():
                    self._skip(document, content)
                case Content() if self._has_changed(document, content):
                    waiting.append(self._submitted(document, content))
                case _:
                    self._keep(document)
            if len(waiting) >= PREPARED_AHEAD:
                yield from self._prepared(waiting.popleft())
        while waiting:
            yield from self._prepared(waiting.popleft())

    def _known_version(self, document: SourceDocument) -> str:
        identity = document_id(document.tenant, document.uri)
        stored = self._work.stored.get(identity)
        if stored is None or not stored.is_whole or identity in self._work.rewrite:
            return ""
        return stored.version

    def _has_changed(self, document: SourceDocument, content: Content) -> bool:
        identity = document_id(document.tenant, document.uri)
        stored = self._work.stored.get(identity)
        return identity in self._work.rewrite or not is_unchanged(stored, content)

    def _submitted(self, document: SourceDocument, content: Content) -> "_Waiting":
        version = content.version if len(content.version.encode()) <= VERSION_MAX_BYTES else ""
        # The chunker leaves room for the title that is embedded, so it has to know it.
        title = content.title or _last_part(document)
        prepared = self._workers.submit(msgspec.structs.replace(content, title=title))
        return _Waiting(document, document_hash(content), version, prepared)

    def _prepared(self, waiting: "_Waiting") -> Generator[Change, None, None]:
        document = waiting.document
        try:
            chunks = self._chunks(waiting, waiting.prepared.result())
        except DocumentUnusable as exc:
            self._skip(document, exc)
            return
        identity = document_id(document.tenant, document.uri)
        stored = self._work.stored.pop(identity, None)
        if stored is None:
            self._work.report.added += 1
        else:
            self._work.report.changed += 1
        yield Change(identity, document.name, stored is not None, chunks)

    def _chunks(self, waiting: "_Waiting", prepared: Prepared) -> list[Chunk]:
        document = waiting.document
        identity = document_id(document.tenant, document.uri)
        source = prepared.canonical_url or document.name
        if len(source.encode(errors="replace")) > NAME_MAX_BYTES:
            raise DocumentUnusable(f"its address is longer than {NAME_MAX_BYTES} bytes")
        attributes = typed_attributes(prepared, self._work.target.fingerprint)
        title = _clipped(prepared.title, NAME_MAX_BYTES)
        chunks = []
        for ordinal, span in enumerate(prepared.spans):
            heading_path = _clipped(span.heading_path, NAME_MAX_BYTES)
            chunks.append(
                Chunk(
                    chunk_id=key(document.tenant, identity, ordinal, span.text),
                    tenant=document.tenant,
                    document_id=identity,
                    document_hash=waiting.document_hash,
                    version=waiting.version,
                    run=self._work.run,
                    source=source,
                    title=title,
                    heading_path=heading_path,
                    anchor=span.anchor if len(span.anchor.encode()) <= NAME_MAX_BYTES else "",
                    ordinal=ordinal,
                    chunk_count=len(prepared.spans),
                    start=span.start,
                    end=span.end,
                    text=span.text,
                    chunk_hash=content_hash(self._passage(title, heading_path, span.text).encode()),
                    attributes=attributes,
                )
            )
        return chunks

    def _keep(self, document: SourceDocument) -> None:
        stored = self._work.stored.pop(document_id(document.tenant, document.uri))
        self._work.report.kept += 1
        self._work.report.chunks_kept += stored.rows
        self._work.on_document(document.name)

    def _skip(self, document: SourceDocument, reason: DocumentUnusable) -> None:
        """What is stored of it stays as it is."""
        identity = document_id(document.tenant, document.uri)
        stored = self._work.stored.get(identity)
        rows = 0
        if stored is not None and (stored.is_whole or self._work.keeps_fragments):
            del self._work.stored[identity]
            rows = stored.rows
        self._work.report.skip(document.name, str(reason), rows=rows)
        self._work.on_document(document.name)


def typed_attributes(prepared: Prepared, fingerprint: Fingerprint) -> dict[str, Any]:
    """The attributes of a document, the declared ones in their types. Raises DocumentUnusable."""
    try:
        return typed(prepared.attributes, fingerprint.attributes)
    except ValueError as exc:
        raise DocumentUnusable(str(exc)) from exc


class _Waiting(NamedTuple):
    document: SourceDocument
    document_hash: str
    version: str
    prepared: Future[Prepared]


def _last_part(document: SourceDocument) -> str:
    path = urlsplit(document.name).path if "://" in document.name else document.name
    return PurePosixPath(path).name or document.name


def _clipped(text: str, limit: int) -> str:
    """`text`, cut where Milvus would refuse it for its length, and without lone surrogates."""
    return text.encode(errors="replace")[:limit].decode(errors="ignore")
