"""What each command does with parts that were put together for it. Constructs no client."""

import asyncio
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from indexer import gate, generations, metrics
from indexer.console import (
    Status,
    hit_lines,
    plan_lines,
    print_json,
    processed_lines,
    report_lines,
    status_lines,
    verification_lines,
)
from indexer.errors import MetricsNotTold
from indexer.index.collection import Generation, IndexReader, IndexWriter
from indexer.index.embedding import Encoder
from indexer.index.errors import KnowledgeBaseMissing
from indexer.index.library import Library
from indexer.index.records import Hit
from indexer.index.searching import Query, Search
from indexer.parts import Parts
from indexer.plan import Planner
from indexer.report import DONE, DONE_IN_PART, Report
from indexer.run import Rules, Run
from indexer.settings import (
    ForgetSettings,
    PlanSettings,
    PruneSettings,
    RollbackSettings,
    RunSettings,
    SearchSettings,
    SourceSettings,
    StatusSettings,
    VerifySettings,
    WatchSettings,
)
from indexer.sources import Listing, can_be_listed_twice
from indexer.uploads.indexing import Indexing
from indexer.uploads.means import Processed
from indexer.uploads.watch import Watch
from indexer.verify import Verification
from indexer.verify import verify as verify_index


def run(parts: Parts, settings: RunSettings, number: int) -> int:
    """Make the index equal to its sources, as run `number`."""
    return _finished(settings, _execute(parts, settings, number, rewrite=()))


def repair(parts: Parts, settings: RunSettings, number: int) -> int:
    """Find what is broken, and write that anew with whatever else has changed."""
    found = _verified(parts, settings)
    if not settings.json_output:
        _print(verification_lines(found))
    return _finished(settings, _execute(parts, settings, number, rewrite=found.broken))


def plan(parts: Parts, settings: PlanSettings) -> int:
    """Print what a run would do."""
    planner = Planner(parts.tools, _rules(parts, settings))
    made = planner.make(_listed(parts), parts.progress.on_document)
    _show(settings.json_output, made, plan_lines(made, settings.knowledge_base))
    return made.exit_code


def verify(parts: Parts, settings: VerifySettings) -> int:
    """Print in what the index differs from its sources and from itself."""
    found = _verified(parts, settings)
    _show(settings.json_output, found, verification_lines(found))
    return found.exit_code


def watch(library: Library, indexing: Indexing, settings: WatchSettings) -> int:
    """Index the vector stores of the library: once, or for as long as the process lives."""
    told: list[Processed] = []

    def tell(processed: Processed) -> None:
        if settings.once:
            told.append(processed)
        _show(settings.json_output, processed, processed_lines(processed))
        sys.stdout.flush()  # it may be a log, and the next line may be far

    def complain(line: str) -> None:
        print(f"warning: {line}", file=sys.stderr)

    watching = Watch(library, indexing, tell, complain)
    if not settings.once:
        watching.forever(settings.watch_interval_s)
    watching.once()
    return DONE_IN_PART if any(each.failed or each.error for each in told) else DONE


def status(writer: IndexWriter, settings: StatusSettings) -> int:
    """Print what is stored under the name of the knowledge base."""
    published = writer.published()
    found = Status(
        knowledge_base=settings.knowledge_base,
        published=published,
        generations=writer.generations(),
        chunks_by_tenant=writer.tenants(published) if published else {},
        leases=writer.leases(),
    )
    _show(settings.json_output, found, status_lines(found))
    return DONE


def search(reader: Callable[[], IndexReader], encoder: Encoder, settings: SearchSettings) -> int:
    """Print the chunks that are nearest to the query. Raises IndexFailure."""
    [vector] = encoder.encode_queries([settings.query])
    asked = Search(
        tenant=settings.tenant, limit=settings.max_num_results, mode=settings.search_mode
    )
    hits = asyncio.run(_hits(reader, settings.knowledge_base, Query(settings.query, vector), asked))
    if settings.json_output:
        print_json({"hits": msgspec.to_builtins(hits)})
    else:
        _print(hit_lines(hits))
    return DONE


