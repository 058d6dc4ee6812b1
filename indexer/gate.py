"""Decides whether a new generation may be published. Knows what was written and what is asked."""

from collections.abc import Callable, Sequence

import msgspec

from indexer.index.records import Hit
from indexer.report import Report


class GoldenQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question, and what must be found for it."""

    query: str
    expect: str
    """Part of the source or of the text of a hit that answers it."""
    tenant: str = ""
    """Whose documents answer it; the default tenant's where it is empty."""


class GoldenQueries(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a new generation must find before readers see it."""

    queries: list[GoldenQuery] = []
    results: int = 5
    """Hits among which the expected one must be."""
    min_found: float = 0.9
    """Share of the queries that must find theirs, from 0 to 1."""


Search = Callable[[str, str, int], Sequence[Hit]]
"""The hits for a query, a tenant and a number of results, best first."""


def missing_rows(report: Report, documents: int, chunks: int) -> str:
    """Why the counted `documents` and `chunks` are not those that were written; "" if they are."""
    if (documents, chunks) == (report.documents, report.chunks):
        return ""
    return (
        f"{report.generation} holds {documents} documents in {chunks} chunks, where "
        f"{report.documents} in {report.chunks} were written"
    )


def too_many_gone(gone: int, before: int, max_percent: int) -> str:
    """Why `gone` of `before` documents are too many to delete; "" if they are not."""
    if gone * 100 <= before * max_percent:
        return ""
    return (
        f"{gone} of {before} documents would be gone, more than {max_percent} %: if that is meant, "
        "run once with --allow-mass-deletion"
    )


def golden_failure(golden: GoldenQueries, default_tenant: str, search: Search) -> str:
    """Why the golden queries are not answered well enough; "" if they are."""
    unanswered = [
        golden_query.query
        for golden_query in golden.queries
        if not any(
            golden_query.expect in hit.source or golden_query.expect in hit.text
            for hit in search(
                golden_query.query, golden_query.tenant or default_tenant, golden.results
            )
        )
    ]
    found = len(golden.queries) - len(unanswered)
    if found >= round(golden.min_found * len(golden.queries), 6):
        return ""
    return (
        f"{len(unanswered)} of {len(golden.queries)} golden queries do not find what they expect "
        f"among {golden.results} results, such as {unanswered[0]!r}"
    )
