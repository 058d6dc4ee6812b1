"""Settings of the indexer. The one place in it that reads the environment or flags."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg, SettingsConfigDict

from indexer.index.settings import IndexSettings


class IndexerSettings(IndexSettings):
    """What every command of the indexer needs."""

    chunk_size_chars: int = Field(
        default=512, ge=64, le=16_000, description="Longest chunk, in characters."
    )
    chunk_overlap_percent: int = Field(
        default=10,
        ge=0,
        le=50,
        description="What neighbouring chunks share, in percent of the size.",
    )
    encoder_batch_size: int = Field(
        default=32, ge=1, le=4096, description="Chunks that the encoder takes at once."
    )


class RunSettings(IndexerSettings):
    """Make the index equal to the documents under PATHS: add, change and delete what differs."""

    model_config = SettingsConfigDict(cli_prog_name="python -m indexer run")

    paths: CliPositionalArg[list[Path]] = Field(
        description="Files, or folders with HTML, Markdown and text files in them."
    )
