"""Which vLLM servers answer, and how long they are waited for."""

import re
from pathlib import Path

from pydantic import Field, FilePath, SecretStr, ValidationInfo, field_validator

from gateway.names import parsed_aliases
from gateway.settings.lists import listed
from indexer.index.certificates import checked_authorities, checked_pair
from indexer.index.settings import IndexSettings, without_user

_URL = re.compile(r"https?://[^\s/]")


class UpstreamSettings(IndexSettings):
    """The vLLM servers, and the names of models."""

    upstream_url: str = Field(
        default="http://127.0.0.1:8000/v1",
        description="Base URL of the vLLM server, /v1 included; several, separated by commas.",
    )
    upstream_api_key: SecretStr = Field(
        default=SecretStr("none"), description="The key that vLLM was started with, if any."
    )
    upstream_ca_file: FilePath | None = Field(
        default=None,
        description="Certificates, as PEM, of who signs those of vLLM, embeddings and rerank "
        "servers; those of the system, if not set.",
    )
    upstream_client_cert_file: FilePath | None = Field(
        default=None, description="Certificate that such servers know the gateway by, as PEM."
    )
    upstream_client_key_file: FilePath | None = Field(
        default=None, validate_default=True, description="The key of that certificate, as PEM."
    )
    upstream_connect_timeout_s: float = Field(
        default=3.0, gt=0, description="Seconds that connecting to vLLM may take."
    )
    upstream_read_timeout_s: float = Field(
        default=300.0, gt=0, description="Longest silence of vLLM before an answer, in seconds."
    )
    upstream_stall_timeout_s: float = Field(
        default=120.0,
        gt=0,
        description="Longest silence of vLLM within an answer that has begun, in seconds.",
    )
    upstream_attempts: int = Field(
        default=3, ge=1, le=10, description="How often a request is tried before its first byte."
    )
    breaker_failures: int = Field(
        default=5,
        ge=1,
        description="Failures in a row after which a server is not asked for a while.",
    )
    breaker_open_s: float = Field(
        default=10.0,
        gt=0,
        description="Seconds for which such a server is not asked, before one request tries it.",
    )
    request_timeout_s: float = Field(
        default=600.0,
        gt=0,
        description="Seconds in which an answer must be there, or the first byte of a stream.",
    )
    stream_timeout_s: float = Field(
        default=3600.0, gt=0, description="Seconds that a whole stream may take."
    )
    model_wait_s: float = Field(
        default=3.0,
        ge=0,
        description="Seconds that a request waits while vLLM is away or loading, before a 503.",
    )
    model_aliases: str = Field(
        default="",
        description="Further names for models, as gpt-4o=default, plain=default:no-retrieval.",
    )
    poll_interval_s: float = Field(
        default=2.0,
        gt=0,
        description="Seconds between looks at what vLLM serves and which collection is published.",
    )

    @property
    def upstream_urls(self) -> list[str]:
        """The base URL of each vLLM server."""
        return listed(self.upstream_url)

    @field_validator("upstream_ca_file")
    @classmethod
    def _are_upstream_authorities(cls, path: Path | None) -> Path | None:
        return path and checked_authorities(path)

    @field_validator("upstream_client_key_file")
    @classmethod
    def _is_upstream_key(cls, path: Path | None, said: ValidationInfo) -> Path | None:
        return checked_pair(said.data.get("upstream_client_cert_file"), path)

    @field_validator("upstream_url")
    @classmethod
    def _are_urls(cls, said: str) -> str:
        if not (urls := listed(said)) or not all(map(_URL.match, urls)):
            raise ValueError("it is no list of URLs that begin with http:// or https://")
        return without_user(said, "UPSTREAM_API_KEY")

    @field_validator("model_aliases")
    @classmethod
    def _are_aliases(cls, said: str) -> str:
        parsed_aliases(said)
        return said
