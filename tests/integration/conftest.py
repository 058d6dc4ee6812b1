"""A knowledge base of its own for each test, on the shared Milvus Lite server."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from indexer.chunking import Chunker, ChunkerSettings
from indexer.engines.local import Pipeline
from indexer.index.collection import Generation, IndexReader, IndexWriter
from indexer.index.embedding import Encoder
from indexer.index.passages import passage
from indexer.index.records import AttributeType, Fingerprint, Hit
from indexer.index.searching import Query, Search
from indexer.index.settings import IndexSettings
from indexer.report import Report
from indexer.run import Rules, Run
from indexer.sources import Listing, sources_of
from indexer.work import Tools
from tests.integration.redis_server import RedisServer
from tests.unit.index_fakes import InThisProcess

_numbers = count(1)

RunIndexer = Callable[..., Report]


@pytest.fixture
def index_settings(milvus_uri: str, encoder_folder: Path) -> IndexSettings:
    return IndexSettings(
        milvus_uri=milvus_uri,
        encoder_model=str(encoder_folder),
        encoder_dtype="float32",  # as the fixture `encoder` has it
        knowledge_base=f"kb{next(_numbers)}",
    )


@pytest.fixture
def writer(index_settings: IndexSettings) -> Iterator[IndexWriter]:
    writer = IndexWriter(index_settings)
    yield writer
    writer.close()


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """Three small documents of different formats."""
    return written_documents(tmp_path / "docs")


def written_documents(folder: Path) -> Path:
    """The same in `folder`, which is made."""
    folder.mkdir()
    (folder / "llama.md").write_text(
        "# Llamas\n\nA llama is a domesticated camelid of South America.\n\n"
        "## Food\n\nLlamas eat grass and hay, and need little water.\n"
    )
    (folder / "orbit.html").write_text(
        "<html><head><title>Orbits | Site</title>"
        '<link rel="canonical" href="https://example.org/orbit"></head><body>'
        "<nav><a href='/'>Home</a> <a href='/shop'>Shop</a></nav><main><h1>Orbits</h1>"
        "<p>A geostationary orbit lies 35,786 km above the equator.</p></main></body></html>"
    )
    (folder / "bread.txt").write_text("Sourdough bread rises with wild yeast and bacteria.\n")
    return folder


@pytest.fixture
def run_indexer(index_settings: IndexSettings, encoder: Encoder) -> RunIndexer:
    """One run over folders, as the command line makes it, but for the worker processes."""

    def run(*paths: Path, settings: Any = None, **rules: Any) -> Report:
        return indexed(settings or index_settings, encoder, *paths, **rules)

    return run


def indexed(
    settings: IndexSettings,
    encoder: Encoder,
    *paths: Path,
    size: int = 512,
    tenant: str = "default",
    attributes: dict[str, AttributeType] | None = None,
    **rules: Any,
) -> Report:
    """The report of such a run."""
    writer = IndexWriter(settings)
    chunker = ChunkerSettings(size=size, overlap_percent=10)
    tools = Tools(
        writer=writer,
        encoder=encoder,
        workers=InThisProcess(chunker),
        passage=passage,
        fingerprint=Fingerprint(
            encoder=encoder.identity,
            chunker=Chunker(chunker).description,
            attributes=attributes or {},
        ),
    )

    def search_in(generation: Generation) -> Callable[[str, str, int], Sequence[Hit]]:
        return lambda query, tenant, limit: asyncio.run(
            _search(settings, encoder, generation, query, tenant, limit)
        )

    job = Run(
        tools,
        Pipeline(tools),
        Rules(tenants=[tenant], default_tenant=tenant, **rules),
        search=search_in,
    )
    try:
        with writer.lease(60) as lease:
            listing = Listing(sources_of([str(path) for path in paths], tenant))
            return job.execute(listing, run=lease.run)
    finally:
        writer.close()


async def _search(
    settings: IndexSettings,
    encoder: Encoder,
    generation: Generation,
    query: str,
    tenant: str,
    limit: int,
) -> list[Hit]:
    reader = IndexReader(settings)
    try:
        [vector] = encoder.encode_queries([query])
        asked = Search(tenant=tenant, limit=limit, mode=settings.search_mode)
        return (await reader.search(generation, [Query(query, vector)], asked))[0]
    finally:
        await reader.close()


@pytest.fixture
def redis(free_port: Callable[[], int], tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(free_port(), tmp_path)
    server.start()
    yield server
    server.kill()
