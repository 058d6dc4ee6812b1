"""One look at one vector store: indexes its files, and tells what became of each."""

import contextlib
import time
from collections.abc import Mapping, Sequence

import msgspec

from indexer.engines.local import Pipeline
from indexer.gate import Search
from indexer.index.collection import Generation, IndexWriter
from indexer.index.errors import (
    EncoderUnavailable,
    IndexRefused,
    IndexUnavailable,
    LeaseFailure,
    LibraryFailure,
    NotInLibrary,
)
from indexer.index.library import (
    Membership,
    Outcome,
    StoredFile,
    StoreOutcome,
    VectorStore,
)
from indexer.index.library.records import ErrorCode
from indexer.index.records import AttributeType
from indexer.parts import tools_of
from indexer.report import Report
from indexer.run import Rules, Run
from indexer.uploads.declaration import declaration
from indexer.uploads.documents import (
    READ_MAX_BYTES,
    Measured,
    UploadedDocument,
    Uploads,
    format_of_upload,
)
from indexer.uploads.means import Means, Processed, built_with
from indexer.uploads.preparation import chunker_of

NOT_ITS_FAULT = (IndexUnavailable, EncoderUnavailable, LeaseFailure, LibraryFailure)
"""What says nothing about a store: its files are in progress until it is tried again."""

Sizes = dict[str, list[int]]
"""Bytes of each chunk of a file, by the ids of files."""