def rollback(writer: IndexWriter, settings: RollbackSettings) -> int:
    """Publish the generation before the published one. Raises KnowledgeBaseMissing."""
    published = generations.roll_back(writer)
    line = (
        f"{settings.knowledge_base}: {published.collection} is published again; a run with other "
        "parameters than it was built with builds a new generation"
    )
    _show(settings.json_output, {"published": published.collection}, [line])
    return DONE


def prune(writer: IndexWriter, settings: PruneSettings) -> int:
    """Drop what is neither published nor kept."""
    dropped = generations.prune(writer, settings.keep_generations)
    line = f"{settings.knowledge_base}: dropped {', '.join(dropped) or 'nothing'}"
    _show(settings.json_output, {"dropped": dropped}, [line])
    return DONE


def forget(writer: IndexWriter, settings: ForgetSettings) -> int:
    """Delete everything of one tenant, from every generation."""
    chunks = generations.forget(writer, settings.forgotten)
    line = f"{settings.knowledge_base}: {chunks} chunks of tenant {settings.forgotten} deleted"
    _show(settings.json_output, {"deleted_chunks": chunks}, [line])
    return DONE


def tell_metrics(settings: RunSettings, report: Report, exit_code: int) -> None:
    """Tell Prometheus; one that cannot be told is no reason for a run to fail."""
    try:
        metrics.tell(
            report,
            exit_code,
            settings.knowledge_base,
            settings.metrics_file,
            settings.pushgateway_url,
        )
    except MetricsNotTold as exc:
        print(f"warning: {exc}", file=sys.stderr)


def _execute(parts: Parts, settings: RunSettings, number: int, rewrite: Iterable[str]) -> Report:
    def search_in(generation: Generation) -> gate.Search:
        def search(query: str, tenant: str, limit: int) -> Sequence[Hit]:
            [vector] = parts.tools.encoder.encode_queries([query])
            asked = Search(tenant=tenant, limit=limit, mode=settings.search_mode)
            return asyncio.run(_hits(parts.reader, generation, Query(query, vector), asked))

        return search

    job = Run(
        parts.tools,
        parts.engine,
        _rules(parts, settings),
        search=search_in,
        bulk=parts.bulk,
    )
    return job.execute(
        _listed(parts),
        run=number,
        rewrite=frozenset(rewrite),
        on_document=parts.progress.on_document,
    )


def _finished(settings: RunSettings, report: Report) -> int:
    tell_metrics(settings, report, report.exit_code)
    _show(settings.json_output, report, report_lines(report, settings.knowledge_base))
    if report.refused:
        print(f"error: {report.refused}", file=sys.stderr)
    return report.exit_code


def _verified(parts: Parts, settings: SourceSettings) -> Verification:
    published = parts.tools.writer.published()
    if published is None:
        raise KnowledgeBaseMissing(f"nothing is published as {settings.knowledge_base!r} yet")
    return verify_index(
        parts.tools, published, _listed(parts), _tenants(parts), parts.progress.on_document
    )


def _listed(parts: Parts) -> Listing:
    """The documents of the sources, which the progress shows from now on."""
    sources = parts.configuration.sources
    parts.progress.begin(Listing(sources) if can_be_listed_twice(sources) else None)
    return Listing(sources)


def _rules(parts: Parts, settings: SourceSettings) -> Rules:
    return Rules(
        tenants=_tenants(parts),
        default_tenant=settings.tenant,
        max_deletion_percent=settings.max_deletion_percent,
        allow_mass_deletion=settings.allow_mass_deletion,
        keep_generations=settings.keep_generations if isinstance(settings, RunSettings) else 1,
        golden=parts.configuration.golden,
    )


def _tenants(parts: Parts) -> list[str]:
    return sorted({source.tenant for source in parts.configuration.sources})


async def _hits(
    reader: Callable[[], IndexReader],
    generation: Generation | str,
    query: Query,
    search: Search,
) -> list[Hit]:
    """The hits in a generation, or in what is published under a name. Raises IndexFailure."""
    connection = reader()
    try:
        if isinstance(generation, str):
            generation = await connection.published(generation)
        [hits] = await connection.search(generation, [query], search)
        return hits
    finally:
        await connection.close()


def _show(as_json: bool, result: Any, lines: Iterable[str]) -> None:
    if as_json:
        print_json(result)
    else:
        _print(lines)


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)
