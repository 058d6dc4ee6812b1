"""Import jobs: pymilvus' real calls, on a fake of Milvus' REST interface."""

from collections.abc import Callable, Iterator

import pytest

from indexer.index.collection.bulk import _imported
from indexer.index.errors import IndexRefused, IndexUnavailable, LeaseLost
from indexer.index.settings import IndexSettings
from tests.unit.bulk_fakes import COMPLETED, FakeMilvus, fake_milvus

pytest.importorskip("minio", reason="pymilvus[bulk-writer] is not installed")
_, ImportJobs = _imported()


@pytest.fixture
def milvus() -> Iterator[FakeMilvus]:
    with fake_milvus() as fake:
        yield fake


def test_milvus_is_asked_to_import_the_files_and_waited_for(milvus: FakeMilvus) -> None:
    milvus.states = [
        {"state": "Pending"},
        {"state": "Importing", "progress": 40},
        COMPLETED,
    ]
    told: list[int] = []
    milvus.jobs(on_progress=told.append).run("kb__g1", [["a/1.parquet"], ["a/2.parquet"]])

    [asked] = milvus.imports
    assert asked["collectionName"] == "kb__g1"
    assert asked["files"] == [["a/1.parquet"], ["a/2.parquet"]]
    assert asked["partitionName"] == ""  # Milvus refuses one where there is a partition key
    assert milvus.asked == 3
    assert told == [0, 40, 100]


def test_milvus_is_shown_the_token(milvus: FakeMilvus) -> None:
    settings = IndexSettings.model_validate(
        {"milvus_uri": milvus.uri + "/", "milvus_token": "root:Milvus"}
    )
    ImportJobs(settings, lambda: None).run("kb__g1", [["1.parquet"]])

    assert milvus.tokens == {"Bearer root:Milvus"}


def test_more_files_than_one_job_may_have_become_several_jobs(milvus: FakeMilvus) -> None:
    files = [[f"{number}.parquet"] for number in range(2500)]
    milvus.jobs().run("kb__g1", files)

    assert [len(asked["files"]) for asked in milvus.imports] == [1024, 1024, 452]
    assert [file for asked in milvus.imports for file in asked["files"]] == files


def test_an_import_that_fails_is_told_with_milvus_reason(milvus: FakeMilvus) -> None:
    milvus.states = [{"state": "Failed", "reason": "no such file"}]
    with pytest.raises(IndexRefused, match="could not import the rows: no such file"):
        milvus.jobs().run("kb__g1", [["1.parquet"]])


def test_an_import_that_is_refused_is_told_with_milvus_reason(milvus: FakeMilvus) -> None:
    milvus.refusal = {"code": 2100, "message": "importing is not possible here"}
    with pytest.raises(IndexRefused, match="importing is not possible here"):
        milvus.jobs().run("kb__g1", [["1.parquet"]])


def test_an_answer_that_is_none_of_milvus_is_told(milvus: FakeMilvus) -> None:
    milvus.refusal = {"code": 0}
    with pytest.raises(IndexRefused, match="something else"):
        milvus.jobs().run("kb__g1", [["1.parquet"]])


def test_a_milvus_that_is_not_there_is_unavailable(free_port: Callable[[], int]) -> None:
    nobody = FakeMilvus()
    nobody.uri = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(IndexUnavailable, match="does not answer requests to import"):
        nobody.jobs().run("kb__g1", [["1.parquet"]])


def test_the_lease_is_asked_before_every_request_and_ends_the_wait(milvus: FakeMilvus) -> None:
    milvus.states = [{"state": "Importing", "progress": 10}]
    asked = 0

    def held() -> None:
        nonlocal asked
        asked += 1
        if asked == 4:
            raise LeaseLost("paused for too long")

    with pytest.raises(LeaseLost):
        milvus.jobs(held).run("kb__g1", [["1.parquet"]])
    assert (len(milvus.imports), milvus.asked) == (1, 2)


def test_a_milvus_that_goes_away_while_it_imports_is_waited_for_as_long_as_the_lease(
    free_port: Callable[[], int],
) -> None:
    gone = FakeMilvus()
    gone.uri = f"http://127.0.0.1:{free_port()}"
    asked = 0

    def held() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise LeaseLost("Milvus was away for too long")

    jobs = gone.jobs(held)
    assert jobs._progress("1") == jobs._progress("1") == 0
    with pytest.raises(LeaseLost):
        jobs._progress("1")
