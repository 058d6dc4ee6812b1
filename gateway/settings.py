"""Settings of the gateway. The one place in it that knows the environment or flags."""

import os
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, FilePath, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from gateway.names import parsed_aliases
from gateway.retrieval.options import MAX_CANDIDATES, MAX_NEIGHBOURS, MAX_QUERIES, WhenNothingFound
from indexer.index.foreign_fields import parsed_fields
from indexer.index.settings import KNOWLEDGE_BASE_PATTERN, IndexSettings

_URL = re.compile(r"https?://[^\s/]")
_NAME = re.compile(KNOWLEDGE_BASE_PATTERN)


class GatewaySettings(IndexSettings):
    """Answer chat requests from the documents in the index, with a vLLM server behind."""

    model_config = SettingsConfigDict(cli_prog_name="python -m gateway")

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
    max_body_bytes: int = Field(
        default=10_000_000, ge=1, description="Longest request body that is accepted, in bytes."
    )

    max_upload_bytes: int = Field(
        default=536_870_912,
        ge=1,
        description="Longest upload of a file that is accepted, in bytes.",
    )

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
    knowledge_bases: str = Field(
        default="",
        description="Further knowledge bases that requests may search, separated by commas.",
    )
    poll_interval_s: float = Field(
        default=2.0,
        gt=0,
        description="Seconds between looks at what vLLM serves and which collection is published.",
    )

    foreign_fields: str | None = Field(
        default=None,
        description="Fields of a collection that another program made, as text=chunk, "
        "vector=vector, source=source, title=name; the indexer's own, if not set.",
    )
    retrieval: bool = Field(
        default=True, description="Whether requests that say nothing about it get context."
    )
    max_num_results: int = Field(
        default=2,
        ge=1,
        le=50,
        description="Chunks put into the prompt of a request that does not say.",
    )
    candidates: int = Field(
        default=40,
        ge=1,
        le=MAX_CANDIDATES,
        description="Chunks that are looked at before the best are chosen.",
    )
    text_weight: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Weight of words in a hybrid search, of 1; ranks count, if not set.",
    )
    score_threshold: float = Field(
        default=0.0, ge=0, le=1, description="Hits with a lower score are dropped."
    )
    relevance_threshold: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Where the best cosine, or reranked score, is lower, nothing relevant is "
        "found.",
    )
    when_nothing_found: WhenNothingFound = Field(
        default="answer",
        description="What to do where nothing relevant is found: answer without context, refuse "
        "without asking the model, or fail.",
    )
    refusal: str = Field(
        default="The documents hold nothing that answers this question.",
        min_length=1,
        description="What a refusal says.",
    )
    neighbours: int = Field(
        default=0,
        ge=0,
        le=MAX_NEIGHBOURS,
        description="Chunks before and after a hit that are put to it.",
    )
    document_share: float = Field(
        default=1.0, gt=0, le=1, description="Share of the hits that one document may have."
    )
    reranker_model: str | None = Field(
        default=None,
        description="Cross-encoder that ranks the candidates: a name on the hub, or a folder; "
        "with reranker-url the name that the server knows it by.",
    )
    reranker_url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Base URL of a server with a rerank endpoint, /v1 included.",
    )
    reranker_api_key: SecretStr = Field(
        default=SecretStr("none"), description="The key of that server, if any."
    )
    encoder_url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Base URL of a server with an embeddings endpoint, /v1 included, which knows "
        "encoder-model; it runs here, if not set.",
    )
    encoder_api_key: SecretStr = Field(
        default=SecretStr("none"), description="The key of that embeddings server, if any."
    )
    embedding_model_name: str | None = Field(
        default=None,
        min_length=1,
        description="Name that /v1/embeddings knows the embedding model by; the last part of "
        "encoder-model, if not set.",
    )
    embedding_dimensions: str = Field(
        default="",
        pattern=r"^( *[1-9][0-9]* *(, *[1-9][0-9]* *)*)?$",
        description="Shorter embeddings that the model was trained for, as 512, 256.",
    )
    num_queries: int = Field(
        default=1,
        ge=1,
        le=MAX_QUERIES,
        description="Ways in which the model puts a question before it is searched for.",
    )
    rewrite_timeout_s: float = Field(
        default=5.0,
        ge=0,
        description="Seconds that the model may take to put a question anew; 0 searches for every "
        "question as it was asked.",
    )
    answer_tokens: int = Field(
        default=256,
        ge=1,
        description="Tokens left free for an answer whose length the client does not limit.",
    )
    trim_history: bool = Field(
        default=False,
        description="Whether the oldest turns leave before the best hit does, where the context "
        "is too long.",
    )
    prompt_template: FilePath = Field(
        default=Path(__file__).parent / "prompts" / "answer.j2",
        description="Jinja template that joins question and context.",
    )
    answer_cache_mib: float = Field(
        default=0.0,
        ge=0,
        description="MiB of answers that are given again to the same request at temperature 0; 0 "
        "keeps none.",
    )
    answer_cache_ttl_s: float = Field(
        default=3600.0, gt=0, description="Seconds after which such an answer is forgotten."
    )
    temperature: float = Field(
        default=0.2, ge=0, le=2, description="Sampling temperature where the client names none."
    )
    top_p: float = Field(
        default=0.95, gt=0, le=1, description="Nucleus sampling where the client names none."
    )

    @property
    def upstream_urls(self) -> list[str]:
        """The base URL of each vLLM server."""
        return _listed(self.upstream_url)

    @property
    def all_knowledge_bases(self) -> list[str]:
        """Every knowledge base that requests may search, the default first."""
        return list(dict.fromkeys([self.knowledge_base, *_listed(self.knowledge_bases)]))

    @field_validator("upstream_url")
    @classmethod
    def _are_urls(cls, said: str) -> str:
        if not (urls := _listed(said)) or not all(map(_URL.match, urls)):
            raise ValueError("it is no list of URLs that begin with http:// or https://")
        return said

    @field_validator("knowledge_bases")
    @classmethod
    def _are_names(cls, said: str) -> str:
        if not all(map(_NAME.fullmatch, _listed(said))):
            raise ValueError("it is no list of names of knowledge bases")
        return said

    @field_validator("model_aliases")
    @classmethod
    def _are_aliases(cls, said: str) -> str:
        parsed_aliases(said)
        return said

    @field_validator("foreign_fields")
    @classmethod
    def _is_a_mapping(cls, said: str | None) -> str | None:
        if said is not None:
            parsed_fields(said)
        return said


def _listed(said: str) -> list[str]:
    return [part for part in map(str.strip, said.split(",")) if part]


def share_metrics(folder: Path) -> None:
    """Have the processes that are started from now on count in files in `folder`."""
    # prometheus_client looks for it when it is imported, and nowhere else.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
