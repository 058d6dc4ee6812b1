"""Command line of the indexer, and the one place in it where clients are constructed."""

import sys
import time
from collections.abc import Callable

from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError
from rich.console import Console

from indexer.chunking import Chunker
from indexer.errors import SourceUnusable
from indexer.index.collection import IndexWriter
from indexer.index.embedding import Encoder
from indexer.index.errors import FingerprintMismatch, IndexFailure
from indexer.index.settings import explain
from indexer.report import print_report, progress
from indexer.run import Run
from indexer.settings import RunSettings
from indexer.sources import find_files

USAGE = """usage: python -m indexer COMMAND [options]

commands:
  run PATH...  make the index equal to the documents in these files and folders

`python -m indexer COMMAND --help` lists the options. Each is an environment variable too:
--milvus-uri is GROUNDSERVE_MILVUS_URI.
exit codes: 0 done, 2 wrong settings or paths, 3 Milvus or the embedding model is not available,
            4 done but for skipped documents"""

DONE = 0
BAD_CONFIGURATION = 2
DEPENDENCY_DOWN = 3
SKIPPED_SOME = 4  # not 1, which Python returns for an error that nobody expected
INTERRUPTED = 130  # as shells have it: 128 + SIGINT


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code; every failure is one line on stderr."""
    match arguments:
        case ["run", *options]:
            return _reported(_run, options)
        case ["-h" | "--help"]:
            print(USAGE)
            return DONE
    print(USAGE, file=sys.stderr)
    return BAD_CONFIGURATION


def _reported(command: Callable[[list[str]], int], options: list[str]) -> int:
    try:
        return command(options)
    except ValidationError as exc:
        failure, exit_code = explain(exc), BAD_CONFIGURATION
    except (SettingsError, SourceUnusable, FingerprintMismatch) as exc:
        failure, exit_code = str(exc), BAD_CONFIGURATION
    except IndexFailure as exc:
        failure, exit_code = str(exc), DEPENDENCY_DOWN
    except KeyboardInterrupt:
        failure, exit_code = "interrupted; the next run goes on from here", INTERRUPTED
    print(f"error: {failure}", file=sys.stderr)
    return exit_code


def _run(options: list[str]) -> int:
    settings = CliApp.run(RunSettings, cli_args=options)
    started = time.monotonic()
    console = Console()
    files = find_files(settings.paths)
    writer = IndexWriter(settings)
    try:
        with console.status("loading the embedding model"):
            encoder = Encoder.load(settings, batch_size=settings.encoder_batch_size)
        chunker = Chunker(settings.chunk_size_chars, settings.chunk_overlap_percent)
        with progress(console, len(files)) as on_document:
            report = Run(writer, encoder, chunker, settings.tenant, on_document).execute(files)
    finally:
        writer.close()
    print_report(console, report, settings.knowledge_base, time.monotonic() - started)
    return SKIPPED_SOME if report.skipped else DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
