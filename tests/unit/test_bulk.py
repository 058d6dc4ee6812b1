"""Bulk loads: real Parquet files, a real S3 client and pymilvus' real import calls, on fakes of
Milvus' REST interface and of a bucket that listen on real ports."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from indexer.index.collection import Generation
from indexer.index.collection.bulk import BulkLoad, BulkStorage, _imported
from indexer.index.collection.generation import BULK_LOAD_PROPERTY, schema
from indexer.index.embedding import Vectors
from indexer.index.errors import IndexRefused, IndexUnavailable
from indexer.index.records import Chunk, Fingerprint
from tests.unit.bulk_fakes import FakeBucket, FakeMilvus, fake_bucket, fake_milvus
from tests.unit.index_fakes import IDENTITY

pytest.importorskip("minio", reason="pymilvus[bulk-writer] is not installed")
pq = pytest.importorskip("pyarrow.parquet")
Files, ImportJobs = _imported()

GENERATION = Generation("kb__g1", Fingerprint(encoder=IDENTITY, chunker="c"))


@pytest.fixture
def milvus() -> Iterator[FakeMilvus]:
    with fake_milvus() as fake:
        yield fake


@pytest.fixture
def bucket() -> Iterator[FakeBucket]:
    with fake_bucket() as fake:
        yield fake


class FakeClient:
    """As much of a MilvusClient as a load needs; it has as many rows as it is told."""

    def __init__(self, rows: int = 0, there: int = 0) -> None:
        self.rows = rows
        """After an import."""
        self.there = there
        """Before it."""
        self.calls: list[str] = []

    def alter_collection_properties(
        self, collection: str, properties: dict[str, str], **_: object
    ) -> None:
        assert collection == GENERATION.collection
        self.calls.append(f"mark {properties[BULK_LOAD_PROPERTY]}".strip())

    def refresh_load(self, collection: str, **_: object) -> None:
        assert collection == GENERATION.collection
        self.calls.append("refresh")

    def query(self, collection: str, **_: object) -> list[dict[str, int]]:
        assert collection == GENERATION.collection
        self.calls.append("count")
        has_imported = "mark" in self.calls
        return [{"count(*)": self.there + (self.rows if has_imported else 0)}]


def chunk(ordinal: int, **stated: object) -> Chunk:
    defaults: dict[str, object] = {
        "chunk_id": f"{ordinal:032x}",
        "tenant": "acme",
        "document_id": "d1",
        "document_hash": "h",
        "version": "",
        "run": 7,
        "source": "docs/ü.md",
        "title": 'A "title"',
        "heading_path": "Llamas > Food",
        "ordinal": ordinal,
        "chunk_count": 3,
        "start": 10 * ordinal,
        "end": 10 * ordinal + 5,
        "text": f"Llamas eat grass {ordinal}.\n日本",
        "chunk_hash": "c",
        "attributes": {"tags": ["a", {"b": None}], "big": 2**53 + 1, "ü": 0.5},
    }
    return msgspec.convert(defaults | stated, Chunk)


def vectors(count: int) -> Vectors:
    return np.random.default_rng(1).random((count, IDENTITY.dimension), dtype=np.float32)


@contextmanager
def files_in(folder: Path, storage: BulkStorage | None = None) -> Iterator[Any]:
    folder.mkdir(exist_ok=True)
    files = Files(GENERATION, folder, storage)
    try:
        yield files
    finally:
        files.remove()


def rows_in(paths: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    return [row for [path] in paths for row in pq.read_table(path).to_pylist()]


def test_what_is_read_back_from_the_files_is_what_was_written(tmp_path: Path) -> None:
    written, embedded = [chunk(number) for number in range(3)], vectors(3)
    with files_in(tmp_path) as files:
        files.add(written[:2], embedded[:2])
        files.add(written[2:], embedded[2:])
        files.flush()
        rows = rows_in(files.paths)

        assert files.rows == 3
    assert [np.float32(row.pop("dense")).tolist() for row in rows] == embedded.tolist()
    for row in rows:
        row["attributes"] = json.loads(row["attributes"])
    assert [msgspec.convert(row, Chunk) for row in rows] == written


def test_a_file_has_no_column_for_what_milvus_derives_itself(tmp_path: Path) -> None:
    with files_in(tmp_path) as files:
        files.add([chunk(0)], vectors(1))
        files.flush()
        columns = pq.read_schema(files.paths[0][0]).names

    assert set(columns) == {*Chunk.__struct_fields__, "terms", "dense"}
    assert "sparse" in [field.name for field in schema(GENERATION.fingerprint).fields]


def test_many_rows_become_several_files_and_none_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.index.collection.bulk_files.FILE_BYTES", 2000)
    with files_in(tmp_path) as files:
        for first in range(0, 100, 10):
            files.add([chunk(number) for number in range(first, first + 10)], vectors(10))
        files.flush()

        assert len(files.paths) > 5
        assert sorted(row["ordinal"] for row in rows_in(files.paths)) == list(range(100))


def test_nothing_to_write_writes_no_file(tmp_path: Path) -> None:
    with files_in(tmp_path) as files:
        files.flush()
        assert files.paths == []


def test_removing_leaves_nothing_in_the_folder(tmp_path: Path) -> None:
    with files_in(tmp_path) as files:
        files.add([chunk(0)], vectors(1))
        files.flush()
        assert [*tmp_path.rglob("*.parquet")]

    assert [*tmp_path.iterdir()] == []


def test_a_row_that_milvus_would_not_take_is_refused_before_it_is_in_a_file(
    tmp_path: Path,
) -> None:
    with files_in(tmp_path) as files, pytest.raises(IndexRefused, match="varchar"):
        files.add([chunk(0, tenant="x" * 513)], vectors(1))


def test_a_file_that_cannot_be_written_is_told_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "full"
    with files_in(folder) as files:
        files.add([chunk(0)], vectors(1))
        for inner in folder.iterdir():
            inner.rmdir()
        with pytest.raises(
            IndexUnavailable, match=r"could not be written: .*non-existent directory"
        ):
            files.flush()


def test_files_go_to_the_bucket_and_their_paths_are_those_that_milvus_is_told(
    tmp_path: Path, bucket: FakeBucket
) -> None:
    with files_in(tmp_path / "work", bucket.storage) as files:
        files.add([chunk(0)], vectors(1))
        files.flush()
        [[path]] = files.paths

        assert path.startswith("loads/")
        assert [*bucket.objects] == [path]
        assert [*(tmp_path / "work").rglob("*.parquet")] == []
    (tmp_path / "copy").write_bytes(bucket.objects[path])
    assert rows_in([[str(tmp_path / "copy")]])[0]["chunk_id"] == chunk(0).chunk_id
    assert bucket.removed == [path]


def test_a_bucket_that_takes_nothing_more_is_told(tmp_path: Path, bucket: FakeBucket) -> None:
    bucket.is_full = True
    with files_in(tmp_path, bucket.storage) as files:
        files.add([chunk(0)], vectors(1))
        with pytest.raises(IndexUnavailable, match=r"could not be written: .*bucket is full"):
            files.flush()


def test_a_bucket_that_is_not_there_is_told(tmp_path: Path, bucket: FakeBucket) -> None:
    elsewhere = msgspec.structs.replace(bucket.storage, bucket="other")
    with files_in(tmp_path, elsewhere) as files:
        files.add([chunk(0)], vectors(1))
        with pytest.raises(IndexUnavailable, match="doesn't exist"):
            files.flush()


def test_an_endpoint_that_is_none_is_told(tmp_path: Path, bucket: FakeBucket) -> None:
    wrong = msgspec.structs.replace(bucket.storage, endpoint="http://x/y")
    with pytest.raises(IndexUnavailable, match="path"):
        Files(GENERATION, tmp_path, wrong)


def load(files: Any, milvus: FakeMilvus, client: FakeClient) -> BulkLoad:
    return BulkLoad(files, milvus.jobs(), client, GENERATION, 5)


def test_a_load_is_complete_when_milvus_counts_what_was_written(
    tmp_path: Path, milvus: FakeMilvus
) -> None:
    client = FakeClient(rows=3, there=5)
    with files_in(tmp_path) as files:
        bulk = load(files, milvus, client)
        bulk.upsert(GENERATION, [chunk(number) for number in range(3)], vectors(3))

        assert milvus.imports == []
        assert bulk.finish() == 3
        assert milvus.imports[0]["files"] == files.paths
    assert client.calls == ["count", "mark running", "mark", "refresh", "count"]


def test_a_load_of_which_rows_are_missing_is_refused(tmp_path: Path, milvus: FakeMilvus) -> None:
    with files_in(tmp_path) as files:
        bulk = load(files, milvus, FakeClient(rows=2))
        bulk.upsert(GENERATION, [chunk(number) for number in range(3)], vectors(3))
        with pytest.raises(IndexRefused, match="2 rows of an import of 3"):
            bulk.finish()


def test_a_load_that_fails_leaves_its_mark_on_the_generation(
    tmp_path: Path, milvus: FakeMilvus
) -> None:
    milvus.states = [{"state": "Failed", "reason": "x"}]
    client = FakeClient()
    with files_in(tmp_path) as files:
        bulk = load(files, milvus, client)
        bulk.upsert(GENERATION, [chunk(0)], vectors(1))
        with pytest.raises(IndexRefused):
            bulk.finish()
    assert client.calls == ["count", "mark running"]


def test_a_load_of_nothing_asks_milvus_for_no_import(tmp_path: Path, milvus: FakeMilvus) -> None:
    with files_in(tmp_path) as files:
        assert load(files, milvus, FakeClient()).finish() == 0
    assert milvus.imports == []


def test_a_load_takes_rows_of_its_own_generation_alone(tmp_path: Path, milvus: FakeMilvus) -> None:
    other = msgspec.structs.replace(GENERATION, collection="kb__g2")
    with files_in(tmp_path) as files, pytest.raises(ValueError, match="kb__g2"):
        load(files, milvus, FakeClient()).upsert(other, [chunk(0)], vectors(1))


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pymilvus.bulk_writer", "indexer.index.collection.bulk_files"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "minio" else name)
    with pytest.raises(IndexRefused, match=r"needs more packages: .*'minio'"):
        _imported()


def test_importing_what_bulk_loads_need_sets_up_no_logging_and_is_put_off_until_then() -> None:
    program = (
        "import logging, sys, indexer.index.collection.bulk as bulk\n"
        "assert 'pymilvus.bulk_writer' not in sys.modules\n"
        "bulk._imported()\n"
        "assert 'pymilvus.bulk_writer' in sys.modules\n"
        "print(logging.getLogger().handlers, logging.getLogger().level)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == f"[] {logging.WARNING}"
