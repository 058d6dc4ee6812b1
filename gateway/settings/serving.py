"""How the gateway serves: where it listens, with how many processes, and how it ends."""

from typing import Literal

from pydantic import Field

from indexer.index.settings import IndexSettings


class ServingSettings(IndexSettings):
    """Where it listens, and how it ends."""

    listen_host: str = Field(default="127.0.0.1", description="Address to listen on.")
    listen_port: int = Field(default=8080, ge=1, le=65535, description="Port to listen on.")
    workers: int = Field(
        default=1,
        ge=1,
        description="Processes that answer requests; several share one process with the encoder.",
    )
    drain_timeout_s: int = Field(
        default=30,
        ge=0,
        description="Seconds that running requests may take to finish after SIGTERM.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe messages to log."
    )
