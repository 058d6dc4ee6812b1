"""Command line of the indexer, and the one place in it where clients are constructed."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial

from pydantic_settings import CliApp
from rich.console import Console

from indexer import commands
from indexer.documents import Content
from indexer.engines import ray_data, ray_steps
from indexer.engines.local import Pipeline
from indexer.errors import ConfigurationUnusable
from indexer.failures import FAILURES, exit_code, reported
from indexer.index.collection import (
    BulkLoad,
    BulkStorage,
    Generation,
    IndexReader,
    IndexWriter,
    bulk_load,
)
from indexer.index.embedding import Encoder
from indexer.index.library import Library
from indexer.index.settings import IndexSettings
from indexer.parsing.workers import Workers
from indexer.parts import (
    Parts,
    chunker_settings,
    configuration,
    fingerprint_of,
    parse_processes,
    tools_of,
)
from indexer.preparation import Preparation, Prepared
from indexer.progress import DocumentProgress
from indexer.report import BAD_CONFIGURATION, DONE, Report
from indexer.settings import (
    BuildSettings,
    ForgetSettings,
    PlanSettings,
    PruneSettings,
    RepairSettings,
    RollbackSettings,
    RunSettings,
    SearchSettings,
    SourceSettings,
    StatusSettings,
    VerifySettings,
    WatchSettings,
)
from indexer.uploads.indexing import Indexing
from indexer.uploads.means import Means
from indexer.uploads.preparation import UploadPreparation
from indexer.work import Engine, Prepares, Tools

USAGE = """usage: python -m indexer COMMAND [options]

commands:
  run PATH...     make the index equal to the documents in these folders, files and URLs
  plan PATH...    print what run would do
  verify PATH...  compare every row of the index with itself and with the documents
  repair PATH...  verify, and write anew what is broken
  watch           index the vector stores of the library of uploads as they change
  status          print what is stored, and who holds the lease
  search QUERY    print the chunks that are nearest to a question
  rollback        give readers the generation before the published one
  prune           drop the generations that are not kept
  forget TENANT   delete everything of a tenant that no source names any more

`python -m indexer COMMAND --help` lists the options. Each is an environment variable too:
--milvus-uri is GROUNDSERVE_MILVUS_URI. --config names a file that lists the sources.
exit codes: 0 done, 2 wrong settings or sources, 3 Milvus, model or library is not available,
            4 done but for skipped documents or sources, 5 another run has the lease,
            6 deletions or a publication refused, 7 verify found drift, 130 interrupted"""


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code; every failure is one line on stderr."""
    match arguments:
        case ["-h" | "--help"]:
            print(USAGE)
            return DONE
        case [name, *options] if name in COMMANDS:
            return reported(COMMANDS[name], options)
    print(USAGE, file=sys.stderr)
    return BAD_CONFIGURATION


def _run(options: list[str]) -> int:
    settings = CliApp.run(RunSettings, cli_args=options)
    return _told(settings, "indexing", commands.run)


def _repair(options: list[str]) -> int:
    settings = CliApp.run(RepairSettings, cli_args=options)
    return _told(settings, "repairing", commands.repair)


def _told(
    settings: RunSettings, verb: str, command: Callable[[Parts, RunSettings, int], int]
) -> int:
    """Do what writes, with the lease; Prometheus is told of a failure too."""
    try:
        with (
            _writer(settings) as writer,
            writer.lease(settings.lease_duration_s) as lease,
            _parts(settings, writer, verb) as parts,
        ):
            return command(parts, settings, lease.run)
    except FAILURES as exc:
        commands.tell_metrics(settings, Report(), exit_code(exc))
        raise


def _plan(options: list[str]) -> int:
    settings = CliApp.run(PlanSettings, cli_args=options)
    with _writer(settings) as writer, _parts(settings, writer, "comparing") as parts:
        return commands.plan(parts, settings)


def _verify(options: list[str]) -> int:
    settings = CliApp.run(VerifySettings, cli_args=options)
    with _writer(settings) as writer, _parts(settings, writer, "verifying") as parts:
        return commands.verify(parts, settings)


def _watch(options: list[str]) -> int:
    settings = CliApp.run(WatchSettings, cli_args=options)
    if settings.library_url is None:
        raise ConfigurationUnusable("name the library of uploads with GROUNDSERVE_LIBRARY_URL")
    library = Library(settings.library_url, settings.library_storage_options)
    with _encoder(settings, Console(stderr=True)) as encoder:
        chunker = chunker_settings(settings, encoder)
        with _workers(settings, UploadPreparation(chunker)) as workers:
            means = Means(
                library=library,
                encoder=encoder,
                workers=workers,
                chunker=chunker,
                fingerprint=lambda attributes, cut: fingerprint_of(
                    settings, attributes, encoder, cut
                ),
                writer=lambda name: _writer(settings.model_copy(update={"knowledge_base": name})),
                lease_duration_s=settings.lease_duration_s,
                keep_generations=settings.keep_generations,
            )
            return commands.watch(library, Indexing(means), settings)


