"""What the commands that look at the sources are put together from. Constructs no client."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager

import msgspec

from indexer.chunking import Chunker, ChunkerSettings
from indexer.errors import ConfigurationUnusable
from indexer.index.collection import BulkLoad, Generation, IndexReader, IndexWriter
from indexer.index.embedding import Encoder, TextEncoder
from indexer.index.passages import passage, text_alone
from indexer.index.records import AttributeType, Fingerprint
from indexer.index.terms import LANGUAGES
from indexer.parsing import PARSER_VERSION
from indexer.progress import DocumentProgress
from indexer.settings import BuildSettings, SourceSettings
from indexer.sources import Configuration, load_configuration, sources_of
from indexer.work import Engine, Prepares, Tools

MOST_PROCESSES = 8


class Parts(msgspec.Struct, frozen=True):
    """What the commands that look at the sources are given."""

    tools: Tools
    engine: Engine
    bulk: Callable[[Generation], AbstractContextManager[BulkLoad]] | None
    """Loads an empty generation by Milvus' own import; None where requests carry the rows."""
    reader: Callable[[], IndexReader]
    """Makes a connection of the event loop that it is called in."""
    configuration: Configuration
    progress: DocumentProgress


def configuration(settings: SourceSettings) -> Configuration:
    """What the file and the command line name. Raises ConfigurationUnusable."""
    named = sources_of(settings.paths, settings.tenant)
    if settings.config is None and not named:
        raise ConfigurationUnusable(
            "name folders, files or URLs, or a file that lists them with --config"
        )
    if settings.config is None:
        return Configuration(sources=named)
    listed = load_configuration(settings.config, settings.tenant)
    return msgspec.structs.replace(listed, sources=[*listed.sources, *named])


def chunker_settings(settings: BuildSettings, encoder: Encoder) -> ChunkerSettings:
    """How documents are cut for `encoder`. Raises ConfigurationUnusable."""
    in_tokens = settings.chunk_size_tokens is not None
    if in_tokens and not encoder.tokenizer:
        raise ConfigurationUnusable(
            "the tokenizer of this embedding model is not known: give the size in characters"
        )
    return ChunkerSettings(
        size=settings.chunk_size_tokens or settings.chunk_size_chars,
        overlap_percent=settings.chunk_overlap_percent,
        unit="tokens" if in_tokens else "characters",
        tokenizer=encoder.tokenizer,
        max_tokens=encoder.max_tokens,
        passage_prefix=encoder.identity.passage_prefix,
        with_headings=settings.passage_headings,
    )


def tools_of(
    writer: IndexWriter,
    encoder: TextEncoder,
    workers: Prepares,
    chunker: ChunkerSettings,
    fingerprint: Fingerprint,
) -> Tools:
    """What builds generations of `fingerprint`."""
    return Tools(
        writer=writer,
        encoder=encoder,
        workers=workers,
        passage=passage if chunker.with_headings else text_alone,
        fingerprint=fingerprint,
    )


def fingerprint_of(
    settings: BuildSettings,
    attributes: dict[str, AttributeType],
    encoder: TextEncoder,
    chunker: ChunkerSettings,
) -> Fingerprint:
    """What a generation of these parts is built with. Raises ConfigurationUnusable."""
    if settings.language not in LANGUAGES:
        raise ConfigurationUnusable(
            f"language {settings.language!r} is none of {', '.join(sorted(LANGUAGES))}"
        )
    described = f"{Chunker(chunker).description}, parser {PARSER_VERSION}"
    return Fingerprint(
        encoder=encoder.identity,
        chunker=described,
        language=settings.language,
        attributes=attributes,
    )


def parse_processes(settings: BuildSettings) -> int:
    """How many processes parse: all but one of the cores, which is the encoder's."""
    return settings.parse_processes or min(MOST_PROCESSES, max(1, (os.cpu_count() or 1) - 1))
