"""The steps of the Ray engine, one after the other in this process: what they make of documents
must be what the local engine makes. Ray itself is tested with a real Milvus."""

import pickle
import sys
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from indexer.documents import Content, SourceDocument
from indexer.engines.local import Pipeline
from indexer.engines.ray_data import Cluster, RayEngine, _Rows
from indexer.engines.ray_steps import Counted, Cut, Embedded, Failed, Listed, Read, batch_of, read
from indexer.errors import DocumentUnusable, EngineUnavailable, SourceUnusable
from indexer.index.errors import EncoderUnavailable, EncodingFailed, IndexUnavailable, LeaseLost
from indexer.report import Report
from indexer.run import Rules, Run
from indexer.work import Work
from tests.unit.engine_fakes import CORPUS, LATER, Base, Steps, rows_of
from tests.unit.index_fakes import IDENTITY, FakeDocument, FakeDocuments, FakeEncoder


@pytest.fixture
def ray() -> Base:
    return Base(Steps)


@pytest.fixture
def local() -> Base:
    return Base(Pipeline)


def test_both_engines_make_the_same_index_and_the_same_report(local: Base, ray: Base) -> None:
    for documents in (CORPUS, CORPUS, LATER):
        expected, report = local.run(documents), ray.run(documents)

        assert report == expected
        assert ray.stored() == local.stored()
    assert (expected.added, expected.changed, expected.deleted) == (1, 2, 2)
    assert len(expected.skipped) == 3


def test_every_document_is_told_once(local: Base, ray: Base) -> None:
    for documents in (CORPUS, LATER):
        expected: list[str] = []
        seen: list[str] = []
        local.run(documents, seen=expected)
        ray.run(documents, seen=seen)

        assert sorted(seen) == sorted(expected) == sorted(document.name for document in documents)


def test_an_unchanged_corpus_is_neither_embedded_nor_written_nor_moved(ray: Base) -> None:
    ray.run(CORPUS)
    cast("Steps", ray.engine).batches.clear()
    ray.run(CORPUS)

    assert (ray.writer.calls, ray.encoder.calls) == ([], [])
    moved = [row for batch in cast("Steps", ray.engine).batches for row in rows_of(batch)]
    contents = [row.name for row in moved if isinstance(row, Read) and row.outcome is not None]
    assert contents == ["bad.md", "empty.md"]


def test_what_is_to_be_written_anew_is(local: Base, ray: Base) -> None:
    for base in (local, ray):
        base.run(CORPUS)
    [identity] = {chunk.document_id for chunk in ray.writer.rows() if chunk.source == "b.md"}
    rewrite = frozenset([identity])

    expected, report = local.run(CORPUS, rewrite=rewrite), ray.run(CORPUS, rewrite=rewrite)
    assert report == expected
    assert (report.changed, report.chunks_embedded) == (1, 1)


def test_sources_that_could_not_be_listed_are_told_and_delete_nothing(
    local: Base, ray: Base
) -> None:
    failures = [("/srv/docs", "it is not there")]
    for base in (local, ray):
        base.run(CORPUS)

    expected, report = (base.run(CORPUS[1:], failures=failures) for base in (local, ray))
    assert report == expected
    assert (report.failed_sources, report.withheld, report.deleted) == (failures, 1, 0)


def test_what_failed_where_the_sources_were_listed_is_told_here(ray: Base) -> None:
    ray.run(CORPUS[:1])
    work, _ = later_rows(ray)
    _Rows(work, ray.writer).take([Listed(0, [("/srv/docs", "it is not there")])])

    assert work.documents.failures == [("/srv/docs", "it is not there")]


def test_what_a_document_was_goes_only_after_the_last_chunk_of_what_it_is(ray: Base) -> None:
    ray.run(CORPUS)
    work, rows = later_rows(ray)
    chunks = [row for row in rows if isinstance(row, Embedded) and row.cut.name == "c.md"]
    others = [row for row in rows if row not in chunks]
    assert len(chunks) > 3
    taking = _Rows(work, ray.writer)
    taking.take(others)
    ray.writer.calls.clear()

    for row in reversed(chunks):
        assert "delete_older" not in ray.writer.calls
        taking.take([row])
    assert ray.writer.calls == [*["upsert"] * len(chunks), "delete_older"]
    taking.check()


def later_rows(ray: Base) -> tuple[Work, list[Any]]:
    """An incremental run up to where its rows are written."""
    published = ray.writer.published()
    assert published is not None
    ray.writer.runs += 1
    run = Run(ray.tools, Stopped(), Rules(tenants=["default", "other"], default_tenant="default"),
              search=lambda _: lambda *_: [])  # fmt: skip
    with pytest.raises(Stopped) as stopped:
        run.execute(FakeDocuments(cast("list[SourceDocument]", LATER)), run=ray.writer.runs)
    [work] = stopped.value.args
    return work, [
        row for batch in cast("Steps", ray.engine).embedded(work) for row in rows_of(batch)
    ]


