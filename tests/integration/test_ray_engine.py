"""The Ray engine with a real Ray and a Milvus Lite server: it must make what the local engine
makes."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import pytest

from indexer.chunking import Chunker, ChunkerSettings
from indexer.engines.local import Pipeline
from indexer.engines.ray_data import Cluster, RayEngine, _connected
from indexer.engines.ray_steps import Parts
from indexer.index.collection import IndexWriter
from indexer.index.embedding import Encoder, TextEncoder, Vectors
from indexer.index.errors import EncodingFailed
from indexer.index.passages import passage
from indexer.index.records import Fingerprint
from indexer.index.settings import IndexSettings
from indexer.parsing.workers import Workers
from indexer.preparation import Preparation
from indexer.report import Report
from indexer.run import Rules, Run
from indexer.sources import Listing, sources_of
from indexer.work import Engine, Tools
from tests.integration.crash_child import DigestEncoder

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="the package ray is not installed"),
    # Its settings warn of themselves when they are made.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.timeout(300),
]

SETTINGS = ChunkerSettings(size=256, overlap_percent=10)
SMALL = Cluster(object_store_mib=128)
workers = partial(Workers, Preparation(SETTINGS), processes=1, timeout_s=30, memory_mib=2048)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(30):
        sentences = [f"Llama {number} eats {number + part} kg of hay." for part in range(30)]
        text = f"# Llama {number}\n\n## Food\n\n{' '.join(sentences)}"
        (folder / f"{number:02d}.md").write_text(text)
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 and nothing else")
    (folder / "same.md").write_text((folder / "00.md").read_text())
    return folder


def change(docs: Path) -> None:
    (docs / "03.md").write_text((docs / "03.md").read_text() + "\n\nIt is called Dolly.")
    (docs / "04.md").unlink()
    (docs / "added.md").write_text("# Alpacas\n\nThey are smaller than llamas.")
    (docs / "05.md").write_bytes(b"\0binary")
    shutil.move(docs / "06.md", docs / "moved.md")


@contextmanager
def tools_of(settings: IndexSettings, encoder: TextEncoder) -> Iterator[Tools]:
    writer = IndexWriter(settings)
    try:
        with workers() as parsing:
            yield Tools(
                writer=writer,
                encoder=encoder,
                workers=parsing,
                passage=passage,
                fingerprint=Fingerprint(
                    encoder=encoder.identity, chunker=Chunker(SETTINGS).description
                ),
            )
    finally:
        writer.close()


@pytest.fixture
def ray_settings(index_settings: IndexSettings) -> IndexSettings:
    """Those of a second knowledge base, which Ray fills."""
    return index_settings.model_copy(
        update={"knowledge_base": f"{index_settings.knowledge_base}_ray"}
    )


def engine_of(
    tools: Tools, settings: IndexSettings, encoder: Callable[[], TextEncoder]
) -> RayEngine:
    parts = Parts(encoder=encoder, writer=partial(IndexWriter, settings), workers=workers)
    return RayEngine(tools, parts, SMALL)


def run_once(tools: Tools, engine: Engine, docs: Path) -> Report:
    rules = Rules(tenants=["default"], default_tenant="default")
    job = Run(tools, engine, rules, search=lambda _: lambda *_: [])
    with tools.writer.lease(60) as lease:
        report = job.execute(Listing(sources_of([str(docs)], "default")), run=lease.run)
    return msgspec.structs.replace(
        report,
        generation="",
        skipped=sorted(report.skipped),
        # Whether a passage is stored already when it comes a second time is chance.
        chunks_embedded=report.chunks_embedded + report.chunks_reused,
        chunks_reused=0,
        seconds=0.0,
        encode_seconds=0.0,
        pipeline_seconds=0.0,
    )


def stored(tools: Tools) -> tuple[list[dict[str, Any]], Vectors]:
    """The rows by their keys, and their vectors in the same order."""
    published = tools.writer.published()
    assert published is not None
    rows = sorted(
        tools.writer.stored_rows(published, ["default"]), key=lambda row: row.chunk.chunk_id
    )
    return [msgspec.to_builtins(row.chunk) for row in rows], np.stack([row.vector for row in rows])


def assert_same_index(first: Tools, second: Tools) -> None:
    rows, vectors = stored(first)
    other_rows, other_vectors = stored(second)
    assert other_rows == rows
    assert np.allclose(other_vectors, vectors, atol=1e-5)


def ray_processes() -> list[str]:
    """Names of the processes of Ray that this process has started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = status.read_text().partition("(")
        except OSError:
            continue
        name, _, fields = rest.rpartition(")")
        state, parent = fields.split()[:2]
        if int(parent) == os.getpid() and state != "Z" and name in {"raylet", "gcs_server"}:
            found.append(name)
    return found


@pytest.mark.long
def test_a_ray_of_the_runs_own_embeds_as_this_process_does_and_leaves_nothing_behind(
    index_settings: IndexSettings,
    ray_settings: IndexSettings,
    encoder: Encoder,
    docs: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for path in sorted(docs.glob("*.md"))[4:]:
        path.unlink()
    handler = signal.getsignal(signal.SIGTERM)
    # The path of a socket has at most 107 bytes, and pytest's own folders are deep.
    with TemporaryDirectory(prefix="t") as folder:
        monkeypatch.setattr("tempfile.TemporaryDirectory", partial(TemporaryDirectory, dir=folder))
        with tools_of(index_settings, encoder) as local, tools_of(ray_settings, encoder) as spread:
            engine = engine_of(spread, ray_settings, partial(Encoder.load, ray_settings))
            assert run_once(spread, engine, docs) == run_once(local, Pipeline(local), docs)
            assert_same_index(local, spread)
        deadline = time.monotonic() + 20
        while ray_processes() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert ray_processes() == []
        assert [*Path(folder).iterdir()] == []
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """One Ray for several runs: starting it is what takes the time."""
    with _connected(SMALL):
        yield


@pytest.mark.usefixtures("ray")
@pytest.mark.long
def test_both_engines_make_the_same_index_again_and_again(
    index_settings: IndexSettings, ray_settings: IndexSettings, docs: Path
) -> None:
    with (
        tools_of(index_settings, DigestEncoder()) as local,
        tools_of(ray_settings, DigestEncoder()) as spread,
    ):
        engine = engine_of(spread, ray_settings, DigestEncoder)
        for alter, expected in ((None, (31, 0, 0, 1)), (change, (2, 1, 2, 2))):
            if alter is not None:
                alter(docs)
            report = run_once(local, Pipeline(local), docs)
            assert run_once(spread, engine, docs) == report
            counts = (report.added, report.changed, report.deleted, len(report.skipped))
            assert counts == expected
            assert_same_index(local, spread)


class FailingEncoder(DigestEncoder):
    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        raise EncodingFailed(f"it failed on {len(texts)} texts")


@pytest.mark.usefixtures("ray")
def test_a_failing_encoder_fails_the_run_with_the_contracts_error(
    index_settings: IndexSettings, docs: Path
) -> None:
    with tools_of(index_settings, DigestEncoder()) as tools:
        with pytest.raises(EncodingFailed, match="it failed on"):
            run_once(tools, engine_of(tools, index_settings, FailingEncoder), docs)
        assert tools.writer.published() is None
