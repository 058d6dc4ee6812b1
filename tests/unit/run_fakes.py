"""One run of the indexer over fakes, and the documents that it is tried on."""

from collections.abc import Callable
from typing import Any

from indexer.documents import SourceDocument
from indexer.engines.local import Pipeline
from indexer.report import Report
from indexer.run import Rules, Run
from tests.unit.index_fakes import FakeDocument, FakeDocuments, FakeEncoder, FakeWriter, tools

LLAMAS = FakeDocument("a.md", "Llamas eat grass.")
BREAD = FakeDocument("b.md", "# Bread\n\nSourdough rises.")
FIVE = [FakeDocument(f"{number}.md", f"Text number {number}.") for number in range(5)]

RunOnce = Callable[..., Report]


def run_with(writer: FakeWriter, encoder: FakeEncoder) -> RunOnce:
    """One run over the documents given, with what was asked before forgotten."""

    def run(
        *documents: SourceDocument,
        size: int = 64,
        failures: list[tuple[str, str]] | None = None,
        rewrite: frozenset[str] = frozenset(),
        found: Callable[[str], list[Any]] = lambda _: [],
        seen: list[str] | None = None,
        **rules: Any,
    ) -> Report:
        for record in (writer.calls, writer.upserted, writer.looked_up, encoder.calls):
            record.clear()
        used = tools(writer, encoder, size=size)
        tenants = sorted({document.tenant for document in documents}) or ["default"]
        job = Run(
            used,
            Pipeline(used),
            Rules(tenants=tenants, default_tenant="default", **rules),
            search=lambda _: lambda query, _tenant, _limit: found(query),
        )
        with writer.lease(60) as lease:
            return job.execute(
                FakeDocuments(documents, failures or []),
                run=lease.run,
                rewrite=rewrite,
                on_document=(seen if seen is not None else []).append,
            )

    return run


def long_text(words: int, word: str = "word") -> str:
    """Text that a chunker of 64 characters cuts into about `words` / 6 chunks."""
    return " ".join(f"{word}{number:05d}" for number in range(words))


def embedded(encoder: FakeEncoder) -> list[str]:
    return [text for texts in encoder.calls for text in texts]
