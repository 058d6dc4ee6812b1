"""What people are shown on stdout: the result of a command, as lines or as JSON."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from indexer.index.collection import Generation, LeaseRecord
from indexer.index.records import Hit
from indexer.plan import Plan
from indexer.report import Report
from indexer.uploads.means import Processed
from indexer.verify import Verification

LINES_OF_A_KIND = 20
"""Names that are printed of documents of one kind; the JSON has them all."""


class Status(msgspec.Struct):
    """What is stored under the name of a knowledge base."""

    knowledge_base: str
    published: Generation | None
    generations: list[Generation]
    chunks_by_tenant: dict[str, int]
    leases: list[LeaseRecord]


def print_json(result: Any) -> None:
    """One JSON object on standard output: the fields of `result`."""
    print(msgspec.json.encode(result, order="sorted").decode())


def report_lines(report: Report, knowledge_base: str) -> Iterator[str]:
    """The summary of a run: what was skipped and why, then the counts."""
    yield from _reasons(report.skipped, report.failed_sources)
    yield (
        f"{knowledge_base}: {report.added} added, {report.changed} changed, {report.kept} kept, "
        f"{report.deleted} deleted, {len(report.skipped)} skipped; "
        f"{report.chunks_embedded} chunks embedded, {report.chunks_reused} reused, written to "
        f"{report.generation} in {report.seconds:.1f} s{', published' if report.published else ''}"
    )
    if report.withheld:
        yield f"{report.withheld} documents that seem to be gone were not deleted"


def plan_lines(plan: Plan, knowledge_base: str) -> Iterator[str]:
    """What a run would do, by name and in numbers."""
    for verb, names in (("add", plan.add), ("change", plan.change), ("delete", plan.delete)):
        for name in names[:LINES_OF_A_KIND]:
            yield f"{verb} {name}"
        if len(names) > LINES_OF_A_KIND:
            yield f"{verb} … and {len(names) - LINES_OF_A_KIND} more"
    yield from _reasons(plan.skipped, plan.failed_sources)
    yield (
        f"{knowledge_base}: {len(plan.add)} to add, {len(plan.change)} to change, "
        f"{len(plan.delete)} to delete, {plan.keep} to keep; {plan.chunks_to_embed} chunks to "
        f"embed, {plan.chunks_to_reuse} to reuse, in about {plan.estimated_seconds:.0f} s, "
        f"{f'in {plan.generation}' if plan.generation else 'in a new generation'}"
    )


def verification_lines(found: Verification) -> Iterator[str]:
    """Each drift, then the counts."""
    for drift in found.drifts:
        yield f"{drift.kind}: {drift.document}{f' ({drift.detail})' if drift.detail else ''}"
    yield from _reasons(found.skipped, found.failed_sources)
    yield (
        f"{found.generation}: {found.documents} documents in {found.chunks} chunks, "
        f"{len(found.drifts)} drifts"
    )


def status_lines(status: Status) -> Iterator[str]:
    """Generations, oldest first, then tenants and the lease."""
    for generation in status.generations:
        is_published = status.published is not None and (
            generation.collection == status.published.collection
        )
        last = generation.last_run
        state = (
            f"{last.documents} documents in {last.chunks} chunks, "
            f"last changed {_moment(last.finished_at)} by run {last.run}"
            if last
            else "being built, or left unfinished by a run that ended"
        )
        encoder = generation.fingerprint.encoder
        yield f"{generation.collection}{' (published)' if is_published else ''}: {state}"
        yield f"  {encoder.model}, {encoder.dimension} dimensions; {generation.fingerprint.chunker}"
    if status.published is None:
        yield f"{status.knowledge_base}: nothing is published"
    for tenant, chunks in sorted(status.chunks_by_tenant.items()):
        yield f"tenant {tenant}: {chunks} chunks"
    for lease in status.leases:
        if lease.expires_at > time.time():
            yield f"lease held by {lease.owner} until {_moment(lease.expires_at)}"


def processed_lines(processed: Processed) -> Iterator[str]:
    """What became of a vector store, in a line."""
    if processed.is_gone:
        yield f"{processed.vector_store}: deleted, with its index"
        return
    if processed.error:
        yield f"{processed.vector_store} could not be indexed: {processed.error}"
    yield (
        f"{processed.vector_store}: {processed.completed} completed, {processed.failed} failed, "
        f"{processed.deleted} removed; {processed.chunks_embedded} chunks embedded, "
        f"{processed.chunks_reused} reused, in {processed.seconds:.1f} s"
    )


def hit_lines(hits: list[Hit]) -> Iterator[str]:
    """Each hit with its score and its place, and its text."""
    for number, hit in enumerate(hits, start=1):
        place = " > ".join(part for part in (hit.title, hit.heading_path) if part)
        yield f"[{number}] {hit.score:.3f} {hit.source} ({hit.start}-{hit.end}) {place}"
        yield from (f"    {line}" for line in hit.text.splitlines())
    if not hits:
        yield "nothing was found"


def _reasons(
    skipped: list[tuple[str, str]], failed_sources: list[tuple[str, str]]
) -> Iterator[str]:
    for location, reason in failed_sources:
        yield f"source {location} could not be listed: {reason}"
    for name, reason in skipped:
        yield f"skipped {name}: {reason}"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
