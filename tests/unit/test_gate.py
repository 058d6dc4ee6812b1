"""What a new generation must be and find before readers see it."""

from collections.abc import Callable, Sequence

import pytest

from indexer.gate import GoldenQueries, GoldenQuery, golden_failure, missing_rows, too_many_gone
from indexer.index.records import Hit
from indexer.report import Report


@pytest.mark.parametrize(
    ("gone", "before", "max_percent", "refused"),
    [
        (0, 0, 20, False),
        (0, 10, 0, False),
        (1, 10, 0, True),
        (2, 10, 20, False),
        (3, 10, 20, True),
        (20, 100, 20, False),
        (201, 1000, 20, True),
        (10, 10, 100, False),
        (-5, 10, 20, False),
    ],
)
def test_more_than_the_share_is_too_many(
    gone: int, before: int, max_percent: int, refused: bool
) -> None:
    assert bool(too_many_gone(gone, before, max_percent)) == refused


def test_what_was_written_kept_and_left_alone_must_be_there() -> None:
    report = Report(generation="kb__g2", added=2, kept=3, chunks_written=10, chunks_kept=7)
    report.skip("broken.pdf", "it is empty", rows=4)
    report.skip("never.pdf", "it is empty", rows=0)

    assert missing_rows(report, 6, 21) == ""
    assert "holds 6 documents in 20 chunks" in missing_rows(report, 6, 20)
    assert "6 in 21 were written" in missing_rows(report, 5, 21)


def answers(**found: list[Hit]) -> Callable[[str, str, int], Sequence[Hit]]:
    def search(query: str, tenant: str, limit: int) -> Sequence[Hit]:
        return found.get(f"{tenant}_{query}", [])[:limit]

    return search


def golden(min_found: float, *queries: GoldenQuery, results: int = 5) -> GoldenQueries:
    return GoldenQueries(queries=list(queries), min_found=min_found, results=results)


def test_an_expectation_is_met_by_source_or_text_of_a_hit(make_hit: Callable[..., Hit]) -> None:
    search = answers(main_a=[make_hit(source="docs/guide.md", text="Turn it on.")])
    for expected in ("guide.md", "Turn it"):
        queries = golden(1.0, GoldenQuery(query="a", expect=expected))
        assert golden_failure(queries, "main", search) == ""
    missed = golden(1.0, GoldenQuery(query="a", expect="Turn it off"))
    assert "1 of 1 golden queries" in golden_failure(missed, "main", search)


def test_a_query_may_be_that_of_another_tenant(make_hit: Callable[..., Hit]) -> None:
    search = answers(acme_a=[make_hit(source="x")])

    assert golden_failure(golden(1.0, GoldenQuery("a", "x", "acme")), "main", search) == ""
    assert golden_failure(golden(1.0, GoldenQuery("a", "x")), "main", search)


def test_a_hit_counts_only_among_the_first_results(make_hit: Callable[..., Hit]) -> None:
    search = answers(main_a=[make_hit(source="other"), make_hit(source="x")])

    assert golden_failure(golden(1.0, GoldenQuery("a", "x"), results=2), "main", search) == ""
    assert golden_failure(golden(1.0, GoldenQuery("a", "x"), results=1), "main", search)


@pytest.mark.parametrize("count", [1, 3, 7, 10, 20, 100])
@pytest.mark.parametrize("tenths", range(11))
def test_exactly_the_asked_share_is_enough(
    count: int, tenths: int, make_hit: Callable[..., Hit]
) -> None:
    needed = -(-count * tenths // 10)
    for found in range(count + 1):
        search = answers(**{f"main_{n}": [make_hit(source="x")] for n in range(found)})
        queries = golden(tenths / 10, *(GoldenQuery(str(n), "x") for n in range(count)))
        assert (golden_failure(queries, "main", search) == "") == (found >= needed)
