"""Settings of the indexer. The one place in it that reads the environment or flags."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import CliPositionalArg, SettingsConfigDict

from indexer.index.settings import IndexSettings


class IndexerSettings(IndexSettings):
    """What every command of the indexer needs."""

    model_config = SettingsConfigDict(cli_shortcuts={"json-output": "json"})

    json_output: bool = Field(
        default=False, description="Print one JSON object, and nothing else, on standard output."
    )


class BuildSettings(IndexerSettings):
    """What every command needs that reads documents."""

    chunk_size_chars: int = Field(
        default=512, ge=64, le=16_000, description="Longest chunk, in characters."
    )
    chunk_size_tokens: int | None = Field(
        default=None,
        ge=16,
        le=8_192,
        description="Longest chunk, in tokens of the encoder; characters count, if not set.",
    )
    chunk_overlap_percent: int = Field(
        default=10,
        ge=0,
        le=50,
        description="What neighbouring chunks share, in percent of the size.",
    )
    passage_headings: bool = Field(
        default=True, description="Embed title and headings in front of each chunk."
    )
    language: str = Field(
        default="english",
        description="Whose words are stemmed for the search by words; none leaves them as they "
        "are.",
    )
    encoder_batch_size: int = Field(
        default=32, ge=1, le=4096, description="Chunks that the encoder takes at once."
    )
    parse_processes: int | None = Field(
        default=None, ge=1, le=256, description="Processes that parse; chosen by cores, if not set."
    )
    parse_timeout_s: float = Field(
        default=60.0, gt=0, description="Seconds that parsing one document may take."
    )
    parse_memory_mib: int = Field(
        default=2048, ge=256, description="Memory that a parsing process may take, in MiB."
    )
    lease_duration_s: float = Field(
        default=60.0, ge=1, description="Seconds after which a run that died is taken for dead."
    )


class SourceSettings(BuildSettings):
    """What every command needs that looks at the sources."""

    paths: CliPositionalArg[list[str]] = Field(
        default=[], description="Folders, globs, files, URLs or sitemaps, beside those of --config."
    )
    config: Path | None = Field(
        default=None, description="File with the sources, their tenants and attributes, as TOML."
    )
    max_deletion_percent: int = Field(
        default=20,
        ge=0,
        le=100,
        description="Share of the documents that a run may delete without being told to.",
    )
    allow_mass_deletion: bool = Field(
        default=False, description="Delete however many documents are gone from the sources."
    )


class RunSettings(SourceSettings):
    """Make the index equal to the documents of PATHS: add, change and delete what differs."""

    model_config = SettingsConfigDict(cli_prog_name="python -m indexer run")

    engine: Literal["local", "ray"] = Field(
        default="local", description="What parses and embeds: this machine, or a Ray cluster."
    )
    ray_address: str | None = Field(
        default=None, description="Ray cluster, as host:port; one is started here, if not set."
    )
    ray_encoders: int = Field(default=1, ge=1, description="Encoders on the Ray cluster.")
    ray_gpus_per_encoder: float = Field(
        default=0.0, ge=0, description="GPUs of the Ray cluster that one encoder takes."
    )
    ray_parsers: int = Field(default=1, ge=1, description="Parsing actors on the Ray cluster.")
    bulk_s3_endpoint: str | None = Field(
        default=None,
        pattern=r"^[^/]+$",
        description="Store that Milvus imports first loads from, as host:port; "
        "requests carry them, if not set.",
    )
    bulk_s3_bucket: str = Field(
        default="milvus-bucket", description="Bucket in it that Milvus keeps its data in."
    )
    bulk_s3_access_key: SecretStr = Field(
        default=SecretStr(""), description="Access key of that store."
    )
    bulk_s3_secret_key: SecretStr = Field(
        default=SecretStr(""), description="Secret key of that store."
    )
    bulk_s3_secure: bool = Field(default=True, description="Whether that store is asked by HTTPS.")
    keep_generations: int = Field(
        default=1, ge=0, description="Earlier generations that are kept to roll back to."
    )
    metrics_file: Path | None = Field(
        default=None, description="File for the textfile collector of Prometheus, ends in .prom."
    )
    pushgateway_url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Pushgateway of Prometheus that is told what the run did.",
    )


class RepairSettings(RunSettings):
    """Verify, and then write anew what is broken."""

    model_config = SettingsConfigDict(cli_prog_name="python -m indexer repair")


class PlanSettings(SourceSettings):
    """Print what a run would do, without doing it."""

    model_config = SettingsConfigDict(cli_prog_name="python -m indexer plan")


class VerifySettings(SourceSettings):
    """Compare every row with itself and with the sources."""

    model_config = SettingsConfigDict(cli_prog_name="python -m indexer verify")


class StatusSettings(IndexerSettings):
    """Print which generations there are, what is in them, and who holds the lease."""

    model_config = SettingsConfigDict(cli_prog_name="python -m indexer status")


class SearchSettings(IndexerSettings):
    """Print the chunks that are nearest to QUERY."""

    model_config = SettingsConfigDict(cli_prog_name="python -m indexer search")

    query: CliPositionalArg[str] = Field(min_length=1, description="A question, or some words.")
    max_num_results: int = Field(default=5, ge=1, le=50, description="How many chunks to print.")


class RollbackSettings(IndexerSettings):
    """Give readers the generation before the published one."""

    model_config = SettingsConfigDict(cli_prog_name="python -m indexer rollback")

    lease_duration_s: float = Field(
        default=60.0, ge=1, description="Seconds after which a run that died is taken for dead."
    )


class PruneSettings(RollbackSettings):
    """Drop the generations that are neither published nor kept."""

    model_config = SettingsConfigDict(cli_prog_name="python -m indexer prune")

    keep_generations: int = Field(
        default=1, ge=0, description="Earlier generations that are kept to roll back to."
    )


class ForgetSettings(RollbackSettings):
    """Delete everything of FORGOTTEN, a tenant that no source names any more."""

    model_config = SettingsConfigDict(cli_prog_name="python -m indexer forget")

    forgotten: CliPositionalArg[str] = Field(min_length=1, description="Name of the tenant.")


class WatchSettings(BuildSettings):
    """Keep an index of each vector store of the library of uploads, as it changes."""

    model_config = SettingsConfigDict(cli_prog_name="python -m indexer watch")

    once: bool = Field(default=False, description="Bring every vector store up to date, and exit.")
    watch_interval_s: float = Field(
        default=1.0, gt=0, description="Seconds between two looks at what has changed."
    )
    keep_generations: int = Field(
        default=1, ge=0, description="Earlier generations that are kept to roll back to."
    )
