"""What a run shows people: progress while it works, a summary when it is done."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from indexer.run import Report

LINES_IN_A_LOG = 10
"""Where there is no terminal, progress is told in about this many lines."""


@contextmanager
def progress(console: Console, documents: int) -> Iterator[Callable[[str], None]]:
    """A function to call with the name of each document that is done."""
    if not console.is_terminal:
        yield _line_by_line(console, documents)
        return
    columns = (
        TextColumn("indexing"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=documents)
        yield lambda name: bar.update(task, advance=1, description=name)


def _line_by_line(console: Console, documents: int) -> Callable[[str], None]:
    done = 0
    every = max(1, documents // LINES_IN_A_LOG)

    def on_document(name: str) -> None:
        nonlocal done
        done += 1
        if done % every == 0 or done == documents:
            console.out(f"indexed {done} of {documents} documents ({name})", highlight=False)

    return on_document


def print_report(console: Console, report: Report, knowledge_base: str, seconds: float) -> None:
    """The summary of a run: what was skipped and why, then the counts."""
    for name, reason in report.skipped:
        console.out(f"skipped {name}: {reason}", highlight=False)
    console.out(
        f"{knowledge_base}: {report.added} added, {report.changed} changed, {report.kept} kept, "
        f"{report.deleted} deleted, {len(report.skipped)} skipped; "
        f"{report.chunks_written} chunks written to {report.generation} in {seconds:.1f} s"
        f"{', published' if report.published else ''}",
        highlight=False,
    )