class Stopped(Exception):
    """An engine that hands out its work."""

    def run(self, work: Work) -> None:
        raise Stopped(work)


@pytest.mark.parametrize("lost", [Counted, Listed, Embedded])
def test_rows_that_are_lost_are_noticed(ray: Base, lost: type[Any]) -> None:
    def lose(rows: list[Any]) -> list[Any]:
        at = next(
            number
            for number, row in enumerate(rows)
            if isinstance(row, lost)
            and (lost is not Counted or row.documents)
            and (lost is not Embedded or row.cut.chunk.chunk_count > 1)
        )
        return rows[:at] + rows[at + 1 :]

    cast("Steps", ray.engine).change = lose
    with pytest.raises(EngineUnavailable, match="lost"):
        ray.run(CORPUS)


def test_a_failing_encoder_ends_the_run_with_the_contracts_error(ray: Base) -> None:
    ray.encoder.failure = EncodingFailed("out of memory")
    with pytest.raises(EncodingFailed, match="out of memory"):
        ray.run(CORPUS)
    assert ray.writer.published() is None


def test_an_encoder_that_cannot_be_loaded_ends_the_run(ray: Base) -> None:
    def broken() -> FakeEncoder:
        raise EncoderUnavailable("no such model")

    engine = cast("Steps", ray.engine)
    engine.parts = msgspec.structs.replace(engine.parts, encoder=broken)
    with pytest.raises(EncoderUnavailable, match="no such model"):
        ray.run(CORPUS)


def test_an_actor_with_another_model_ends_the_run(ray: Base) -> None:
    other = FakeEncoder(msgspec.structs.replace(IDENTITY, revision="2"))
    engine = cast("Steps", ray.engine)
    engine.parts = msgspec.structs.replace(engine.parts, encoder=lambda: other)
    with pytest.raises(EncoderUnavailable, match="revision '1' is not '2'"):
        ray.run(CORPUS)


def test_the_model_is_loaded_once_in_an_actor(ray: Base) -> None:
    loaded = 0

    def load() -> FakeEncoder:
        nonlocal loaded
        loaded += 1
        return ray.encoder

    engine = cast("Steps", ray.engine)
    engine.parts = msgspec.structs.replace(engine.parts, encoder=load)
    ray.run([FakeDocument(f"{number}.md", f"Text {number}.") for number in range(200)])
    assert (loaded, len(ray.encoder.calls) > 1) == (1, True)


class Unlisted(FakeDocuments):
    """Sources of which none can be listed."""

    def __iter__(self) -> Any:
        raise SourceUnusable("there is no source")


def test_sources_that_list_nothing_end_the_run(ray: Base) -> None:
    [batch] = read(batch_of([None]), Unlisted([]), {}, ())
    [row] = rows_of(batch)

    assert isinstance(row, Failed)
    with pytest.raises(SourceUnusable, match="no source"):
        _Rows(cast("Work", None), ray.writer).take([row])


@pytest.mark.parametrize("failure", [LeaseLost("paused"), IndexUnavailable("away")])
def test_what_writing_meets_ends_the_run(
    ray: Base, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def upsert(*_: object) -> None:
        raise failure

    monkeypatch.setattr(ray.writer, "upsert", upsert)
    with pytest.raises(type(failure)):
        ray.run(CORPUS)


def test_large_documents_are_handed_on_one_by_one() -> None:
    documents = [FakeDocument(f"{number}.md", "x" * 300_000) for number in range(3)]
    batches = [*read(batch_of([None]), FakeDocuments(cast("Any", documents)), {}, ())]

    assert [len(rows_of(batch)) for batch in batches] == [1, 1, 1, 1]
    assert rows_of(batches[-1]) == [Listed(3, [])]


def test_rows_survive_the_way_to_another_machine(ray: Base) -> None:
    ray.run(CORPUS[:1])
    [chunk] = ray.writer.rows()
    cut = Cut(chunk, "a.md", is_stored=True)
    for row in (
        cut,
        Counted(Report(added=1, skipped=[("a", "b")]), 1, ["x"], ["y"]),
        Listed(2, [("a", "b")]),
        Read("u", "n", "t", Content(data=b"x", format=".md"), None, is_due=False),
    ):
        assert pickle.loads(pickle.dumps(row)) == row
    embedded = pickle.loads(pickle.dumps(Embedded(cut, np.ones(4, dtype=np.float32))))
    assert (embedded.cut, embedded.vector.tolist()) == (cut, [1.0] * 4)
    for failure in (EncodingFailed("why"), SourceUnusable("why"), DocumentUnusable("why")):
        copied = pickle.loads(pickle.dumps(Failed(cast("Any", failure)))).failure
        assert (type(copied), str(copied)) == (type(failure), "why")


def test_a_missing_package_is_named(ray: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ray", "ray.data"):
        monkeypatch.setitem(sys.modules, name, None)
    engine = RayEngine(ray.tools, cast("Steps", ray.engine).parts, Cluster())
    with pytest.raises(EngineUnavailable, match=r"'ray(\.data)?' is not installed"):
        engine.run(cast("Work", None))
