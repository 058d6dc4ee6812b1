"""A run of the indexer against a collection in memory."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from indexer.documents import SourceDocument
from indexer.engines.local import ROWS_AT_ONCE, WINDOW_CHUNKS, Pipeline
from indexer.errors import DocumentGone, DocumentUnusable, SourceUnusable
from indexer.gate import GoldenQueries, GoldenQuery
from indexer.index.errors import FingerprintMismatch, IndexUnavailable
from indexer.report import DONE, DONE_IN_PART, REFUSED, Report
from indexer.run import Rules, Run
from tests.unit.index_fakes import FakeDocument, FakeDocuments, FakeWriter, tools

if TYPE_CHECKING:
    from tests.unit.index_fakes import FakeEncoder

LLAMAS = FakeDocument("a.md", "Llamas eat grass.")
BREAD = FakeDocument("b.md", "# Bread\n\nSourdough rises.")
FIVE = [FakeDocument(f"{number}.md", f"Text number {number}.") for number in range(5)]

RunOnce = Callable[..., Report]


@pytest.fixture
def run(writer: FakeWriter, encoder: "FakeEncoder") -> RunOnce:
    """One run over the documents given, with what was asked before forgotten."""

    def run(
        *documents: SourceDocument,
        size: int = 64,
        failures: list[tuple[str, str]] | None = None,
        rewrite: frozenset[str] = frozenset(),
        found: Callable[[str], list[Any]] = lambda _: [],
        seen: list[str] | None = None,
        **rules: Any,
    ) -> Report:
        for record in (writer.calls, writer.upserted, writer.looked_up, encoder.calls):
            record.clear()
        used = tools(writer, encoder, size=size)
        tenants = sorted({document.tenant for document in documents}) or ["default"]
        job = Run(
            used,
            Pipeline(used),
            Rules(tenants=tenants, default_tenant="default", **rules),
            search=lambda _: lambda query, _tenant, _limit: found(query),
        )
        with writer.lease(60) as lease:
            return job.execute(
                FakeDocuments(documents, failures or []),
                run=lease.run,
                rewrite=rewrite,
                on_document=(seen if seen is not None else []).append,
            )

    return run


def long_text(words: int, word: str = "word") -> str:
    """Text that a chunker of 64 characters cuts into about `words` / 6 chunks."""
    return " ".join(f"{word}{number:05d}" for number in range(words))


def embedded(encoder: "FakeEncoder") -> list[str]:
    return [text for texts in encoder.calls for text in texts]


def test_a_first_run_stores_every_document_and_then_publishes(
    run: RunOnce, writer: FakeWriter
) -> None:
    report = run(LLAMAS, BREAD)

    assert writer.calls == ["create", "upsert", "flush", "record", "publish"]
    assert (report.added, report.documents, report.chunks) == (2, 2, 2)
    assert (report.generation, report.published, report.exit_code) == ("kb__g1", True, DONE)
    assert writer.texts() == ["Llamas eat grass.", "# Bread\n\nSourdough rises."]
    published = writer.published()
    assert published is not None
    assert published.last_run is not None
    assert (published.last_run.run, published.last_run.documents) == (1, 2)


def test_a_row_tells_where_its_text_stands(run: RunOnce, writer: FakeWriter) -> None:
    body = long_text(40)
    run(FakeDocument("b.md", f"---\ntitle: The bread\n---\n# Bread\n\n{body}", tenant="acme"))

    first, *rest = writer.rows()

    assert len(rest) > 3
    text = f"# Bread\n\n{body}"
    for ordinal, row in enumerate([first, *rest]):
        assert text[row.start : row.end] == row.text
        assert (row.ordinal, row.chunk_count) == (ordinal, len(rest) + 1)
        assert (row.tenant, row.title, row.heading_path) == ("acme", "The bread", "Bread")
        assert (row.document_id, row.document_hash) == (first.document_id, first.document_hash)


@pytest.mark.parametrize(
    ("document", "title"),
    [
        (FakeDocument("docs/c.md", "Text.", title="Said by the source"), "Said by the source"),
        (FakeDocument("docs/c.md", "# Own\n\nText.", title="Said by the source"), "Own"),
        (FakeDocument("docs/c.md", "Text."), "c.md"),
    ],
)
def test_the_title_is_the_documents_own_then_the_sources_then_the_name_of_the_file(
    run: RunOnce, writer: FakeWriter, document: FakeDocument, title: str
) -> None:
    run(document)

    assert [row.title for row in writer.rows()] == [title]


def test_a_second_run_embeds_and_writes_nothing(
    run: RunOnce, writer: FakeWriter, encoder: "FakeEncoder"
) -> None:
    run(LLAMAS, BREAD)
    report = run(LLAMAS, BREAD)

    assert (report.kept, report.documents, report.chunks_written) == (2, 2, 0)
    assert (writer.calls, encoder.calls) == ([], [])


def test_what_the_source_says_is_unchanged_is_not_read(run: RunOnce, writer: FakeWriter) -> None:
    versioned = FakeDocument("v.md", "One.", version="etag-1")
    run(versioned)
    [row] = writer.rows()
    assert row.version == "etag-1"
    # Other text under the same version: it would be noticed if it were read.
    assert run(FakeDocument("v.md", "Two.", version="etag-1")).kept == 1
    assert run(FakeDocument("v.md", "Two.", version="etag-2")).changed == 1


def test_a_change_is_written_before_what_it_replaces_is_deleted(
    run: RunOnce, writer: FakeWriter, encoder: "FakeEncoder"
) -> None:
    run(LLAMAS, BREAD)
    report = run(FakeDocument("a.md", "Llamas eat hay."), BREAD)

    assert (report.changed, report.kept, report.chunks_written) == (1, 1, 1)
    assert writer.calls == ["upsert", "delete_older", "flush", "record"]
    assert writer.texts() == ["Llamas eat hay.", "# Bread\n\nSourdough rises."]
    assert len(embedded(encoder)) == 1


def test_of_a_changed_document_only_the_changed_chunks_are_embedded(
    run: RunOnce, encoder: "FakeEncoder", writer: FakeWriter
) -> None:
    paragraphs = [long_text(7, f"p{number}x") for number in range(6)]
    run(FakeDocument("a.md", "\n\n".join(paragraphs)))
    vectors = {chunk.text: vector for chunk, vector in writer.collections["kb__g1"].values()}
    # The first paragraph is new, so that every other chunk moves.
    report = run(FakeDocument("a.md", "\n\n".join(["An entirely new beginning.", *paragraphs])))

    assert len(embedded(encoder)) == 1
    assert report.chunks_reused == report.chunks_written - 1 > 5
    for chunk, vector in writer.collections["kb__g1"].values():
        if chunk.text in vectors:
            assert np.array_equal(vector, vectors[chunk.text])


def test_a_document_that_moved_keeps_its_vectors(
    run: RunOnce, encoder: "FakeEncoder", writer: FakeWriter
) -> None:
    text = "# Title\n\n" + long_text(30)
    run(FakeDocument("old/place.md", text), *FIVE)
    report = run(FakeDocument("new/place.md", text), *FIVE)

    assert (report.added, report.deleted) == (1, 1)
    assert encoder.calls == []
    assert {row.source for row in writer.rows()} >= {"new/place.md"}


def test_two_documents_of_the_same_text_stay_two_and_are_embedded_once(
    run: RunOnce, encoder: "FakeEncoder", writer: FakeWriter
) -> None:
    text = "# Same\n\nThe same text."
    run(FakeDocument("a.md", text), FakeDocument("b.md", text))

    assert [row.source for row in writer.rows()] == ["a.md", "b.md"]
    assert len(embedded(encoder)) == 1


def test_a_document_that_shrank_loses_the_chunks_at_its_end(
    run: RunOnce, writer: FakeWriter
) -> None:
    run(FakeDocument("a.md", long_text(60)), BREAD)
    run(FakeDocument("a.md", "Llamas."), BREAD)

    assert writer.texts() == ["Llamas.", "# Bread\n\nSourdough rises."]


def test_what_is_gone_from_the_sources_is_deleted(run: RunOnce, writer: FakeWriter) -> None:
    run(*FIVE)
    report = run(*FIVE[1:])

    assert (report.kept, report.deleted, report.exit_code) == (4, 1, DONE)
    assert writer.calls == ["delete_documents", "flush", "record"]
    assert writer.texts() == [document.text for document in FIVE[1:]]


def test_a_page_that_says_it_is_gone_is_deleted(run: RunOnce, writer: FakeWriter) -> None:
    run(*FIVE)
    gone = FakeDocument(FIVE[0].name, failure=DocumentGone("it answers 404"))
    report = run(gone, *FIVE[1:])

    assert (report.deleted, report.skipped) == (1, [])
    assert len(writer.rows()) == 4


def test_a_mass_deletion_is_refused_while_everything_else_is_done(
    run: RunOnce, writer: FakeWriter
) -> None:
    run(*FIVE)
    report = run(*FIVE[2:], FakeDocument("new.md", "New."))

    assert (report.exit_code, report.withheld, report.deleted) == (REFUSED, 2, 0)
    assert "2 of 5 documents would be gone, more than 20 %" in report.refused
    assert len(writer.rows()) == 6


@pytest.mark.parametrize("rules", [{"allow_mass_deletion": True}, {"max_deletion_percent": 40}])
def test_a_mass_deletion_that_is_meant_is_done(
    run: RunOnce, writer: FakeWriter, rules: dict[str, Any]
) -> None:
    run(*FIVE)
    report = run(*FIVE[2:], **rules)

    assert (report.exit_code, report.deleted) == (DONE, 2)
    assert len(writer.rows()) == 3


def test_a_source_that_cannot_be_listed_deletes_nothing(run: RunOnce, writer: FakeWriter) -> None:
    run(*FIVE)
    report = run(*FIVE[1:], failures=[("s3://bucket", "access denied")])

    assert (report.exit_code, report.deleted, report.withheld) == (DONE_IN_PART, 0, 1)
    assert len(writer.rows()) == 5


def test_a_source_that_cannot_be_listed_keeps_a_new_generation_from_its_readers(
    run: RunOnce, writer: FakeWriter
) -> None:
    run(*FIVE)
    report = run(*FIVE[1:], size=128, failures=[("s3://bucket", "access denied")])

    assert (report.exit_code, report.published, writer.alias) == (DONE_IN_PART, False, "kb__g1")
    assert run(*FIVE, size=128).published
    assert writer.alias == "kb__g3"


def test_no_source_at_all_is_told(writer: FakeWriter, encoder: "FakeEncoder") -> None:
    class Nothing(FakeDocuments):
        def __iter__(self) -> Any:
            raise SourceUnusable("docs lists no documents")

    used = tools(writer, encoder)
    rules = Rules(tenants=["default"], default_tenant="default")
    job = Run(used, Pipeline(used), rules, search=lambda _: lambda *_: [])
    with pytest.raises(SourceUnusable), writer.lease(60) as lease:
        job.execute(Nothing([]), run=lease.run)
    assert writer.alias is None


def test_a_skipped_document_keeps_its_stored_rows_and_stops_no_other(
    run: RunOnce, writer: FakeWriter
) -> None:
    run(LLAMAS, BREAD)
    broken = FakeDocument("a.md", failure=DocumentUnusable("it is binary"))
    report = run(broken, FakeDocument("b.md", "Rye."))

    assert report.skipped == [("a.md", "it is binary")]
    assert (report.changed, report.deleted, report.exit_code) == (1, 0, DONE_IN_PART)
    assert writer.texts() == ["Llamas eat grass.", "Rye."]


def test_a_document_of_headings_alone_is_skipped(run: RunOnce) -> None:
    report = run(LLAMAS, FakeDocument("b.md", "# Only a heading\n"))

    assert report.skipped == [("b.md", "there is no text in it but headings")]


def test_an_interrupted_document_is_done_again_without_embedding_anew(
    run: RunOnce, writer: FakeWriter, encoder: "FakeEncoder"
) -> None:
    long = FakeDocument("a.md", long_text(60))
    run(long, BREAD)
    whole = writer.rows()
    lost = whole[1].chunk_id
    del writer.collections["kb__g1"][lost]
    report = run(long, BREAD)

    assert (report.changed, report.kept) == (1, 1)
    assert [row.chunk_id for row in writer.rows()] == [row.chunk_id for row in whole]
    assert len(embedded(encoder)) == 1


def test_what_an_interrupted_change_left_behind_is_deleted(
    run: RunOnce, writer: FakeWriter
) -> None:
    run(LLAMAS, BREAD)
    [old] = [row for row in writer.collections["kb__g1"].items() if row[1][0].source == "a.md"]
    hay = FakeDocument("a.md", "Llamas eat hay.")
    run(hay, BREAD)
    # As if that run had been killed between its upsert and its delete.
    writer.collections["kb__g1"][old[0]] = old[1]
    report = run(hay, BREAD)

    assert (report.changed, report.kept) == (1, 1)
    assert writer.texts() == ["Llamas eat hay.", "# Bread\n\nSourdough rises."]


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
