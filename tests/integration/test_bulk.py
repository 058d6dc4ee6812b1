"""A bulk load into a Milvus Lite server. Lite has no import: a fake of it reads the files."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pymilvus import MilvusClient

from indexer.index.collection import IndexWriter
from indexer.index.collection.bulk import BulkLoad, _imported, bulk_load
from indexer.index.collection.generation import GRPC_OPTIONS
from indexer.index.embedding import Vectors
from indexer.index.errors import IndexUnavailable
from indexer.index.records import Chunk, Fingerprint
from indexer.index.settings import IndexSettings
from tests.unit.bulk_fakes import FakeMilvus, fake_milvus
from tests.unit.index_fakes import IDENTITY

pytest.importorskip("minio", reason="pymilvus[bulk-writer] is not installed")
pq = pytest.importorskip("pyarrow.parquet")
Files, _ = _imported()
FINGERPRINT = Fingerprint(encoder=IDENTITY, chunker="c")


@pytest.fixture
def client(milvus_uri: str) -> Iterator[MilvusClient]:
    client = MilvusClient(milvus_uri, grpc_options=GRPC_OPTIONS)
    client.refresh_load = client.load_collection  # which Lite would be waited for in vain
    yield client
    client.close()


@pytest.fixture
def importing(client: MilvusClient) -> Iterator[FakeMilvus]:
    def import_files(collection: str, files: list[list[str]]) -> None:
        for [path] in files:
            rows = pq.read_table(path).to_pylist()
            for row in rows:
                row["attributes"] = json.loads(row["attributes"])
            client.upsert(collection, rows)

    with fake_milvus() as fake:
        fake.on_import = import_files
        yield fake


def chunks(count: int) -> list[Chunk]:
    return [
        Chunk(
            chunk_id=f"{ordinal:032x}",
            tenant="acme",
            document_id="d1",
            document_hash="h",
            version="",
            run=1,
            source="docs/ü.md",
            title="Llamas",
            heading_path="Llamas > Food",
            ordinal=ordinal,
            chunk_count=count,
            start=10 * ordinal,
            end=10 * ordinal + 5,
            text=f"Llamas eat grass {ordinal}.",
            chunk_hash=f"c{ordinal}",
            attributes={"tags": ["a", {"b": None}]},
        )
        for ordinal in range(count)
    ]


def vectors(count: int) -> Vectors:
    found = np.random.default_rng(1).random((count, IDENTITY.dimension), dtype=np.float32)
    unit: Vectors = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


def test_a_loaded_generation_is_the_one_that_requests_would_have_written(
    writer: IndexWriter, client: MilvusClient, importing: FakeMilvus, tmp_path: Path
) -> None:
    rows, embedded = chunks(50), vectors(50)
    with writer.lease(60) as lease:
        generation = writer.create(FINGERPRINT)
        files = Files(generation, tmp_path)
        load = BulkLoad(files, importing.jobs(lease.check), client, generation, 10)
        load.upsert(generation, rows[:30], embedded[:30])
        load.upsert(generation, rows[30:], embedded[30:])

        assert writer.count(generation, ["acme"]) == (0, 0)
        assert load.finish() == 50
        files.remove()
        assert writer.count(generation, ["acme"]) == (1, 50)
        stored = sorted(writer.stored_rows(generation, ["acme"]), key=lambda row: row.chunk.ordinal)
        assert [row.chunk for row in stored] == rows
        assert np.allclose([row.vector for row in stored], embedded, atol=1e-6)
        found = client.search(
            generation.collection,
            data=["grass"],
            anns_field="sparse",
            limit=3,
            consistency_level="Strong",
        )
        assert len(found[0]) == 3
    assert [*tmp_path.iterdir()] == []


def test_milvus_lite_refuses_a_load_and_leaves_no_files(
    writer: IndexWriter, index_settings: IndexSettings, tmp_path: Path
) -> None:
    with writer.lease(60) as lease:
        generation = writer.create(FINGERPRINT)
        with bulk_load(index_settings, tmp_path, generation, lease.check) as load:
            load.upsert(generation, chunks(1), vectors(1))
            with pytest.raises(IndexUnavailable, match="Milvus Lite has no import"):
                load.finish()
    assert [*tmp_path.iterdir()] == []
