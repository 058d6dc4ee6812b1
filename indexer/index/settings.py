"""Settings that the indexer and the gateway share: where the index is and which encoder made it."""

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from indexer.index.certificates import checked_authorities, checked_pair
from indexer.index.records import SearchMode

ENV_PREFIX = "GROUNDSERVE_"
KNOWLEDGE_BASE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,199}$"
"""What Milvus takes as the name of an alias."""

_USER = re.compile(r"://[^/?#\s]*@")
_PASSWORD = re.compile(r"[^/]*://[^/?#@]*:[^/?#]*@")


class IndexSettings(BaseSettings):
    """Read from environment variables with the prefix GROUNDSERVE_, or from flags."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        extra="ignore",
    )

    milvus_uri: str = Field(
        default="http://127.0.0.1:19530",
        pattern=r"^https?://",
        description="Where Milvus is: a Milvus Lite server, Milvus or Zilliz Cloud.",
    )
    milvus_token: SecretStr = Field(
        default=SecretStr(""), description="Credentials for Milvus, as user:password or an API key."
    )
    milvus_timeout_s: float = Field(
        default=10.0, gt=0, description="Seconds that one call to Milvus may take."
    )
    milvus_ca_file: FilePath | None = Field(
        default=None,
        description="Certificates, as PEM, of who signs Milvus' own; those of grpc, if not set.",
    )
    milvus_client_cert_file: FilePath | None = Field(
        default=None, description="Certificate that Milvus knows this client by, as PEM."
    )
    milvus_client_key_file: FilePath | None = Field(
        default=None, validate_default=True, description="The key of that certificate, as PEM."
    )
    milvus_server_name: str | None = Field(
        default=None,
        min_length=1,
        description="Name in Milvus' certificate, where it is not the one in its URI.",
    )
    knowledge_base: str = Field(
        default="documents",
        pattern=KNOWLEDGE_BASE_PATTERN,
        description="Name under which the index is published, a Milvus alias.",
    )
    tenant: str = Field(
        default="default",
        min_length=1,
        max_length=128,
        description="Whose documents are indexed and read.",
    )
    search_mode: SearchMode = Field(
        default="hybrid",
        description="Chunks are found by meaning (dense), by words (bm25), or by both (hybrid).",
    )
    encoder_model: str = Field(
        default="BAAI/bge-large-en-v1.5",
        min_length=1,
        description="Embedding model: a name on the hub, or a folder.",
    )
    encoder_revision: str | None = Field(
        default=None, description="Revision of the embedding model on the hub."
    )
    encoder_query_prefix: str | None = Field(
        default=None, description="Put before each question; what the model documents, if not set."
    )
    encoder_passage_prefix: str | None = Field(
        default=None, description="Put before each chunk; what the model documents, if not set."
    )
    encoder_device: str | None = Field(
        default=None,
        description="cpu, cuda, cuda:1, or several for a run: cuda:0,cuda:1; "
        "the fastest, if not set.",
    )
    encoder_backend: Literal["torch", "onnx", "openvino"] = Field(
        default="torch",
        description="What runs the embedding model; others than torch need packages.",
    )
    encoder_dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = Field(
        default="auto",
        description="Numbers it computes with; auto is bfloat16 where the processor or GPU knows "
        "it, else float32.",
    )
    encoder_threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads for embedding; one for each core, if not set.",
    )
    library_url: str | None = Field(
        default=None,
        min_length=1,
        description="Where uploads are kept: a folder, or any URL that fsspec knows; "
        "there are none, if not set.",
    )
    library_storage_options: dict[str, Any] = Field(
        default={},
        repr=False,  # there may be secrets in it
        description="What fsspec is told of that storage, as JSON.",
    )

    @field_validator("milvus_uri")
    @classmethod
    def _has_no_secret(cls, url: str) -> str:
        return without_user(url, "MILVUS_TOKEN")

    @field_validator("library_url")
    @classmethod
    def _has_no_password(cls, url: str | None) -> str | None:
        if url is not None and _PASSWORD.match(url):
            raise ValueError(f"a password belongs into {ENV_PREFIX}LIBRARY_STORAGE_OPTIONS")
        return url

    @field_validator("milvus_ca_file")
    @classmethod
    def _are_authorities(cls, path: Path | None, said: ValidationInfo) -> Path | None:
        if path is None:
            return None
        _check_is_https(said)
        return checked_authorities(path)

    @field_validator("milvus_client_key_file")
    @classmethod
    def _is_a_key(cls, path: Path | None, said: ValidationInfo) -> Path | None:
        certificate = said.data.get("milvus_client_cert_file")
        if path is not None:
            _check_is_https(said)
        if certificate is not None and said.data.get("milvus_ca_file") is None:
            raise ValueError(f"{ENV_PREFIX}MILVUS_CA_FILE has to be set as well")  # pymilvus' rule
        return checked_pair(certificate, path)

    @field_validator("milvus_server_name")
    @classmethod
    def _is_a_name(cls, name: str | None, said: ValidationInfo) -> str | None:
        if name is not None:
            _check_is_https(said)
        return name


def without_user(url: str, variable: str) -> str:
    """`url`, or several; what is in it is logged. Raises ValueError for one with credentials."""
    if _USER.search(url):
        raise ValueError(f"credentials belong into {ENV_PREFIX}{variable}")
    return url


def _check_is_https(said: ValidationInfo) -> None:
    if not str(said.data.get("milvus_uri", "https://")).startswith("https://"):
        raise ValueError(f"{ENV_PREFIX}MILVUS_URI has to begin with https:// then")


def explain(error: ValidationError) -> str:
    """One line that names each refused setting by its variable; values are not repeated."""
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        name = str(problem["loc"][0]) if problem["loc"] else "settings"
        lines.append(f"{ENV_PREFIX}{name.upper()}: {problem['msg']}")
    return "; ".join(lines)