def _status(options: list[str]) -> int:
    settings = CliApp.run(StatusSettings, cli_args=options)
    with _writer(settings) as writer:
        return commands.status(writer, settings)


def _search(options: list[str]) -> int:
    settings = CliApp.run(SearchSettings, cli_args=options)
    encoder = Encoder.load(settings)
    return commands.search(lambda: IndexReader(settings), encoder, settings)


def _rollback(options: list[str]) -> int:
    settings = CliApp.run(RollbackSettings, cli_args=options)
    with _writer(settings) as writer, writer.lease(settings.lease_duration_s):
        return commands.rollback(writer, settings)


def _prune(options: list[str]) -> int:
    settings = CliApp.run(PruneSettings, cli_args=options)
    with _writer(settings) as writer, writer.lease(settings.lease_duration_s):
        return commands.prune(writer, settings)


def _forget(options: list[str]) -> int:
    settings = CliApp.run(ForgetSettings, cli_args=options)
    with _writer(settings) as writer, writer.lease(settings.lease_duration_s):
        return commands.forget(writer, settings)


@contextmanager
def _writer(settings: IndexSettings) -> Iterator[IndexWriter]:
    writer = IndexWriter(settings)
    try:
        yield writer
    finally:
        writer.close()


@contextmanager
def _parts(settings: SourceSettings, writer: IndexWriter, verb: str) -> Iterator[Parts]:
    """Everything that looks at the sources, put together."""
    sources = configuration(settings)
    console = Console(stderr=True)
    with _encoder(settings, console) as encoder:
        chunker = chunker_settings(settings, encoder)
        workers = partial(_workers, settings, Preparation(chunker))
        with workers() as here, DocumentProgress(console, verb) as progress:
            fingerprint = fingerprint_of(settings, sources.attributes, encoder, chunker)
            tools = tools_of(writer, encoder, here, chunker, fingerprint)
            engine = _engine(settings, tools, workers)
            bulk = _bulk(settings, writer.check_lease)
            reader = partial(IndexReader, settings)
            yield Parts(tools, engine, bulk, reader, sources, progress)


@contextmanager
def _encoder(settings: BuildSettings, console: Console) -> Iterator[Encoder]:
    with console.status("loading the embedding model"):
        encoder = Encoder.load(settings, batch_size=settings.encoder_batch_size)
    with closing(encoder):
        yield encoder


def _workers(settings: BuildSettings, task: Callable[[Content], Prepared]) -> Workers[Prepared]:
    return Workers(
        task,
        processes=parse_processes(settings),
        timeout_s=settings.parse_timeout_s,
        memory_mib=settings.parse_memory_mib,
        preload=[type(task).__module__],
    )


def _bulk(
    settings: SourceSettings, held: Callable[[], None]
) -> Callable[[Generation], AbstractContextManager[BulkLoad]] | None:
    if not isinstance(settings, RunSettings) or settings.bulk_s3_endpoint is None:
        return None
    storage = BulkStorage(
        endpoint=settings.bulk_s3_endpoint,
        bucket=settings.bulk_s3_bucket,
        access_key=settings.bulk_s3_access_key.get_secret_value(),
        secret_key=settings.bulk_s3_secret_key.get_secret_value(),
        is_secure=settings.bulk_s3_secure,
    )
    return lambda generation: bulk_load(settings, storage, generation, held)


def _engine(
    settings: SourceSettings, tools: Tools, workers: Callable[[], AbstractContextManager[Prepares]]
) -> Engine:
    if not isinstance(settings, RunSettings) or settings.engine == "local":
        return Pipeline(tools)
    parts = ray_steps.Parts(
        encoder=partial(Encoder.load, settings, settings.encoder_batch_size),
        writer=partial(IndexWriter, settings),
        workers=workers,
    )
    cluster = ray_data.Cluster(
        address=settings.ray_address or "",
        encoders=settings.ray_encoders,
        gpus_per_encoder=settings.ray_gpus_per_encoder,
        parsers=settings.ray_parsers,
    )
    return ray_data.RayEngine(tools, parts, cluster)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "run": _run,
    "plan": _plan,
    "verify": _verify,
    "repair": _repair,
    "watch": _watch,
    "status": _status,
    "search": _search,
    "rollback": _rollback,
    "prune": _prune,
    "forget": _forget,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