class StoreContents:
    """The files of one store, and the index that is made of them."""

    def __init__(self, means: Means, writer: IndexWriter, tenant: str, store: VectorStore) -> None:
        """`writer` holds the lease of the store. Raises LibraryUnavailable."""
        self._means = means
        self._library = means.library
        self._writer = writer
        self._tenant = tenant
        self._store = store
        self._before = self._library.outcome(tenant, store.id)
        self._members = {member.file_id: member for member in self._present()}

    def index(self, run: int, done: Processed) -> StoreOutcome:
        """Make the index equal to the files, as run number `run`; `done` counts.

        Raises IndexUnavailable, EncoderUnavailable, LeaseFailure and LibraryUnavailable. Where
        the store fails in any other way, its files have failed.
        """
        try:
            files = self._indexed(run, done)
            is_published = self._writer.published() is not None
            means = built_with(self._means, self._store)
        except NOT_ITS_FAULT:
            raise
        except Exception as exc:  # noqa: BLE001  # it must not keep the other stores waiting
            done.error = str(exc) or type(exc).__name__
            files = {
                member.file_id: self._before.of(member)
                or _failed(member, "server_error", done.error)
                for member in self._members.values()
            }
            # It is not what it should be: it is tried again.
            is_published, means = self._before.is_published, ""
        return StoreOutcome(
            files=files,
            is_published=is_published,
            built_with=means,
            finished_at=int(time.time()),
        )

    def _present(self) -> list[Membership]:
        """The members that are to be found; where the file was deleted, it leaves."""
        listed = self._library.members(self._tenant, self._store.id)
        there = self._library.file_ids(self._tenant)
        for member in listed:
            if member.file_id not in there:
                with contextlib.suppress(NotInLibrary):  # who deletes it does the same
                    self._library.detach(self._tenant, self._store.id, member.file_id)
        wanted = [each for each in listed if each.file_id in there and not each.is_cancelled]
        return self._library.described(self._tenant, wanted)

    def _indexed(self, run: int, done: Processed) -> dict[str, Outcome]:
        published = self._writer.published()
        stated = {} if published is None else published.fingerprint.attributes
        declared, refused = declaration(self._members.values(), stated)
        files = self._library.listed_files(self._tenant, self._members)
        failed = self._failed(refused, files)
        documents = [
            UploadedDocument(
                self._library, self._tenant, file, self._members[file.id], self._store.chunking
            )
            for file in files.values()
            if file.id not in failed
        ]
        if not documents:
            # A run with nothing to store would leave readers what was there with other means.
            done.deleted = self._clear(published)
            return failed
        report, sizes = self._run(run, documents, declared)
        done.deleted = report.deleted
        done.chunks_embedded, done.chunks_reused = report.chunks_embedded, report.chunks_reused
        skipped = self._skipped(report)
        for document in documents:
            file_id = document.file_id
            if (reason := skipped.get(file_id)) is not None:
                failed[file_id] = _failed(
                    self._members[file_id], "invalid_file", reason, is_lasting=True
                )
        return failed | self._completed([each for each in files if each not in failed], sizes)

    def _run(
        self,
        run: int,
        documents: Sequence[UploadedDocument],
        declared: dict[str, AttributeType],
    ) -> tuple[Report, Sizes]:
        means = self._means
        chunker = chunker_of(means.chunker, self._store.chunking)
        measured = Measured(means.workers)
        fingerprint = means.fingerprint(declared, chunker)
        tools = tools_of(self._writer, means.encoder, measured, chunker, fingerprint)
        rules = Rules(
            tenants=[self._tenant],
            default_tenant=self._tenant,
            allow_mass_deletion=True,
            keep_generations=means.keep_generations,
        )
        job = Run(tools, Pipeline(tools), rules, search=_nothing_is_asked)
        report = job.execute(Uploads(documents), run=run)
        if report.refused:
            raise IndexRefused(report.refused)
        return report, measured.texts

    def _failed(
        self, refused: Mapping[str, str], files: Mapping[str, StoredFile]
    ) -> dict[str, Outcome]:
        """The outcomes of the files that need not be tried."""
        failed = {}
        is_comparable = self._before.built_with == built_with(self._means, self._store)
        for file_id, file in files.items():
            member = self._members[file_id]
            before = self._before.of(member)
            if (reason := refused.get(file_id)) is not None:
                failed[file_id] = _failed(member, "invalid_file", reason)
            elif file.bytes > READ_MAX_BYTES:
                reason = f"it is larger than {READ_MAX_BYTES:,} bytes"
                failed[file_id] = _failed(member, "invalid_file", reason)
            elif not format_of_upload(file.filename):
                reason = f"{file.filename!r} is of no known format, which its name has to tell"
                failed[file_id] = _failed(member, "unsupported_file", reason)
            elif is_comparable and before is not None and before.is_lasting:
                failed[file_id] = before
        return failed

    def _skipped(self, report: Report) -> dict[str, str]:
        """Why files were skipped, by their ids. Nothing is served of them, nor of before them."""
        skipped = {name.partition("/")[0]: reason for name, reason in report.skipped}
        published = self._writer.published()
        if published is not None and published.collection != report.generation:
            self._clear(published)  # nothing could be built in its place
        elif published is not None and report.documents_kept_unread:
            self._writer.delete_documents(published, list(skipped))
            self._writer.flush(published)
        return skipped

    def _clear(self, published: Generation | None) -> int:
        """See that nothing of the store is found; gives how many documents were there."""
        if published is None:
            return 0
        documents, rows = self._writer.count(published, [self._tenant])
        if rows:
            self._writer.delete_tenant(published, self._tenant)
            self._writer.flush(published)
        return documents

    def _completed(self, file_ids: Sequence[str], sizes: Sizes) -> dict[str, Outcome]:
        """The outcomes of files that are stored, each with the `sizes` of its chunks."""
        completed = {}
        unknown = set()
        for file_id in file_ids:
            member, before = self._members[file_id], self._before.files.get(file_id)
            if file_id in sizes:
                completed[file_id] = _completed(member, sizes[file_id])
            elif before is not None and before.status == "completed":
                completed[file_id] = msgspec.structs.replace(before, version=member.version)
            else:
                unknown.add(file_id)
        if unknown:
            # What is not stored either was deleted meanwhile.
            for file_id, stored in self._stored_sizes(unknown).items():
                completed[file_id] = _completed(self._members[file_id], stored)
        return completed

    def _stored_sizes(self, file_ids: set[str]) -> Sizes:
        """Of chunks that an earlier run has stored, which did not live to tell."""
        sizes: Sizes = {}
        published = self._writer.published()
        for row in self._writer.stored_rows(published, [self._tenant]) if published else ():
            if row.chunk.document_id in file_ids:
                sizes.setdefault(row.chunk.document_id, []).append(len(row.chunk.text.encode()))
        return sizes


def _completed(member: Membership, sizes: Sequence[int]) -> Outcome:
    return Outcome(
        version=member.version, status="completed", usage_bytes=sum(sizes), chunks=len(sizes)
    )


def _failed(
    member: Membership, code: ErrorCode, message: str, *, is_lasting: bool = False
) -> Outcome:
    return Outcome(
        version=member.version,
        status="failed",
        error_code=code,
        error_message=message,
        is_lasting=is_lasting,
    )


def _nothing_is_asked(_: Generation) -> Search:
    """There are no golden queries of uploads."""
    return lambda _query, _tenant, _limit: []
