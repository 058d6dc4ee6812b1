"""What a run would do, without doing it. Changes nothing, and needs no lease."""

import time
from collections.abc import Callable, Sequence

import msgspec

from indexer import gate
from indexer.changes import Change, Changes
from indexer.comparison import stored_documents
from indexer.generations import has_same_vectors
from indexer.index.collection import Generation
from indexer.index.records import Chunk
from indexer.report import DONE, DONE_IN_PART, REFUSED, Report
from indexer.run import Rules
from indexer.work import Documents, Tools, Work, written_nowhere

SAMPLE_PASSAGES = 64
"""Passages that are embedded to know how fast the encoder is."""
CHUNKS_AT_ONCE = 1024


class Plan(msgspec.Struct):
    """What a run would do, in documents unless it says otherwise."""

    generation: str = ""
    """Where it would write; empty where a new generation would be built."""
    add: list[str] = []
    change: list[str] = []
    delete: list[str] = []
    keep: int = 0
    skipped: list[tuple[str, str]] = []
    failed_sources: list[tuple[str, str]] = []
    refused: str = ""
    chunks_to_embed: int = 0
    chunks_to_reuse: int = 0
    estimated_seconds: float = 0.0
    """Of embedding, at the speed of a sample that was embedded for this."""

    @property
    def exit_code(self) -> int:
        """The code that the run would return, as far as can be known."""
        if self.refused:
            return REFUSED
        return DONE_IN_PART if self.skipped or self.failed_sources else DONE


class Planner:
    """Compares the sources with what is stored, and counts."""

    def __init__(self, tools: Tools, rules: Rules) -> None:
        self._tools = tools
        self._rules = rules
        self._plan = Plan()
        self._sample: list[str] = []

    def make(
        self, documents: Documents, on_document: Callable[[str], None] = lambda _: None
    ) -> Plan:
        """What a run over `documents` would do. Raises IndexFailure and SourceUnusable.

        `on_document` is told the name of each document that has been compared.
        """
        plan, report = self._plan, Report()
        published = self._tools.writer.published()
        is_new = published is None or published.fingerprint != self._tools.fingerprint
        plan.generation = "" if published is None or is_new else published.collection
        stored = (
            {}
            if published is None
            else stored_documents(self._tools.writer.stored_chunks(published, self._rules.tenants))
        )
        before = len(stored)
        if is_new:
            for document in stored.values():
                document.chunk_count = -1  # whatever it was cut into: it is prepared anew
        work = Work(
            documents=documents,
            stored=stored,
            target=Generation(plan.generation, self._tools.fingerprint),
            upsert=written_nowhere,
            run=0,
            report=report,
            on_document=on_document,
        )
        waiting: list[Chunk] = []
        for change in Changes(work, self._tools.workers, self._tools.passage):
            self._note(change)
            on_document(change.name)
            waiting += change.chunks
            if len(waiting) >= CHUNKS_AT_ONCE:
                self._look_up(waiting, published)
                waiting.clear()
        self._look_up(waiting, published)
        plan.keep, plan.skipped = report.kept, report.skipped
        plan.failed_sources = list(documents.failures)
        self._judge(sorted(document.source for document in stored.values()), before)
        plan.estimated_seconds = self._estimate()
        return plan

    def _note(self, change: Change) -> None:
        (self._plan.change if change.is_stored else self._plan.add).append(change.name)

    def _look_up(self, chunks: Sequence[Chunk], published: Generation | None) -> None:
        passages = {
            chunk.chunk_hash: self._tools.passage(chunk.title, chunk.heading_path, chunk.text)
            for chunk in chunks
        }
        if published and has_same_vectors(published.fingerprint, self._tools.fingerprint):
            for known in self._tools.writer.vectors(published, list(passages)):
                del passages[known]
        self._plan.chunks_to_embed += len(passages)
        self._plan.chunks_to_reuse += len(chunks) - len(passages)
        self._sample += list(passages.values())[: SAMPLE_PASSAGES - len(self._sample)]

    def _judge(self, gone: list[str], before: int) -> None:
        if self._plan.failed_sources:
            return
        self._plan.delete = gone
        if not self._rules.allow_mass_deletion:
            self._plan.refused = gate.too_many_gone(
                len(gone), before, self._rules.max_deletion_percent
            )

    def _estimate(self) -> float:
        if not self._sample:
            return 0.0
        self._tools.encoder.encode_passages(self._sample[:1])  # the first call warms up
        started = time.monotonic()
        self._tools.encoder.encode_passages(self._sample)
        return (time.monotonic() - started) / len(self._sample) * self._plan.chunks_to_embed
