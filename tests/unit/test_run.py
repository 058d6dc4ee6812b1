"""A run of the indexer against a collection in memory."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from indexer.engines.local import Pipeline
from indexer.errors import DocumentGone, DocumentUnusable, SourceUnusable
from indexer.report import DONE, DONE_IN_PART, REFUSED
from indexer.run import Rules, Run
from tests.unit.index_fakes import FakeDocument, FakeDocuments, FakeWriter, tools
from tests.unit.run_fakes import BREAD, FIVE, LLAMAS, RunOnce, embedded, long_text

if TYPE_CHECKING:
    from tests.unit.index_fakes import FakeEncoder


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
