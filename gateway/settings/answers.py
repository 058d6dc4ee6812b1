"""How prompts and answers are made, and what turns text into vectors."""

from pathlib import Path

from pydantic import Field, FilePath, SecretStr, field_validator

from indexer.index.settings import IndexSettings, without_user


class AnswerSettings(IndexSettings):
    """The encoder, the prompt, and what an answer is where the client does not say."""

    encoder_url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Base URL of a server with an embeddings endpoint, /v1 included, which knows "
        "encoder-model; it runs here, if not set.",
    )
    encoder_api_key: SecretStr = Field(
        default=SecretStr("none"), description="The key of that embeddings server, if any."
    )
    encoder_timeout_s: float = Field(
        default=10.0,
        gt=0,
        description="Seconds that the embeddings server may take to embed questions.",
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
        default=Path(__file__).parents[1] / "prompts" / "answer.j2",
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

    @field_validator("encoder_url")
    @classmethod
    def _encoder_url_has_no_secret(cls, url: str | None) -> str | None:
        return url and without_user(url, "ENCODER_API_KEY")
