"""What is searched for a question, and how."""

import re

from pydantic import Field, SecretStr, field_validator

from gateway.retrieval.options import (
    MAX_CANDIDATES,
    MAX_NEIGHBOURS,
    MAX_QUERIES,
    WhenNothingFound,
    WhenUnavailable,
)
from gateway.settings.lists import listed
from gateway.waiting import QueueBounds
from indexer.index.foreign_fields import parsed_fields
from indexer.index.settings import KNOWLEDGE_BASE_PATTERN, IndexSettings, without_user

_NAME = re.compile(KNOWLEDGE_BASE_PATTERN)


class RetrievalSettings(IndexSettings):
    """The knowledge bases, and what of them a prompt gets."""

    knowledge_bases: str = Field(
        default="",
        description="Further knowledge bases that requests may search, separated by commas.",
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
    reranker_timeout_s: float = Field(
        default=30.0,
        gt=0,
        description="Seconds that ranking the candidates of a question may take.",
    )
    max_queue_length: int = Field(
        default=2000,
        ge=1,
        description="Questions, texts or searches that may wait for one part, such as the encoder, "
        "before more are refused with 503.",
    )
    max_queue_wait_s: float = Field(
        default=10.0,
        gt=0,
        description="Seconds that they may have to wait, as far as can be told, before more are "
        "refused with 503.",
    )
    when_unavailable: WhenUnavailable = Field(
        default="fail",
        description="What to do where Milvus, the encoder or the reranker is away: fail, or "
        "degrade, which answers without and says so.",
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

    @property
    def queue_bounds(self) -> QueueBounds:
        """How much may wait for any one part."""
        return QueueBounds(self.max_queue_length, self.max_queue_wait_s)

    @property
    def all_knowledge_bases(self) -> list[str]:
        """Every knowledge base that requests may search, the default first."""
        return list(dict.fromkeys([self.knowledge_base, *listed(self.knowledge_bases)]))

    @field_validator("knowledge_bases")
    @classmethod
    def _are_names(cls, said: str) -> str:
        if not all(map(_NAME.fullmatch, listed(said))):
            raise ValueError("it is no list of names of knowledge bases")
        return said

    @field_validator("foreign_fields")
    @classmethod
    def _is_a_mapping(cls, said: str | None) -> str | None:
        if said is not None:
            parsed_fields(said)
        return said

    @field_validator("reranker_url")
    @classmethod
    def _reranker_url_has_no_secret(cls, url: str | None) -> str | None:
        return url and without_user(url, "RERANKER_API_KEY")
