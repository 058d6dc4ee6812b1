"""One run: makes the index equal to the sources. Knows no command line and no vendor library."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import msgspec

from indexer.chunking import Chunker
from indexer.errors import DocumentUnusable
from indexer.index.collection import NAME_MAX_BYTES, Generation, IndexWriter, StoredChunk
from indexer.index.embedding import TextEncoder
from indexer.index.errors import FingerprintMismatch
from indexer.index.records import Chunk, Fingerprint, content_hash, key
from indexer.parsing import PARSER_VERSION, Document, parse
from indexer.sources import SourceFile

CHUNKS_AT_ONCE = 256
"""Chunks that are embedded and written together, so that memory does not grow with the corpus."""


class Report(msgspec.Struct):
    """What a run did, in documents unless it says otherwise."""

    added: int = 0
    changed: int = 0
    kept: int = 0
    deleted: int = 0
    skipped: list[tuple[str, str]] = []
    """Names and reasons. What is stored of them stays as it was."""
    chunks_written: int = 0
    generation: str = ""
    published: bool = False
    """Whether this run made the generation that readers see from now on."""


class Run:
    """Compares the sources with what is stored and writes the difference."""

    def __init__(
        self,
        writer: IndexWriter,
        encoder: TextEncoder,
        chunker: Chunker,
        tenant: str,
        on_document: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._writer = writer
        self._encoder = encoder
        self._chunker = chunker
        self._tenant = tenant
        self._on_document = on_document
        self._report = Report()
        self._waiting: list[_Pending] = []

    def execute(self, files: Sequence[SourceFile]) -> Report:
        """Make the index equal to `files`.

        A collection of another fingerprint is left to its readers while a new generation is
        built beside it; the name moves when that is complete. Raises IndexFailure; what was
        written until then is taken up by the next run. FingerprintMismatch, before anything is
        written, when building anew would lose other tenants' documents.
        """
        report = self._report
        generation, is_new = self._open()
        report.generation = generation.collection
        stored = _by_document(self._writer.stored_chunks(generation))
        for file in files:
            self._compare(generation, file, stored.pop(file.document_id, []))
        self._write(generation)
        for chunks in stored.values():
            self._writer.delete(generation, [chunk.chunk_id for chunk in chunks])
            report.deleted += 1
        if report.chunks_written or report.deleted:
            self._writer.flush(generation)
        if is_new and report.chunks_written:
            self._writer.publish(generation)
            self._writer.drop_unpublished()
            report.published = True
        return report

    def _open(self) -> tuple[Generation, bool]:
        fingerprint = Fingerprint(
            encoder=self._encoder.identity,
            chunker=f"{self._chunker.description}, parser {PARSER_VERSION}",
        )
        published = self._writer.published()
        if published is not None and published.fingerprint == fingerprint:
            return published, False
        if published is not None and self._writer.holds_other_tenants(published):
            raise FingerprintMismatch(
                f"{published.collection!r} was built with other parameters and holds documents of "
                "other tenants, which this run would lose: use another knowledge base, or the "
                "parameters that it was built with"
            )
        self._writer.drop_unpublished()
        return self._writer.create(fingerprint), True

    def _compare(self, generation: Generation, file: SourceFile, stored: list[StoredChunk]) -> None:
        try:
            content = file.read()
            document_hash = content_hash(content)
            if _is_complete(stored, document_hash):
                self._report.kept += 1
                self._on_document(file.name)
                return
            chunks = self._chunks(file, document_hash, parse(content, file.path.suffix))
        except DocumentUnusable as exc:
            self._report.skipped.append((file.name, str(exc)))
            self._on_document(file.name)
            return
        if stored:
            self._report.changed += 1
        else:
            self._report.added += 1
        new_ids = {chunk.chunk_id for chunk in chunks}
        stale = [chunk.chunk_id for chunk in stored if chunk.chunk_id not in new_ids]
        self._waiting.append(_Pending(file.name, chunks, stale))
        if sum(len(pending.chunks) for pending in self._waiting) >= CHUNKS_AT_ONCE:
            self._write(generation)

    def _chunks(self, file: SourceFile, document_hash: str, document: Document) -> list[Chunk]:
        spans = self._chunker.split(document.text)
        if not spans:
            raise DocumentUnusable("there is no text in it but headings")
        document_id = file.document_id
        source = document.canonical_url or file.name
        if len(source.encode()) > NAME_MAX_BYTES:
            raise DocumentUnusable(f"its address is longer than {NAME_MAX_BYTES} bytes")
        return [
            Chunk(
                chunk_id=key(self._tenant, document_id, ordinal, span.text),
                tenant=self._tenant,
                document_id=document_id,
                document_hash=document_hash,
                source=source,
                title=_clipped(document.title or file.path.name),
                heading_path=_clipped(span.heading_path),
                ordinal=ordinal,
                chunk_count=len(spans),
                start=span.start,
                end=span.end,
                text=span.text,
                chunk_hash=content_hash(span.text.encode()),
                attributes={},
            )
            for ordinal, span in enumerate(spans)
        ]

    def _write(self, generation: Generation) -> None:
        """Embed and write what waits. A document's old chunks go after its new ones are there."""
        chunks = [chunk for pending in self._waiting for chunk in pending.chunks]
        for first in range(0, len(chunks), CHUNKS_AT_ONCE):
            batch = chunks[first : first + CHUNKS_AT_ONCE]
            vectors = self._encoder.encode_passages([chunk.text for chunk in batch])
            self._writer.upsert(generation, batch, vectors)
            self._report.chunks_written += len(batch)
        stale = [chunk_id for pending in self._waiting for chunk_id in pending.stale]
        if stale:
            self._writer.delete(generation, stale)
        for pending in self._waiting:
            self._on_document(pending.name)
        self._waiting.clear()


class _Pending(msgspec.Struct, frozen=True):
    name: str
    chunks: list[Chunk]
    stale: list[str]


def _by_document(stored: Iterable[StoredChunk]) -> dict[str, list[StoredChunk]]:
    documents = defaultdict(list)
    for chunk in stored:
        documents[chunk.document_id].append(chunk)
    return dict(documents)


def _is_complete(stored: list[StoredChunk], document_hash: str) -> bool:
    return bool(stored) and all(
        chunk.document_hash == document_hash and chunk.chunk_count == len(stored)
        for chunk in stored
    )


def _clipped(text: str) -> str:
    """`text`, cut where Milvus would refuse it for its length."""
    return text.encode()[:NAME_MAX_BYTES].decode(errors="ignore")
