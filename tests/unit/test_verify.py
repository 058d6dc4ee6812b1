"""Every kind of drift is found, a repair mends it, and a plan tells what a run would do."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from indexer.documents import SourceDocument
from indexer.engines.local import Pipeline
from indexer.errors import DocumentUnusable
from indexer.generations import prune, roll_back
from indexer.index.errors import KnowledgeBaseMissing
from indexer.index.records import Chunk
from indexer.plan import Plan, Planner
from indexer.report import DONE, DONE_IN_PART, DRIFT_FOUND, REFUSED, Report
from indexer.run import Rules, Run
from indexer.verify import Verification, verify
from tests.unit.index_fakes import FakeDocument, FakeDocuments, FakeEncoder, FakeWriter, tools

LONG = FakeDocument("long.md", "\n\n".join(f"Paragraph number {n} of many." * 2 for n in range(6)))
SHORT = FakeDocument("short.md", "Short.")
REST = [FakeDocument(f"{number}.md", f"Text number {number}.") for number in range(5)]
ALL = [LONG, SHORT, *REST]

Damage = Callable[[FakeWriter], None]


class Index:
    """A collection in memory, and the commands on it."""

    def __init__(self, size: int = 64) -> None:
        self.writer = FakeWriter()
        self.encoder = FakeEncoder()
        self.size = size

    def run(self, documents: list[SourceDocument], rewrite: frozenset[str] = frozenset()) -> Report:
        used = tools(self.writer, self.encoder, size=self.size)
        rules = Rules(tenants=["default"], default_tenant="default")
        job = Run(used, Pipeline(used), rules, search=lambda _: lambda *_: [])
        with self.writer.lease(60) as lease:
            return job.execute(FakeDocuments(documents), run=lease.run, rewrite=rewrite)

    def verify(self, documents: list[SourceDocument]) -> Verification:
        published = self.writer.published()
        assert published is not None
        used = tools(self.writer, self.encoder, size=self.size)
        return verify(used, published, FakeDocuments(documents), ["default"])

    def plan(self, documents: list[SourceDocument], **rules: Any) -> Plan:
        used = tools(self.writer, self.encoder, size=self.size)
        planner = Planner(used, Rules(tenants=["default"], default_tenant="default", **rules))
        return planner.make(FakeDocuments(documents))

    def row(self, source: str, ordinal: int = 0) -> Chunk:
        return next(
            row for row in self.writer.rows() if (row.source, row.ordinal) == (source, ordinal)
        )


@pytest.fixture
def index() -> Index:
    index = Index()
    index.run(list(ALL))
    return index


def kinds(found: Verification) -> list[tuple[str, str]]:
    return [(drift.kind, drift.document) for drift in found.drifts]


def test_an_index_that_equals_its_sources_has_no_drift(index: Index) -> None:
    found = index.verify(list(ALL))

    assert (found.drifts, found.exit_code) == ([], DONE)
    assert (found.documents, found.chunks) == (7, len(index.writer.rows()))


def rows(writer: FakeWriter) -> dict[str, Any]:
    return writer.collections["kb__g1"]


def lose_a_chunk(index: Index) -> None:
    del rows(index.writer)[index.row("long.md", 1).chunk_id]


def double_a_chunk(index: Index) -> None:
    twin = msgspec.structs.replace(index.row("long.md", 1), chunk_id="f" * 32)
    rows(index.writer)["f" * 32] = (twin, np.full(4, 0.5, dtype=np.float32))


def spoil_a_text(index: Index) -> None:
    key = index.row("long.md", 1).chunk_id
    chunk, vector = rows(index.writer)[key]
    rows(index.writer)[key] = (msgspec.structs.replace(chunk, text="Something else."), vector)


def spoil_a_vector(index: Index) -> None:
    key = index.row("long.md", 1).chunk_id
    chunk, vector = rows(index.writer)[key]
    rows(index.writer)[key] = (chunk, vector * 2)


def leave_an_old_version(index: Index) -> None:
    key = index.row("long.md", 1).chunk_id
    chunk, vector = rows(index.writer)[key]
    rows(index.writer)[key] = (
        msgspec.structs.replace(chunk, document_hash="0" * 32, run=0),
        vector,
    )


def no_number(index: Index) -> None:
    key = index.row("long.md", 1).chunk_id
    chunk, vector = rows(index.writer)[key]
    rows(index.writer)[key] = (chunk, vector * np.nan)


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (lose_a_chunk, "missing chunks"),
        (double_a_chunk, "doubled chunks"),
        (spoil_a_text, "wrong text"),
        (spoil_a_vector, "wrong vector"),
        (no_number, "wrong vector"),
        (leave_an_old_version, "several versions"),
    ],
)
def test_damage_is_found_and_a_repair_makes_what_a_clean_run_makes(
    index: Index, damage: Callable[[Index], None], kind: str
) -> None:
    clean = {
        key: (chunk.text, vector.tolist()) for key, (chunk, vector) in rows(index.writer).items()
    }
    damage(index)
    found = index.verify(list(ALL))

    assert (kind, "long.md") in kinds(found)
    assert {document for _, document in kinds(found)} == {"long.md"}
    assert found.exit_code == DRIFT_FOUND
    index.run(list(ALL), rewrite=frozenset(found.broken))
    assert index.verify(list(ALL)).drifts == []
    repaired = rows(index.writer)
    assert {
        key: (chunk.text, vector.tolist()) for key, (chunk, vector) in repaired.items()
    } == clean


def test_what_sources_and_rows_do_not_share_is_found_in_both_directions(index: Index) -> None:
    new = FakeDocument("new.md", "New.")
    changed = FakeDocument("short.md", "Another text.")
    found = index.verify([LONG, changed, *REST[1:], new])

    assert sorted(kinds(found)) == [
        ("changed", "short.md"),
        ("rows without source", "0.md"),
        ("source without rows", "new.md"),
    ]
    assert found.broken == set(), "a run mends them without being told"


def test_a_document_without_rows_that_holds_no_text_is_no_drift(index: Index) -> None:
    found = index.verify([*ALL, FakeDocument("empty.md", "")])

    assert (found.drifts, found.exit_code) == ([], DONE_IN_PART)
    assert [name for name, _ in found.skipped] == ["empty.md"]


def test_a_document_that_cannot_be_read_is_not_taken_for_gone(index: Index) -> None:
    unreadable = FakeDocument("short.md", failure=DocumentUnusable("permission denied"))
    found = index.verify([LONG, unreadable, *REST])

    assert (found.drifts, found.skipped) == ([], [("short.md", "permission denied")])


def test_a_plan_tells_what_a_run_does_and_changes_nothing(index: Index) -> None:
    documents = [
        FakeDocument("long.md", "A new start.\n\n" + LONG.text),
        *REST,
        FakeDocument("new.md", "New."),
    ]
    index.writer.calls.clear()
    plan = index.plan(list(documents))

    assert (plan.add, plan.change, plan.delete) == (["new.md"], ["long.md"], ["short.md"])
    assert (plan.keep, plan.generation, plan.exit_code) == (5, "kb__g1", DONE)
    assert plan.estimated_seconds > 0
    assert index.writer.calls == []
    report = index.run(list(documents))
    assert (report.added, report.changed, report.deleted, report.kept) == (1, 1, 1, 5)
    assert (report.chunks_embedded, report.chunks_reused) == (
        plan.chunks_to_embed,
        plan.chunks_to_reuse,
    )
    assert plan.chunks_to_reuse > 0


def test_a_plan_says_when_a_new_generation_would_be_built(index: Index) -> None:
    index.size = 128
    plan = index.plan(list(ALL))

    assert (plan.generation, plan.keep, len(plan.change)) == ("", 0, 7)
    assert plan.chunks_to_embed + plan.chunks_to_reuse > 0


def test_a_plan_of_nothing_takes_no_time(index: Index) -> None:
    assert index.plan(list(ALL)).estimated_seconds == 0


def test_a_plan_says_that_a_deletion_would_be_refused(index: Index) -> None:
    assert index.plan(list(REST)).exit_code == REFUSED
    assert index.plan(list(REST), allow_mass_deletion=True).exit_code == DONE


def test_a_plan_for_an_empty_index_adds_everything() -> None:
    plan = Index().plan([*ALL, FakeDocument("empty.md", "")])

    assert (len(plan.add), plan.change, plan.delete, plan.exit_code) == (7, [], [], DONE_IN_PART)


def test_a_rollback_gives_readers_the_generation_before_and_pruning_keeps_as_many_as_asked(
    index: Index,
) -> None:
    for size in (128, 256):
        index.size = size
        index.run(list(ALL))
    assert list(index.writer.described) == ["kb__g2", "kb__g3"]

    assert roll_back(index.writer).collection == "kb__g2"
    assert index.writer.alias == "kb__g2"
    with pytest.raises(KnowledgeBaseMissing, match="no earlier generation"):
        roll_back(index.writer)
    assert prune(index.writer, keep=1) == ["kb__g3"]
    assert prune(index.writer, keep=0) == []
