"""Milvus killed, or out of disk, in the middle of a run: what is said, and what comes after."""

import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pymilvus import MilvusClient, MilvusException
from stack import servers

from indexer.index.errors import IndexFailure, IndexUnavailable
from tests.integration.crash_child import run_once
from tests.integration.test_crashes import let_the_lease_expire, long_text, rows_of

KNOWLEDGE_BASE = "kb"


@pytest.fixture
def port(free_port: Callable[[], int]) -> int:
    return free_port()


@pytest.fixture
def server(tmp_path: Path, port: int) -> Iterator[servers.Server]:
    """A Milvus Lite server of its own, which may be killed."""
    with servers.milvus(port, tmp_path / "data", tmp_path / "logs") as server:
        server.wait_ready()
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.txt").write_text(long_text(f"d{number}x", 80))
    return folder


def change(folder: Path) -> None:
    (folder / "1.txt").write_text(long_text("other", 80))
    (folder / "2.txt").unlink()
    (folder / "4.txt").write_text(long_text("d4x", 80))


def fill_the_disk(server: servers.Server) -> None:
    """No file of the server may grow any more: writes fail as on a full disk."""
    assert server.process is not None
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def kill(server: servers.Server) -> None:
    assert server.process is not None
    server.process.kill()
    server.process.wait()


ACTS = {"killed": kill, "out of disk": fill_the_disk}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("step", ["upsert", "delete", "flush"])
@pytest.mark.parametrize("act", ACTS)
def test_a_run_fails_in_one_line_and_the_next_makes_what_a_clean_run_makes(
    act: str, step: str, server: servers.Server, port: int, folder: Path
) -> None:
    uri = f"http://127.0.0.1:{port}"
    # The same changes on another knowledge base tell what a clean run makes, and in which steps.
    for knowledge_base in (KNOWLEDGE_BASE, "rehearsal"):
        run_once(uri, knowledge_base, folder, size=64)
    change(folder)
    _, steps = run_once(uri, "rehearsal", folder, size=64)
    expected = rows_of(uri, "rehearsal")

    with pytest.raises(IndexFailure) as failed:
        run_once(
            uri,
            KNOWLEDGE_BASE,
            folder,
            size=64,
            at=steps.index(step) + 1,
            act=lambda: ACTS[act](server),
            timeout_s=3,
        )
    assert "\n" not in str(failed.value)
    if act == "killed":
        assert isinstance(failed.value, IndexUnavailable)

    server.stop()
    server.start()
    server.wait_ready()
    _wait_for_the_channel(uri)
    let_the_lease_expire(uri, KNOWLEDGE_BASE)
    run_once(uri, KNOWLEDGE_BASE, folder, size=64)
    assert rows_of(uri, KNOWLEDGE_BASE) == expected


def _wait_for_the_channel(uri: str) -> None:
    """A process has one channel to a server, which waits longer after each attempt that failed."""
    deadline = time.monotonic() + 60
    while True:
        try:
            MilvusClient(uri).list_collections()
        except MilvusException:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        else:
            return
