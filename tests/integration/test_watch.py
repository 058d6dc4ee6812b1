"""Uploads on a Milvus Lite server with the real encoder: what is attached is found."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pymilvus import MilvusClient

from indexer.index.collection import IndexReader, IndexWriter
from indexer.index.collection.generation import GRPC_OPTIONS
from indexer.index.embedding import Encoder
from indexer.index.errors import KnowledgeBaseMissing
from indexer.index.library import Attributes, Chunking, Library, Outcome, VectorStore
from indexer.index.metadata_filters import Comparison, compile_filter
from indexer.index.records import Hit
from indexer.index.searching import Query, Search
from indexer.index.settings import IndexSettings
from indexer.parts import chunker_settings, fingerprint_of
from indexer.settings import WatchSettings
from indexer.uploads.indexing import Indexing
from indexer.uploads.means import Means
from indexer.uploads.watch import Watch
from tests.integration.watch_child import LEASE_DURATION_S, watch_once
from tests.unit.upload_fakes import TENANT, UploadsInThisProcess, add_store, attached

ROOT = Path(__file__).parents[2]
LLAMAS = "# Llamas\n\nLlamas eat grass and hay, and need little water.\n"
ORBITS = "# Orbits\n\nA geostationary orbit lies 35,786 km above the equator.\n"

Look = Callable[[], None]


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(f"file://{tmp_path}/library")


@pytest.fixture
def store(library: Library) -> VectorStore:
    return add_store(library)


@pytest.fixture
def look(library: Library, milvus_uri: str, encoder_folder: Path, encoder: Encoder) -> Look:
    """One look at everything, as `watch` makes it, but for the worker processes."""
    settings = WatchSettings(milvus_uri=milvus_uri, encoder_model=str(encoder_folder))
    chunker = chunker_settings(settings, encoder)

    @contextmanager
    def writer(name: str) -> Iterator[IndexWriter]:
        opened = IndexWriter(settings.model_copy(update={"knowledge_base": name}))
        try:
            yield opened
        finally:
            opened.close()

    means = Means(
        library=library,
        encoder=encoder,
        workers=UploadsInThisProcess(chunker),
        chunker=chunker,
        fingerprint=lambda attributes, cut: fingerprint_of(settings, attributes, encoder, cut),
        writer=writer,
        lease_duration_s=60,
        keep_generations=1,
    )
    return Watch(library, Indexing(means), lambda _: None, print).once


Finds = Callable[..., list[Hit]]


@pytest.fixture
def found(milvus_uri: str, encoder: Encoder, store: VectorStore) -> Finds:
    """The hits of a question in the store, as a gateway would find them."""

    async def search(
        question: str, where: tuple[str, str | float] | None, tenant: str
    ) -> list[Hit]:
        reader = IndexReader(IndexSettings(milvus_uri=milvus_uri))
        try:
            generation = await reader.published(store.id)
            [vector] = encoder.encode_queries([question])
            condition = ""
            if where is not None:
                declared = generation.fingerprint.attributes
                condition = compile_filter(Comparison("eq", *where), declared)
            asked = Search(tenant=tenant, limit=3, mode="hybrid", where=condition)
            return (await reader.search(generation, [Query(question, vector)], asked))[0]
        finally:
            await reader.close()

    return lambda question, where=None, tenant=TENANT: asyncio.run(search(question, where, tenant))


def outcome(library: Library, store: VectorStore, file_id: str) -> Outcome | None:
    return library.outcome(TENANT, store.id).of(library.member(TENANT, store.id, file_id))


def collections(milvus_uri: str, store: VectorStore) -> list[str]:
    client = MilvusClient(milvus_uri, grpc_options=GRPC_OPTIONS)
    try:
        return [name for name in client.list_collections() if name.startswith(store.id)]
    finally:
        client.close()


def test_what_is_attached_is_found_and_what_is_detached_is_not(
    library: Library, store: VectorStore, look: Look, found: Finds
) -> None:
    llamas = attached(library, store, LLAMAS, "llamas.md", {"year": 2020, "by": "me"})
    orbits = attached(library, store, ORBITS, "orbits.md", {"year": 2021})
    broken = attached(library, store, b"%PDF nothing", "broken.pdf")
    assert outcome(library, store, llamas) is None
    look()

    best = found("What do llamas eat?")[0]
    assert (best.document_id, best.source) == (llamas, f"{llamas}/llamas.md")
    assert best.attributes == {"year": 2020.0, "by": "me"}
    done, failed = outcome(library, store, llamas), outcome(library, store, broken)
    assert done is not None
    assert failed is not None
    assert (done.status, done.chunks, done.usage_bytes > 0) == ("completed", 1, True)
    assert (failed.status, failed.error_code) == ("failed", "invalid_file")
    assert [hit.document_id for hit in found("llamas", ("year", 2021))] == [orbits]
    assert found("llamas", tenant="other") == []

    changed: Attributes = {"year": 2022, "topic": "animals"}
    library.change_member(TENANT, store.id, llamas, changed)
    assert outcome(library, store, llamas) is None
    look()
    assert [hit.document_id for hit in found("llamas", ("year", 2022))] == [llamas]
    assert [hit.document_id for hit in found("llamas", ("topic", "animals"))] == [llamas]
    assert found("llamas", ("year", 2020)) == []

    library.detach(TENANT, store.id, llamas)
    look()
    assert [hit.document_id for hit in found("What do llamas eat?")] == [orbits]
    library.delete_file(TENANT, orbits)
    library.delete_file(TENANT, broken)
    look()
    assert found("What do llamas eat?") == []
    assert library.outcome(TENANT, store.id).is_published


def test_a_deleted_store_leaves_no_collection_and_no_name(
    library: Library, store: VectorStore, look: Look, found: Finds, milvus_uri: str
) -> None:
    attached(library, store, LLAMAS, "llamas.md")
    look()
    assert found("llamas")
    assert len(collections(milvus_uri, store)) == 2
    library.delete_store(TENANT, store.id)
    look()

    assert collections(milvus_uri, store) == []
    with pytest.raises(KnowledgeBaseMissing):
        found("llamas")
    assert library.store_ids(TENANT) == []


def test_the_chunks_of_a_store_are_as_long_as_it_asks(
    library: Library, look: Look, encoder: Encoder
) -> None:
    store = add_store(library, chunking=Chunking(max_chunk_size_tokens=100, chunk_overlap_tokens=0))
    text = "\n\n".join(f"Paragraph {number} says that llamas eat grass." for number in range(40))
    file_id = attached(library, store, text, "long.txt")
    look()

    done = outcome(library, store, file_id)
    assert done is not None
    assert 4 <= done.chunks <= 8
    assert encoder.max_tokens > 200


@pytest.mark.parametrize("at", [3, 6])
def test_a_watcher_that_was_killed_leaves_what_the_next_one_completes(
    library: Library, store: VectorStore, milvus_uri: str, tmp_path: Path, at: int
) -> None:
    url = f"file://{tmp_path}/library"
    attached(library, store, LLAMAS, "llamas.md", {"year": 2020})
    child = [sys.executable, "-m", "tests.integration.watch_child", milvus_uri, url, str(at)]
    killed = subprocess.run(child, cwd=ROOT, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert library.outcome(TENANT, store.id).files == {}
    assert library.pending()
    time.sleep(LEASE_DURATION_S)

    [told] = watch_once(milvus_uri, url)
    assert (told.completed, told.failed) == (1, 0)
    assert library.pending() == []
    assert len(collections(milvus_uri, store)) == 2


def test_the_command_indexes_what_comes_until_it_is_terminated(
    library: Library,
    store: VectorStore,
    found: Finds,
    milvus_uri: str,
    encoder_folder: Path,
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "indexer", "watch", "--watch-interval-s=0.1", "--json"]
    settings = {
        "GROUNDSERVE_MILVUS_URI": milvus_uri,
        "GROUNDSERVE_ENCODER_MODEL": str(encoder_folder),
        "GROUNDSERVE_ENCODER_THREADS": "1",
        "GROUNDSERVE_PARSE_PROCESSES": "1",
        "GROUNDSERVE_LIBRARY_URL": f"file://{tmp_path}/library",
    }
    log = tmp_path / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | settings, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        for text, name in ((LLAMAS, "llamas.md"), (ORBITS, "orbits.html")):
            file_id = attached(library, store, text, name)
            waits_until = time.monotonic() + 60
            while outcome(library, store, file_id) is None and time.monotonic() < waits_until:
                time.sleep(0.05)
            done = outcome(library, store, file_id)
            assert done is not None, log.read_text()
            assert done.status == "completed", done
        assert found("How high is an orbit?")[0].source == f"{file_id}/orbits.html"
    finally:
        process.terminate()
        exit_code = process.wait(30)
    assert exit_code == 130
    lines = log.read_text().splitlines()
    assert [line[0] for line in lines[:-1]] == ["{", "{"]
    assert lines[-1].startswith("error: interrupted")
