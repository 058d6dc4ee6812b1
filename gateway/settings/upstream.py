"""Which vLLM servers answer, and how long they are waited for."""

import re

from pydantic import Field, SecretStr, field_validator

from gateway.names import parsed_aliases
from gateway.settings.lists import listed
from indexer.index.settings import IndexSettings

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
    upstream_connect_timeout_s: float = Field(
        default=3.0, gt=0, description="Seconds that connecting to vLLM may take."
    )
    upstream_read_timeout_s: float = Field(
        default=300.0, gt=0, description="Longest silence of vLLM in an answer, in seconds."
    )
    upstream_attempts: int = Field(
        default=3, ge=1, le=10, description="How often a request is tried before its first byte."
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

    @field_validator("upstream_url")
    @classmethod
    def _are_urls(cls, said: str) -> str:
        if not (urls := listed(said)) or not all(map(_URL.match, urls)):
            raise ValueError("it is no list of URLs that begin with http:// or https://")
        return said

    @field_validator("model_aliases")
    @classmethod
    def _are_aliases(cls, said: str) -> str:
        parsed_aliases(said)
        return said
