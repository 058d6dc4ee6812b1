"""One run: makes the index equal to the sources. Knows no command line and no vendor library."""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager

import msgspec

from indexer import gate
from indexer.comparison import StoredDocument, stored_documents
from indexer.gate import GoldenQueries, Search
from indexer.generations import Target, known_in, open_target, prune
from indexer.index.collection import BulkLoad, Generation, RunRecord
from indexer.report import Report
from indexer.work import Documents, Engine, Tools, Upsert, Work


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What a run may do, and what it must find before it publishes."""

    tenants: Collection[str]
    """Whose documents the sources hold; rows of others are not touched."""
    default_tenant: str
    max_deletion_percent: int = 20
    """Share of the stored documents that may be gone without `allow_mass_deletion`."""
    allow_mass_deletion: bool = False
    keep_generations: int = 1
    """Earlier generations that are kept to roll back to."""
    golden: GoldenQueries = GoldenQueries()


class Run:
    """Compares the sources with what is stored and writes the difference."""

    def __init__(
        self,
        tools: Tools,
        engine: Engine,
        rules: Rules,
        *,
        search: Callable[[Generation], Search],
        bulk: Callable[[Generation], AbstractContextManager[BulkLoad]] | None = None,
    ) -> None:
        """`search` gives what finds hits in a generation, for the golden queries.

        `bulk` gives what loads rows into an empty generation that nobody reads, where they are
        not to go by requests.
        """
        self._tools = tools
        self._writer = tools.writer
        self._engine = engine
        self._rules = rules
        self._search = search
        self._bulk = bulk
        self._report = Report()

    def execute(
        self,
        documents: Documents,
        *,
        run: int,
        rewrite: Collection[str] = (),
        on_document: Callable[[str], None] = lambda _: None,
    ) -> Report:
        """Make the index equal to `documents`. The writer holds the lease of run number `run`.

        Where the fingerprint is another one, readers keep what they have while a new generation
        is built beside it; the name moves when that is complete and passes the gate. `rewrite`
        names ids of documents to be stored anew although their sources have not changed;
        `on_document` is told the name of each document that is done.
        Raises IndexFailure and LeaseLost; what was written until then is taken up by the next
        run. FingerprintMismatch and SourceUnusable are raised before anything is changed.
        """
        started = time.monotonic()
        target = open_target(self._writer, self._tools.fingerprint, self._rules.tenants)
        self._report.generation = target.generation.collection
        stored = stored_documents(
            self._writer.stored_chunks(target.generation, self._rules.tenants)
        )
        before = len(stored)
        with self._loading(target, stored) as upsert:
            self._engine.run(
                Work(
                    documents=documents,
                    stored=stored,
                    target=target.generation,
                    upsert=upsert,
                    # What is stored of a document to be written anew is not to be trusted.
                    known_in=[] if rewrite else known_in(target),
                    run=run,
                    rewrite=rewrite,
                    keeps_fragments=target.is_published,
                    report=self._report,
                    on_document=on_document,
                )
            )
        self._report.failed_sources = list(documents.failures)
        deleted = self._delete(target, stored, before)
        has_changed = bool(self._report.chunks_written or deleted)
        if has_changed:
            self._writer.flush(target.generation)
        self._report.seconds = time.monotonic() - started
        if has_changed and target.is_published:
            self._record(target, run)
        if not target.is_published and self._passes_the_gate(target):
            self._record(target, run)
            self._writer.publish(target.generation)
            self._report.published = True
            prune(self._writer, self._rules.keep_generations)
        self._report.seconds = time.monotonic() - started
        return self._report

    @contextmanager
    def _loading(self, target: Target, stored: dict[str, StoredDocument]) -> Iterator[Upsert]:
        """What rows are written with; a bulk load ends, and its rows are there, with the block."""
        if self._bulk is None or target.is_published or stored:
            yield self._writer.upsert
            return
        with self._bulk(target.generation) as load:
            yield load.upsert
            load.finish()

    def _delete(self, target: Target, gone: dict[str, StoredDocument], before: int) -> int:
        """Delete the documents that are `gone` from the sources, if that is believable."""
        if self._report.failed_sources:
            self._report.withheld = len(gone)
            return 0
        if target.is_published and not self._rules.allow_mass_deletion:
            self._report.refused = gate.too_many_gone(
                len(gone), before, self._rules.max_deletion_percent
            )
            if self._report.refused:
                self._report.withheld = len(gone)
                return 0
        self._writer.delete_documents(target.generation, list(gone))
        self._report.deleted = len(gone)
        return len(gone)

    def _passes_the_gate(self, target: Target) -> bool:
        """Whether readers may see a new generation; the report says why not."""
        if self._report.failed_sources or not self._report.documents:
            return False
        self._report.refused = (
            gate.missing_rows(
                self._report, *self._writer.count(target.generation, self._rules.tenants)
            )
            or self._too_few(target)
            or gate.golden_failure(
                self._rules.golden, self._rules.default_tenant, self._search(target.generation)
            )
        )
        return not self._report.refused

    def _too_few(self, target: Target) -> str:
        if target.published is None or self._rules.allow_mass_deletion:
            return ""
        before, _ = self._writer.count(target.published, self._rules.tenants)
        return gate.too_many_gone(
            before - self._report.documents, before, self._rules.max_deletion_percent
        )

    def _record(self, target: Target, run: int) -> None:
        documents, chunks = self._writer.count(target.generation, self._rules.tenants)
        record = RunRecord(
            run=run,
            finished_at=time.time(),
            seconds=self._report.seconds,
            documents=documents,
            chunks=chunks,
        )
        self._writer.record(target.generation, record)
