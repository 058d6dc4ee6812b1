"""How much of anything a request may bring, and what of it may leave the gateway."""

from pydantic import Field, field_validator

from gateway.media import parsed_hosts
from gateway.settings.lists import listed
from indexer.index.settings import IndexSettings

REFUSED_FIELDS = (
    "chat_template",
    "image_embeds",
    "audio_embeds",
    "video_embeds",
    "prompt_embeds",
    "media_io_kwargs",
    "mm_processor_kwargs",
    "logits_processors",
    "server_url",
)
"""Of requests, parts of messages and tools: with them a client reaches into vLLM itself."""


class BoundsSettings(IndexSettings):
    """What is refused before anything expensive is done."""

    max_body_bytes: int = Field(
        default=10_000_000, ge=1, description="Longest request body that is accepted, in bytes."
    )
    max_upload_bytes: int = Field(
        default=536_870_912,
        ge=1,
        description="Longest upload of a file that is accepted, in bytes.",
    )
    max_header_bytes: int = Field(
        default=65_536,
        ge=1024,
        description="Longest head of a request that is accepted, URL and headers, in bytes.",
    )
    max_whitespace_bytes: int = Field(
        default=100_000,
        ge=1000,
        description="Most whitespace in a row in a request body, in bytes.",
    )
    max_nesting: int = Field(
        default=64, ge=8, le=500, description="Levels of lists and objects in a request body."
    )
    max_objects: int = Field(
        default=300_000,
        ge=1000,
        description="Lists and objects in a request body, and keys in its objects.",
    )
    max_messages: int = Field(
        default=2048, ge=1, description="Messages of a chat, or entries of its input."
    )
    max_content_parts: int = Field(
        default=1024, ge=1, description="Parts of texts, images and others in one message."
    )
    max_parts: int = Field(
        default=10_000,
        ge=1,
        description="Parts in all messages of a request, parts of parts included.",
    )
    max_text_chars: int = Field(
        default=4_000_000,
        ge=1,
        description="Characters of all messages, prompts, inputs or documents of a request.",
    )
    max_choices: int = Field(
        default=16, ge=1, description="Answers that one request asks for: n, times its prompts."
    )
    max_stops: int = Field(
        default=16, ge=1, description="Stop sequences, and words that must not be said."
    )
    max_stop_chars: int = Field(default=256, ge=1, description="Characters of each of them.")
    max_logprobs: int = Field(
        default=20, ge=0, description="Probabilities that are told for each token."
    )
    max_logit_bias: int = Field(
        default=1024, ge=0, description="Tokens whose probability a request may change or name."
    )
    max_tools: int = Field(default=128, ge=1, description="Tools of one request.")
    max_tools_bytes: int = Field(
        default=1_000_000, ge=1, description="Longest description of all tools, in bytes of JSON."
    )
    max_grammar_bytes: int = Field(
        default=65_536,
        ge=1,
        description="Longest schema, grammar or pattern for an answer, in bytes of JSON.",
    )
    media_hosts: str = Field(
        default="",
        description="Hosts that vLLM may load images and other media from, as a.example, "
        "b.example:8443; data: URLs alone are taken, if not set.",
    )
    allowed_fields: str = Field(
        default="",
        description="Fields that clients may send though they reach into vLLM, separated by "
        f"commas, of {', '.join(REFUSED_FIELDS)}.",
    )

    @field_validator("media_hosts")
    @classmethod
    def _are_hosts(cls, said: str) -> str:
        parsed_hosts(said)
        return said

    @field_validator("allowed_fields")
    @classmethod
    def _are_known(cls, said: str) -> str:
        if not set(listed(said)) <= set(REFUSED_FIELDS):
            raise ValueError(f"it is no list of these: {', '.join(REFUSED_FIELDS)}")
        return said
