"""What commands and engines work with, and what a run hands to an engine."""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from typing import Protocol

import msgspec

from indexer.comparison import StoredDocument
from indexer.documents import Content, SourceDocument
from indexer.index.collection import Generation, IndexWriter
from indexer.index.embedding import TextEncoder, Vectors
from indexer.index.records import Chunk, Fingerprint
from indexer.preparation import Prepared
from indexer.report import Report

Passage = Callable[[str, str, str], str]
"""What is embedded for a chunk, made of its title, its heading path and its text."""


Upsert = Callable[[Generation, Sequence[Chunk], Vectors], None]
"""Writes chunks with their vectors, shape (len(chunks), dimension), to a generation."""


def written_nowhere(_target: Generation, _chunks: Sequence[Chunk], _vectors: Vectors) -> None:
    """An `Upsert` for who compares and never writes."""
    raise AssertionError("nothing is written here")


class Documents(Protocol):
    """What the sources list."""

    failures: list[tuple[str, str]]
    """After they were listed: locations that could not be, and why."""

    def __iter__(self) -> Iterator[SourceDocument]:
        """Each document once, in the same order in every run."""


class Prepares(Protocol):
    """The worker processes."""

    def submit(self, content: Content) -> "Future[Prepared]":
        """Parse and cut `content`; the result may be DocumentUnusable."""


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What every command works with that looks at the sources."""

    writer: IndexWriter
    encoder: TextEncoder
    workers: Prepares
    passage: Passage
    fingerprint: Fingerprint
    """What a generation is built with that these tools build."""


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison of sources with a generation."""

    documents: Documents
    stored: dict[str, StoredDocument]
    """Loses each document that the sources still have: what is left in it is gone."""
    target: Generation
    upsert: Upsert
    """Writes rows to the target: by requests, or into files for Milvus' bulk import."""
    known_in: Sequence[Generation] = ()
    """Generations whose vectors are used again."""
    run: int
    """Number of the run, which its rows bear."""
    rewrite: Collection[str] = ()
    """Ids of documents that are prepared anew even where nothing has changed."""
    keeps_fragments: bool = True
    """Whether an incomplete document that cannot be read now stays: in what readers see it does,
    in a generation that is being built it counts as gone."""
    report: Report
    on_document: Callable[[str], None] = lambda _: None


class Engine(Protocol):
    """What does the work: on this machine, or on many."""

    def run(self, work: Work) -> None:
        """Write every change to the target, and count in the report.

        What was known of a document before is deleted after the last chunk of its new version is
        there. Raises IndexFailure, LeaseLost and SourceUnusable; what was written until then
        stays.
        """
