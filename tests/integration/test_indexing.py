"""Runs of the indexer on a Milvus Lite server, with the real encoder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from indexer.gate import GoldenQueries, GoldenQuery
from indexer.index.collection import IndexReader, IndexWriter
from indexer.index.embedding import Encoder
from indexer.index.errors import FingerprintMismatch, IndexUnavailable, KnowledgeBaseMissing
from indexer.index.records import Hit
from indexer.index.searching import Query, Search
from indexer.index.settings import IndexSettings
from indexer.report import REFUSED, Report

RunIndexer = Callable[..., Report]


async def _search(
    settings: IndexSettings, encoder: Encoder, question: str, *, tenant: str = "default"
) -> list[Hit]:
    reader = IndexReader(settings)
    try:
        generation = await reader.published(settings.knowledge_base)
        [vector] = encoder.encode_queries([question])
        asked = Search(tenant=tenant, limit=3, mode=settings.search_mode)
        return (await reader.search(generation, [Query(question, vector)], asked))[0]
    finally:
        await reader.close()


@pytest.mark.anyio
async def test_a_question_finds_the_passage_that_answers_it(
    index_settings: IndexSettings, encoder: Encoder, documents: Path, run_indexer: RunIndexer
) -> None:
    report = run_indexer(documents)
    assert (report.added, report.published) == (3, True)
    best = (await _search(index_settings, encoder, "How high is a geostationary orbit?"))[0]
    assert "35,786 km" in best.text
    assert best.source == "https://example.org/orbit"
    assert best.title == "Orbits"
    assert "Shop" not in best.text
    hits = await _search(index_settings, encoder, "What do llamas eat?")
    assert hits[0].source == "docs/llama.md"
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


@pytest.mark.anyio
async def test_hits_point_at_their_place_in_the_document(
    index_settings: IndexSettings, encoder: Encoder, documents: Path, run_indexer: RunIndexer
) -> None:
    run_indexer(documents, size=64)
    text = (documents / "llama.md").read_text()
    hit = (await _search(index_settings, encoder, "hay and grass as food for llamas"))[0]
    assert text[hit.start : hit.end] == hit.text
    assert hit.heading_path == "Llamas > Food"


def test_a_second_run_changes_nothing(
    writer: IndexWriter, documents: Path, run_indexer: RunIndexer
) -> None:
    first = run_indexer(documents)
    generation = writer.published()
    assert generation is not None
    before = {row.chunk.chunk_id: row.chunk for row in writer.stored_rows(generation, ["default"])}
    second = run_indexer(documents)
    assert (second.added, second.changed, second.kept, second.deleted) == (0, 0, 3, 0)
    assert (second.chunks_written, second.generation) == (0, first.generation)
    after = {row.chunk.chunk_id: row.chunk for row in writer.stored_rows(generation, ["default"])}
    assert after == before
    assert writer.published() == generation


def test_a_changed_document_keeps_the_vectors_of_its_unchanged_chunks(
    writer: IndexWriter, tmp_path: Path, run_indexer: RunIndexer
) -> None:
    paragraphs = [f"Paragraph {n} tells something of its own about topic {n}. " * 4 for n in "abcd"]
    document = tmp_path / "docs" / "long.txt"
    document.parent.mkdir()
    document.write_text("\n\n".join(paragraphs))
    run_indexer(document.parent, size=256)
    generation = writer.published()
    assert generation is not None
    rows = list(writer.stored_rows(generation, ["default"]))
    vectors = {row.chunk.text: row.vector for row in rows}
    document.write_text("\n\n".join(["A new first paragraph.", *paragraphs]))
    report = run_indexer(document.parent, size=256)

    assert (report.changed, report.chunks_embedded) == (1, 1)
    assert report.chunks_reused == len(rows) - 1, "the first one has become another"
    for row in writer.stored_rows(generation, ["default"]):
        if row.chunk.text in vectors:
            assert np.array_equal(row.vector, vectors[row.chunk.text])
            assert row.chunk.ordinal > 0, "it has moved"


@pytest.mark.anyio
async def test_a_changed_document_replaces_its_chunks_and_a_removed_one_goes(
    index_settings: IndexSettings,
    encoder: Encoder,
    documents: Path,
    run_indexer: RunIndexer,
    writer: IndexWriter,
) -> None:
    run_indexer(documents)
    (documents / "llama.md").write_text("# Llamas\n\nLlamas carry loads of 30 kg over mountains.\n")
    (documents / "bread.txt").unlink()
    refused = run_indexer(documents)
    assert (refused.changed, refused.deleted, refused.exit_code) == (1, 0, REFUSED)
    report = run_indexer(documents, allow_mass_deletion=True)
    assert (report.kept, report.deleted) == (2, 1)
    texts = [hit.text for hit in await _search(index_settings, encoder, "llamas and bread")]
    assert any("30 kg" in text for text in texts)
    assert not any("domesticated" in text or "Sourdough" in text for text in texts)
    generation = writer.published()
    assert generation is not None
    assert len({chunk.document_id for chunk in writer.stored_chunks(generation, ["default"])}) == 2


@pytest.mark.anyio
async def test_other_parameters_make_a_new_generation_that_replaces_the_old_one(
    index_settings: IndexSettings,
    encoder: Encoder,
    documents: Path,
    run_indexer: RunIndexer,
    writer: IndexWriter,
) -> None:
    first = run_indexer(documents)
    second = run_indexer(documents, size=128)
    assert second.published
    assert second.generation != first.generation
    published = writer.published()
    assert published is not None
    assert published.collection == second.generation
    assert published.fingerprint.encoder == encoder.identity
    hits = await _search(index_settings, encoder, "How high is a geostationary orbit?")
    assert "35,786 km" in hits[0].text


@pytest.mark.anyio
async def test_a_reader_sees_the_rows_of_its_tenant_alone(
    index_settings: IndexSettings, encoder: Encoder, documents: Path, run_indexer: RunIndexer
) -> None:
    run_indexer(documents)
    hostile = 'x" or tenant != "'
    assert await _search(index_settings, encoder, "llamas", tenant="default")
    assert not await _search(index_settings, encoder, "llamas", tenant="other")
    assert not await _search(index_settings, encoder, "llamas", tenant=hostile)


@pytest.mark.parametrize(
    "tenant", ["plain", 'a"b', "a'b", "a\\b", "ünï", "日本", 'x" or "1" == "1']
)
def test_every_tenant_name_finds_its_own_rows_again(
    documents: Path, run_indexer: RunIndexer, tenant: str
) -> None:
    for expected in ((3, 0), (0, 3)):
        report = run_indexer(documents, tenant=tenant)
        assert (report.added, report.kept) == expected


def test_building_anew_never_loses_the_documents_of_another_tenant(
    documents: Path, run_indexer: RunIndexer
) -> None:
    run_indexer(documents)
    assert run_indexer(documents, tenant="second").added == 3
    with pytest.raises(FingerprintMismatch, match="other tenants"):
        run_indexer(documents, tenant="second", size=128)
    assert run_indexer(documents).kept == 3


def test_golden_queries_keep_a_bad_generation_from_its_readers(
    documents: Path, run_indexer: RunIndexer, writer: IndexWriter
) -> None:
    question = "How high is a geostationary orbit?"
    right = GoldenQueries(queries=[GoldenQuery(question, "35,786 km")], results=1)
    wrong = GoldenQueries(queries=[GoldenQuery(question, "llama.md")], results=1)
    assert run_indexer(documents, golden=wrong).exit_code == REFUSED
    assert writer.published() is None
    report = run_indexer(documents, golden=right)
    assert (report.published, report.chunks_embedded) == (True, 0)


@pytest.mark.anyio
async def test_an_unpublished_knowledge_base_is_missing(index_settings: IndexSettings) -> None:
    reader = IndexReader(index_settings)
    try:
        with pytest.raises(KnowledgeBaseMissing):
            await reader.published(index_settings.knowledge_base)
    finally:
        await reader.close()


def test_a_collection_that_is_not_ours_is_refused(
    writer: IndexWriter, index_settings: IndexSettings, documents: Path, run_indexer: RunIndexer
) -> None:
    writer._client.create_collection(f"{index_settings.knowledge_base}_other", dimension=4)
    writer._client.create_alias(
        f"{index_settings.knowledge_base}_other", index_settings.knowledge_base
    )
    with pytest.raises(FingerprintMismatch, match="no fingerprint"):
        run_indexer(documents)


def test_a_server_that_is_not_there_is_unavailable_within_the_time_limit(
    free_port: Callable[[], int],
) -> None:
    with pytest.raises(IndexUnavailable):
        IndexWriter(IndexSettings(milvus_uri=f"http://127.0.0.1:{free_port()}", milvus_timeout_s=1))
