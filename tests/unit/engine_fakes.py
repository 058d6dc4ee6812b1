"""The Ray engine without Ray, its steps one after the other in this process, and a collection
for it to fill."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, cast

import msgspec

from indexer.chunking import ChunkerSettings
from indexer.documents import SourceDocument
from indexer.engines.ray_data import _Rows
from indexer.engines.ray_steps import Batch, Embed, Parts, Prepare, ReadDocuments, batch_of, read
from indexer.errors import DocumentGone, DocumentUnusable
from indexer.report import Report
from indexer.run import Rules, Run
from indexer.work import Engine, Tools, Work
from tests.unit.index_fakes import (
    FakeDocument,
    FakeDocuments,
    FakeEncoder,
    FakeWriter,
    InThisProcess,
    tools,
)

SETTINGS = ChunkerSettings(size=64, overlap_percent=0)


@contextmanager
def in_this_process() -> Iterator[InThisProcess]:
    yield InThisProcess(SETTINGS)


class Steps:
    """The engine without Ray: each batch goes through the steps as it comes."""

    def __init__(self, tools: Tools, change: Callable[[list[Any]], list[Any]] = list) -> None:
        """`change` is done to the rows on their way back."""
        self.tools = tools
        self.change = change
        self.parts = Parts(
            encoder=lambda: tools.encoder, writer=lambda: tools.writer, workers=in_this_process
        )
        self.batches: list[Batch] = []
        """What the reading step has given."""

    def run(self, work: Work) -> None:
        rows = _Rows(work, self.tools.writer)
        rows.take(self.change([*chain.from_iterable(map(rows_of, self.embedded(work)))]))
        rows.check()

    def embedded(self, work: Work) -> Iterator[Batch]:
        same_for_all = msgspec.structs.replace(work, documents=ReadDocuments(), stored={})
        prepare = Prepare(self.parts, self.tools.passage, same_for_all)
        embed = Embed(self.parts, self.tools.passage, self.tools.fingerprint.encoder, work.known_in)
        for batch in read(batch_of([None]), work.documents, work.stored, work.rewrite):
            self.batches.append(batch)
            for prepared in prepare(batch):
                yield from embed(prepared)


def rows_of(batch: Batch) -> list[Any]:
    return list(batch["row"])


def long_text(words: int, word: str = "word") -> str:
    return " ".join(f"{word}{number:05d}" for number in range(words))


CORPUS = [
    FakeDocument("a.md", "Llamas eat grass."),
    FakeDocument("b.md", "# Bread\n\nSourdough rises.", version="1"),
    FakeDocument("c.md", long_text(80)),
    FakeDocument("d.md", "Llamas eat grass.", tenant="other"),
    FakeDocument("bad.md", failure=DocumentUnusable("it is broken")),
    FakeDocument("empty.md", ""),
    FakeDocument("kept.md", "Stays."),
    *[FakeDocument(f"n{number}.md", f"Text number {number}.") for number in range(10)],
]
LEFT_OUT = {"a.md", "c.md", "kept.md", "n3.md", "n4.md"}
LATER = [
    *[document for document in CORPUS if document.name not in LEFT_OUT],
    FakeDocument("a.md", "Llamas eat hay."),
    FakeDocument("c.md", f"{long_text(40)} {long_text(8, 'new')}"),
    FakeDocument("kept.md", failure=DocumentUnusable("it cannot be read now")),
    FakeDocument("e.md", "Added."),
    *[FakeDocument(name, failure=DocumentGone("it is gone")) for name in ("n4.md", "new.md")],
]


class Base:
    """A collection, an encoder, and runs with either engine."""

    def __init__(self, engine: Callable[[Tools], Engine]) -> None:
        self.writer = FakeWriter()
        self.encoder = FakeEncoder()
        self.tools = tools(self.writer, self.encoder)
        self.engine = engine(self.tools)

    def run(
        self,
        documents: list[FakeDocument],
        *,
        failures: list[tuple[str, str]] | None = None,
        rewrite: frozenset[str] = frozenset(),
        seen: list[str] | None = None,
    ) -> Report:
        self.writer.calls.clear()
        self.encoder.calls.clear()
        rules = Rules(tenants=["default", "other"], default_tenant="default")
        job = Run(
            self.tools,
            self.engine,
            rules,
            search=lambda _: lambda *_: [],
        )
        with self.writer.lease(60) as lease:
            report = job.execute(
                FakeDocuments(cast("list[SourceDocument]", documents), failures or []),
                run=lease.run,
                rewrite=rewrite,
                on_document=(seen if seen is not None else []).append,
            )
        return without_times(report)

    def stored(self) -> dict[str, tuple[object, ...]]:
        published = self.writer.published()
        assert published is not None
        return {
            row.chunk.chunk_id: (row.chunk, row.vector.tolist())
            for row in self.writer.stored_rows(published, ["default", "other"])
        }


def without_times(report: Report) -> Report:
    return msgspec.structs.replace(
        report,
        skipped=sorted(report.skipped),
        seconds=0.0,
        encode_seconds=0.0,
        pipeline_seconds=0.0,
    )
