"""A knowledge base of its own for each test, on the shared Milvus Lite server."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from indexer.chunking import Chunker
from indexer.index.collection import IndexWriter
from indexer.index.embedding import Encoder
from indexer.index.settings import IndexSettings
from indexer.run import Report, Run
from indexer.sources import find_files

_numbers = count(1)

RunIndexer = Callable[..., Report]


@pytest.fixture
def index_settings(milvus_uri: str, encoder_folder: Path) -> IndexSettings:
    return IndexSettings(
        milvus_uri=milvus_uri,
        encoder_model=str(encoder_folder),
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
    folder = tmp_path / "docs"
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
def run_indexer(writer: IndexWriter, encoder: Encoder) -> RunIndexer:
    """One run over folders, as the command line makes it."""

    def run(*paths: Path, size: int = 512, tenant: str = "default") -> Report:
        chunker = Chunker(size, overlap_percent=10)
        return Run(writer, encoder, chunker, tenant).execute(find_files(paths))

    return run
