"""Runs that build a generation, take one up, or refuse to publish it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from indexer.engines.local import ROWS_AT_ONCE, WINDOW_CHUNKS, Pipeline
from indexer.gate import GoldenQueries, GoldenQuery
from indexer.index.errors import FingerprintMismatch, IndexUnavailable
from indexer.report import REFUSED
from indexer.run import Rules, Run
from tests.unit.index_fakes import FakeDocument, FakeDocuments, FakeWriter, tools
from tests.unit.run_fakes import BREAD, FIVE, LLAMAS, RunOnce, embedded, long_text

if TYPE_CHECKING:
    from tests.unit.index_fakes import FakeEncoder


def test_another_fingerprint_builds_a_generation_beside_the_old_and_publishes_it_last(
    run: RunOnce, writer: FakeWriter
) -> None:
    run(LLAMAS, BREAD)
    report = run(LLAMAS, BREAD, size=128)

    assert (report.added, report.generation, report.published) == (2, "kb__g2", True)
    assert writer.calls == ["create", "upsert", "flush", "record", "publish"]
    assert list(writer.collections) == ["kb__g1", "kb__g2"]
    run(LLAMAS, BREAD, size=256)
    assert list(writer.collections) == ["kb__g2", "kb__g3"]
    run(LLAMAS, BREAD, size=512, keep_generations=0)
    assert list(writer.collections) == ["kb__g4"]


def test_another_encoder_is_another_fingerprint_and_its_vectors_are_not_used_again(
    run: RunOnce, writer: FakeWriter, encoder: "FakeEncoder"
) -> None:
    run(LLAMAS, BREAD)
    encoder.identity = msgspec.structs.replace(encoder.identity, revision="2")

    assert run(LLAMAS, BREAD).chunks_embedded == 2
    assert writer.described["kb__g2"].fingerprint.encoder.revision == "2"


def test_another_chunk_size_uses_the_vectors_of_chunks_that_stay_the_same(
    run: RunOnce, encoder: "FakeEncoder"
) -> None:
    run(LLAMAS, BREAD)
    report = run(LLAMAS, BREAD, size=128)

    assert (report.chunks_reused, embedded(encoder)) == (2, [])


def test_a_rebuild_that_would_lose_the_documents_of_others_is_refused(
    run: RunOnce, writer: FakeWriter
) -> None:
    run(LLAMAS, FakeDocument("b.md", "Bread.", tenant="acme"))
    with pytest.raises(FingerprintMismatch, match="other tenants"):
        run(LLAMAS, size=128)
    assert writer.calls == []


def test_rows_of_tenants_without_a_source_are_left_alone(run: RunOnce, writer: FakeWriter) -> None:
    run(LLAMAS, FakeDocument("b.md", "Bread.", tenant="acme"))
    report = run(FakeDocument("a.md", "Llamas eat hay."))

    assert (report.changed, report.deleted) == (1, 0)
    assert [row.tenant for row in writer.rows()] == ["acme", "default"]


def test_memory_does_not_grow_with_the_corpus(
    run: RunOnce, writer: FakeWriter, encoder: "FakeEncoder"
) -> None:
    huge = FakeDocument("huge.md", long_text(20 * WINDOW_CHUNKS))
    many = [FakeDocument(f"{n}.md", long_text(100, f"doc{n}x")) for n in range(40)]
    report = run(huge, *many)

    assert len(writer.upserted) > 8
    assert max(map(len, writer.upserted)) <= ROWS_AT_ONCE
    assert max(map(len, encoder.calls)) <= WINDOW_CHUNKS
    assert report.chunks_written == sum(map(len, writer.upserted)) == len(writer.rows())


def test_a_failure_in_the_middle_publishes_nothing_and_the_next_run_takes_it_up(
    run: RunOnce, writer: FakeWriter, encoder: "FakeEncoder"
) -> None:
    run(LLAMAS, BREAD)
    before = writer.rows()
    documents = [LLAMAS, BREAD, FakeDocument("huge.md", long_text(20 * WINDOW_CHUNKS))]
    writer.fail_at_upsert = 2
    with pytest.raises(IndexUnavailable):
        run(*documents, size=128)
    assert "publish" not in writer.calls
    assert (writer.alias, writer.rows()) == ("kb__g1", before)
    written = len(writer.collections["kb__g2"])
    assert written > 0

    writer.fail_at_upsert = None
    report = run(*documents, size=128)

    assert writer.calls[0] == "adopt"
    assert (report.published, writer.alias) == (True, "kb__g3")
    assert len(embedded(encoder)) == report.chunks - written
    clean = FakeWriter()
    used = tools(clean, encoder, size=128)
    rules = Rules(tenants=["default"], default_tenant="default")
    job = Run(used, Pipeline(used), rules, search=lambda _: lambda *_: [])
    with clean.lease(60) as lease:
        job.execute(FakeDocuments(documents), run=lease.run)
    assert [row.chunk_id for row in writer.rows()] == [row.chunk_id for row in clean.rows()]


def test_what_another_build_left_unfinished_is_dropped(run: RunOnce, writer: FakeWriter) -> None:
    run(LLAMAS)
    writer.fail_at_upsert = 0
    with pytest.raises(IndexUnavailable):
        run(LLAMAS, size=128)
    writer.fail_at_upsert = None
    run(LLAMAS)
    assert list(writer.collections) == ["kb__g1"]


def test_a_run_that_could_use_no_document_publishes_nothing(
    run: RunOnce, writer: FakeWriter
) -> None:
    report = run(FakeDocument("a.md", ""), FakeDocument("b.md", ""))

    assert (report.published, writer.alias) == (False, None)
    assert len(report.skipped) == 2


def test_a_rebuild_that_lost_too_much_is_not_published_until_it_is_allowed(
    run: RunOnce, writer: FakeWriter, encoder: "FakeEncoder"
) -> None:
    run(*FIVE)
    broken = [FakeDocument(document.name, "") for document in FIVE[:2]]
    report = run(*broken, *FIVE[2:], size=128)

    assert (report.exit_code, report.published) == (REFUSED, False)
    assert "2 of 5 documents would be gone" in report.refused
    assert writer.alias == "kb__g1"
    report = run(*broken, *FIVE[2:], size=128, allow_mass_deletion=True)
    assert (report.published, embedded(encoder)) == (True, [])


GOLDEN = GoldenQueries(
    queries=[GoldenQuery(query="one", expect="a.md"), GoldenQuery(query="two", expect="Sourdough")],
    min_found=0.6,
)


def test_golden_queries_decide_whether_a_generation_is_published(
    run: RunOnce, writer: FakeWriter, make_hit: Callable[..., Any]
) -> None:
    def found(query: str) -> list[Any]:
        return [make_hit(source="docs/a.md")] if query == "one" else []

    report = run(LLAMAS, BREAD, golden=GOLDEN, found=found)
    assert (report.exit_code, writer.alias) == (REFUSED, None)
    assert "1 of 2 golden queries" in report.refused
    assert "'two'" in report.refused

    lenient = msgspec.structs.replace(GOLDEN, min_found=0.5)
    assert run(LLAMAS, BREAD, golden=lenient, found=found).published


def test_rows_that_are_missing_after_the_last_write_keep_readers_away(
    run: RunOnce, writer: FakeWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "count", lambda *_: (2, 1))
    report = run(LLAMAS, BREAD)

    assert (report.exit_code, writer.alias) == (REFUSED, None)
    assert "holds 2 documents in 1 chunks, where 2 in 2 were written" in report.refused


def test_what_is_to_be_rewritten_is_embedded_anew_although_nothing_changed(
    run: RunOnce, writer: FakeWriter, encoder: "FakeEncoder"
) -> None:
    run(LLAMAS, BREAD)
    [llamas, _] = writer.rows()
    report = run(LLAMAS, BREAD, rewrite=frozenset([llamas.document_id]))

    assert (report.changed, report.kept) == (1, 1)
    assert len(embedded(encoder)) == 1


def test_every_document_is_told_once_when_it_is_done(run: RunOnce) -> None:
    empty = FakeDocument("c.md", "")
    first: list[str] = []
    run(LLAMAS, BREAD, empty, seen=first)
    second: list[str] = []
    run(FakeDocument("a.md", "Changed."), BREAD, empty, seen=second)

    assert sorted(first) == sorted(second) == ["a.md", "b.md", "c.md"]
