"""A run that is killed at any step: what is served then, and what the next run makes of it."""

import multiprocessing
import multiprocessing.forkserver
import shutil
import signal
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from pymilvus import MilvusClient

from indexer.index.collection import IndexWriter
from indexer.index.collection.generation import GRPC_OPTIONS
from indexer.index.collection.lease import LeaseRecord
from indexer.index.settings import IndexSettings
from tests.integration.crash_child import run_once

Rows = dict[str, dict[str, Any]]
MOST_STEPS = 40
_numbers = count(1)
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.integration.crash_child"])


@pytest.fixture(scope="module", autouse=True)
def _own_fork_server() -> Iterator[None]:
    """A program has one fork server: the tests that come later need it with their own imports."""
    yield
    multiprocessing.forkserver._forkserver._stop()  # type: ignore[attr-defined]


def long_text(word: str, words: int) -> str:
    return "\n\n".join(
        " ".join(f"{word}{number}" for number in range(first, first + 8))
        for first in range(0, words, 8)
    )


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("before") / "docs"
    folder.mkdir()
    (folder / "kept.md").write_text(f"# Kept\n\n{long_text('kept', 40)}")
    (folder / "changed.md").write_text(f"# Changed\n\n{long_text('old', 40)}")
    (folder / "removed.txt").write_text(long_text("removed", 40))
    (folder / "moved.txt").write_text(long_text("moved", 40))
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that every run indexes: a document's identity is its path."""
    return tmp_path_factory.mktemp("place") / "docs"


def lay_out(place: Path, before: Path, *, changed: bool) -> None:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(before, place)
    if changed:
        half_new = f"# Changed\n\n{long_text('old', 16)}\n\n{long_text('new', 40)}"
        (place / "changed.md").write_text(half_new)
        (place / "removed.txt").unlink()
        (place / "moved.txt").rename(place / "elsewhere.txt")
        (place / "added.md").write_text(long_text("added", 24))


def rows_of(uri: str, knowledge_base: str) -> Rows:
    """What readers can find, by key; without what differs from run to run."""
    writer = IndexWriter(IndexSettings(milvus_uri=uri, knowledge_base=knowledge_base))
    try:
        published = writer.published()
        if published is None:
            return {}
        return {
            row.chunk.chunk_id: {
                "document": row.chunk.source,
                "place": (row.chunk.ordinal, row.chunk.chunk_count, row.chunk.start),
                "hashes": (row.chunk.document_hash, row.chunk.chunk_hash),
                "text": row.chunk.text,
                "vector": row.vector.tolist(),
            }
            for row in writer.stored_rows(published, ["default"])
        }
    finally:
        writer.close()


def killed_run(uri: str, knowledge_base: str, place: Path, size: int, at: int, after: bool) -> bool:
    """Whether the run was killed; False where it had ended before step `at`."""
    process = _processes.Process(
        target=run_once,
        args=(uri, knowledge_base, place),
        kwargs={"size": size, "at": at, "after": after},
    )
    process.start()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def let_the_lease_expire(uri: str, knowledge_base: str) -> None:
    client = MilvusClient(uri, grpc_options=GRPC_OPTIONS)
    try:
        for name in client.list_collections():
            if name.startswith(f"{knowledge_base}__lease_"):
                dead = LeaseRecord(owner="dead", expires_at=time.time() - 1)
                stated = {"groundserve.lease": msgspec.json.encode(dead).decode()}
                client.alter_collection_properties(name, stated)
    finally:
        client.close()


def by_document(rows: Rows) -> dict[str, set[str]]:
    documents: dict[str, set[str]] = {}
    for key, row in rows.items():
        documents.setdefault(row["document"], set()).add(key)
    return documents


def assert_no_document_is_gone(served: Rows, old: Rows, new: Rows) -> None:
    """Each document that both states have is there whole, as it was or as it will be."""
    there, was, will_be = by_document(served), by_document(old), by_document(new)
    for document in was.keys() & will_be.keys():
        assert was[document] <= there[document] or will_be[document] <= there[document]


class Scenario(NamedTuple):
    """What was there before the run that is killed, and what it makes."""

    old_size: int
    """Size of the chunks that are published; 0 where nothing is."""
    new_size: int
    dead_at: int = 0
    """Step at which an earlier run like it was killed."""


SCENARIOS = {
    "a first run": Scenario(0, 64),
    "an incremental run": Scenario(64, 64),
    "a rebuild": Scenario(64, 128),
    "a rebuild that a dead run began": Scenario(64, 128, dead_at=5),
}


@pytest.mark.long
@pytest.mark.parametrize("after", [False, True], ids=["killed before", "killed after"])
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.timeout(900)
def test_wherever_a_run_is_killed_the_next_one_makes_what_a_clean_run_makes(
    milvus_uri: str, before: Path, place: Path, scenario: str, after: bool
) -> None:
    old_size, new_size, dead_at = SCENARIOS[scenario]

    def knowledge_base() -> str:
        name = f"crash{next(_numbers)}"
        if old_size:
            lay_out(place, before, changed=False)
            run_once(milvus_uri, name, place, size=old_size)
        lay_out(place, before, changed=True)
        if dead_at:
            assert killed_run(milvus_uri, name, place, new_size, dead_at, after=True)
            let_the_lease_expire(milvus_uri, name)
        return name

    clean = knowledge_base()
    old = rows_of(milvus_uri, clean)
    _, steps = run_once(milvus_uri, clean, place, size=new_size)
    expected = rows_of(milvus_uri, clean)
    assert 6 < len(steps) < MOST_STEPS
    for at in range(1, len(steps) + 1):
        name = knowledge_base()
        assert killed_run(milvus_uri, name, place, new_size, at, after), f"step {at}"

        served = rows_of(milvus_uri, name)
        if scenario == "an incremental run":
            assert_no_document_is_gone(served, old, expected)
        else:
            assert served in (old, expected), f"step {at}, {steps[at - 1]}"
        let_the_lease_expire(milvus_uri, name)
        run_once(milvus_uri, name, place, size=new_size)
        assert rows_of(milvus_uri, name) == expected, f"step {at}, {steps[at - 1]}"
    print(f"{scenario}: {len(steps)} steps, {' '.join(steps)}")
