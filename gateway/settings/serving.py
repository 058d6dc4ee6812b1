"""How the gateway serves: where it listens, with how many processes, and how it ends."""

from pathlib import Path
from typing import Literal

from pydantic import Field, FilePath, ValidationInfo, field_validator

from indexer.index.certificates import checked_authorities, checked_pair
from indexer.index.settings import IndexSettings


class ServingSettings(IndexSettings):
    """Where it listens, and how it ends."""

    listen_host: str = Field(default="127.0.0.1", description="Address to listen on.")
    listen_port: int = Field(default=8080, ge=1, le=65535, description="Port to listen on.")
    listen_cert_file: FilePath | None = Field(
        default=None,
        description="Certificate, as PEM, to serve HTTPS with; it is HTTP, if not set.",
    )
    listen_key_file: FilePath | None = Field(
        default=None, validate_default=True, description="The key of that certificate, as PEM."
    )
    listen_client_ca_file: FilePath | None = Field(
        default=None,
        description="Certificates, as PEM, of who signs those that clients must have; clients "
        "need none, if not set.",
    )
    workers: int = Field(
        default=1,
        ge=1,
        description="Processes that answer requests; several share one process with the encoder.",
    )
    shutdown_delay_s: float = Field(
        default=2.0,
        ge=0,
        description="Seconds after SIGTERM in which requests are still taken, while not ready.",
    )
    drain_timeout_s: int = Field(
        default=30,
        ge=0,
        description="Seconds that running requests may take to finish after that.",
    )
    keep_alive_timeout_s: int = Field(
        default=75,
        ge=1,
        description="Seconds that an idle connection is kept; longer than a proxy in front does.",
    )
    client_timeout_s: float = Field(
        default=30.0,
        gt=0,
        description="Seconds that a client may stall, sending its request or reading its answer.",
    )
    heartbeat_s: float = Field(
        default=15.0,
        gt=0,
        description="Seconds of silence in a stream after which a comment is sent.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe messages to log."
    )

    @field_validator("listen_key_file")
    @classmethod
    def _is_listen_key(cls, path: Path | None, said: ValidationInfo) -> Path | None:
        return checked_pair(said.data.get("listen_cert_file"), path)

    @field_validator("listen_client_ca_file")
    @classmethod
    def _are_client_authorities(cls, path: Path | None, said: ValidationInfo) -> Path | None:
        if path is not None and said.data.get("listen_cert_file") is None:
            raise ValueError("clients have certificates only where this server has one as well")
        return path and checked_authorities(path)
