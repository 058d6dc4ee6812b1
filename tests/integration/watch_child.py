"""One look at the library of uploads that may kill itself at a given step in Milvus."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from indexer.chunking import Chunker, ChunkerSettings
from indexer.index.collection import IndexWriter
from indexer.index.library import Library
from indexer.index.records import Fingerprint
from indexer.index.settings import IndexSettings
from indexer.uploads.indexing import Indexing
from indexer.uploads.means import Means, Processed
from indexer.uploads.watch import Watch
from tests.integration.crash_child import ActsAtStep, DigestEncoder, kill_this_process
from tests.unit.upload_fakes import UploadsInThisProcess

LEASE_DURATION_S = 2.0


def watch_once(uri: str, library_url: str, *, at: int = 0) -> list[Processed]:
    """Bring every store up to date; at step number `at` the process dies, if not 0."""
    library = Library(library_url)
    chunker = ChunkerSettings(size=64, overlap_percent=0)
    encoder = DigestEncoder()

    @contextmanager
    def writer(name: str) -> Iterator[IndexWriter]:
        settings = IndexSettings(milvus_uri=uri, knowledge_base=name)
        opened = IndexWriter(settings)
        opened._client = ActsAtStep(opened._client, at, True, kill_this_process)
        try:
            yield opened
        finally:
            opened.close()

    means = Means(
        library=library,
        encoder=encoder,
        workers=UploadsInThisProcess(chunker),
        chunker=chunker,
        fingerprint=lambda attributes, cut: Fingerprint(
            encoder=encoder.identity, chunker=Chunker(cut).description, attributes=attributes
        ),
        writer=writer,
        lease_duration_s=LEASE_DURATION_S,
        keep_generations=1,
    )
    told: list[Processed] = []
    Watch(library, Indexing(means), told.append, print).once()
    return told


if __name__ == "__main__":
    watch_once(sys.argv[1], sys.argv[2], at=int(sys.argv[3]))
