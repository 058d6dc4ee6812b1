"""A run of the indexer against a collection in memory."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from indexer.chunking import Chunker
from indexer.index.errors import IndexUnavailable
from indexer.run import CHUNKS_AT_ONCE, Report, Run
from indexer.sources import find_files

if TYPE_CHECKING:
    from tests.unit.conftest import FakeEncoder, FakeWriter


RunOnce = Callable[..., Report]


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("Llamas eat grass.")
    (folder / "b.md").write_text("# Bread\n\nSourdough rises.")
    return folder


@pytest.fixture
def run(writer: "FakeWriter", encoder: "FakeEncoder", docs: Path) -> RunOnce:
    """One run over `docs`, with what was asked before forgotten."""

    def run(size: int = 64, tenant: str = "default", seen: list[str] | None = None) -> Report:
        for record in (writer.calls, writer.upserted, encoder.calls):
            record.clear()
        on_document = (seen if seen is not None else []).append
        return Run(writer, encoder, Chunker(size, 0), tenant, on_document).execute(
            find_files([docs])
        )

    return run


def long_text(words: int, word: str = "word") -> str:
    """Text that a chunker of 64 characters cuts into about `words` / 6 chunks."""
    return " ".join(f"{word}{number:05d}" for number in range(words))


def test_a_first_run_stores_every_document_and_then_publishes(
    run: RunOnce, writer: "FakeWriter"
) -> None:
    report = run()

    assert writer.calls == ["drop_unpublished", "create", "upsert", "flush", "publish",
                            "drop_unpublished"]  # fmt: skip
    assert report == Report(added=2, chunks_written=2, generation="kb__g1", published=True)
    assert writer.texts() == ["Llamas eat grass.", "# Bread\n\nSourdough rises."]


def test_a_row_tells_where_its_text_stands(run: RunOnce, writer: "FakeWriter", docs: Path) -> None:
    body = long_text(40)
    (docs / "b.md").write_text(f"---\ntitle: The bread\n---\n# Bread\n\n{body}")
    run(tenant="acme")

    first, *rest = [row for row in writer.rows() if row.source == "docs/b.md"]

    assert len(rest) > 3
    text = f"# Bread\n\n{body}"
    for ordinal, row in enumerate([first, *rest]):
        assert text[row.start : row.end] == row.text
        assert (row.ordinal, row.chunk_count) == (ordinal, len(rest) + 1)
        assert (row.tenant, row.title, row.heading_path) == ("acme", "The bread", "Bread")
        assert (row.document_id, row.document_hash) == (first.document_id, first.document_hash)


def test_a_canonical_url_is_the_source_and_a_file_name_the_last_resort_for_a_title(
    run: RunOnce, writer: "FakeWriter", docs: Path
) -> None:
    (docs / "b.md").unlink()
    (docs / "c.html").write_text('<link rel="canonical" href="https://x.org/c"><main>C</main>')
    run()

    assert [(row.source, row.title) for row in writer.rows()] == [
        ("docs/a.txt", "a.txt"),
        ("https://x.org/c", "c.html"),
    ]


def test_a_second_run_embeds_and_writes_nothing(
    run: RunOnce, writer: "FakeWriter", encoder: "FakeEncoder"
) -> None:
    run()
    report = run()

    assert report == Report(kept=2, generation="kb__g1")
    assert writer.calls == []
    assert encoder.calls == []


def test_a_change_is_written_before_what_it_replaces_is_deleted(
    run: RunOnce, writer: "FakeWriter", encoder: "FakeEncoder", docs: Path
) -> None:
    run()
    (docs / "a.txt").write_text("Llamas eat hay.")
    report = run()

    assert report == Report(changed=1, kept=1, chunks_written=1, generation="kb__g1")
    assert writer.calls == ["upsert", "delete", "flush"]
    assert encoder.calls == [["Llamas eat hay."]]
    assert writer.texts() == ["Llamas eat hay.", "# Bread\n\nSourdough rises."]


def test_a_change_that_leaves_the_chunks_as_they_were_deletes_none(
    run: RunOnce, writer: "FakeWriter", docs: Path
) -> None:
    run()
    (docs / "a.txt").write_text("Llamas eat grass.\n\n")
    before = writer.rows()[0]
    report = run()

    assert report.changed == 1
    assert "delete" not in writer.calls
    assert writer.rows()[0].chunk_id == before.chunk_id
    assert writer.rows()[0].document_hash != before.document_hash


def test_a_document_that_shrank_loses_the_chunks_at_its_end(
    run: RunOnce, writer: "FakeWriter", docs: Path
) -> None:
    (docs / "a.txt").write_text(long_text(60))
    run()
    (docs / "a.txt").write_text("Llamas.")
    run()

    assert writer.texts() == ["Llamas.", "# Bread\n\nSourdough rises."]


def test_what_is_gone_from_the_sources_is_deleted(
    run: RunOnce, writer: "FakeWriter", docs: Path
) -> None:
    run()
    (docs / "a.txt").unlink()
    report = run()

    assert report == Report(kept=1, deleted=1, generation="kb__g1")
    assert writer.calls == ["delete", "flush"]
    assert writer.texts() == ["# Bread\n\nSourdough rises."]


@pytest.mark.parametrize("unusable", [b"", b"\0binary", b"  "])
def test_a_skipped_document_keeps_its_stored_rows_and_stops_no_other(
    run: RunOnce, writer: "FakeWriter", docs: Path, unusable: bytes
) -> None:
    run()
    (docs / "a.txt").write_bytes(unusable)
    (docs / "b.md").write_text("Rye.")
    report = run()

    [(name, reason)] = report.skipped
    assert name == "docs/a.txt"
    assert reason
    assert (report.changed, report.deleted) == (1, 0)
    assert writer.texts() == ["Llamas eat grass.", "Rye."]


def test_a_document_of_headings_alone_is_skipped(run: RunOnce, docs: Path) -> None:
    (docs / "b.md").write_text("# Only a heading\n")

    assert run().skipped == [("docs/b.md", "there is no text in it but headings")]


def test_an_interrupted_document_is_done_again(
    run: RunOnce, writer: "FakeWriter", docs: Path
) -> None:
    (docs / "a.txt").write_text(long_text(60))
    run()
    whole = writer.rows()
    del writer.collections["kb__g1"][whole[1].chunk_id]
    report = run()

    assert (report.changed, report.kept) == (1, 1)
    assert writer.rows() == whole


def test_what_an_interrupted_change_left_behind_is_deleted(
    run: RunOnce, writer: "FakeWriter", docs: Path
) -> None:
    run()
    [old] = [row for row in writer.rows() if row.source == "docs/a.txt"]
    (docs / "a.txt").write_text("Llamas eat hay.")
    run()
    # As if that run had been killed between its upsert and its delete.
    writer.collections["kb__g1"][old.chunk_id] = old
    report = run()

    assert (report.changed, report.kept) == (1, 1)
    assert writer.texts() == ["Llamas eat hay.", "# Bread\n\nSourdough rises."]


def test_another_fingerprint_builds_a_generation_beside_the_old_and_publishes_it_last(
    run: RunOnce, writer: "FakeWriter"
) -> None:
    run()
    report = run(size=128)

    assert report == Report(added=2, chunks_written=2, generation="kb__g2", published=True)
    assert writer.calls == ["drop_unpublished", "create", "upsert", "flush", "publish",
                            "drop_unpublished"]  # fmt: skip
    assert list(writer.collections) == ["kb__g2"]


def test_another_encoder_is_another_fingerprint(
    run: RunOnce, writer: "FakeWriter", encoder: "FakeEncoder"
) -> None:
    run()
    encoder.identity = msgspec.structs.replace(encoder.identity, revision="2")

    assert run().generation == "kb__g2"
    assert writer.fingerprints["kb__g2"].encoder.revision == "2"


def test_memory_does_not_grow_with_the_corpus(
    run: RunOnce, writer: "FakeWriter", encoder: "FakeEncoder", docs: Path
) -> None:
    (docs / "huge.txt").write_text(long_text(9 * CHUNKS_AT_ONCE))
    for number in range(40):
        (docs / f"{number:02d}.txt").write_text(long_text(100, f"doc{number}x"))
    report = run()

    assert len(writer.upserted) > 4
    assert max(map(len, writer.upserted)) <= CHUNKS_AT_ONCE
    assert max(map(len, encoder.calls)) <= CHUNKS_AT_ONCE
    assert report.chunks_written == sum(map(len, writer.upserted)) == len(writer.rows())


def test_a_failure_in_the_middle_publishes_nothing_and_the_next_run_makes_it_whole(
    run: RunOnce, writer: "FakeWriter", encoder: "FakeEncoder", docs: Path
) -> None:
    run()
    before = writer.rows()
    (docs / "huge.txt").write_text(long_text(20 * CHUNKS_AT_ONCE))
    writer.fail_at_upsert = 1
    with pytest.raises(IndexUnavailable):
        run(size=128)

    assert "publish" not in writer.calls
    assert (writer.alias, writer.rows()) == ("kb__g1", before)
    writer.fail_at_upsert = None
    assert run(size=128).published
    clean = type(writer)()
    Run(clean, encoder, Chunker(128, 0), "default").execute(find_files([docs]))
    assert writer.rows() == clean.rows()


def test_a_run_that_could_use_no_document_publishes_nothing(
    run: RunOnce, writer: "FakeWriter", docs: Path
) -> None:
    for file in docs.iterdir():
        file.write_text("")
    report = run()

    assert not report.published
    assert writer.alias is None
    assert len(report.skipped) == 2


def test_every_document_is_told_once_when_it_is_done(run: RunOnce, docs: Path) -> None:
    (docs / "c.txt").write_text("")
    first: list[str] = []
    run(seen=first)
    (docs / "a.txt").write_text("Changed.")
    second: list[str] = []
    run(seen=second)

    assert sorted(first) == sorted(second) == ["docs/a.txt", "docs/b.md", "docs/c.txt"]
