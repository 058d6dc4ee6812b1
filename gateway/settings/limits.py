"""How much may be asked for, in all and by each key, and where that is counted."""

import re

from pydantic import Field, PositiveInt, SecretStr, field_validator

from indexer.index.settings import IndexSettings

_URL = re.compile(r"(rediss?://[^\s/]|unix:///)")


class LimitsSettings(IndexSettings):
    """Limits of the whole gateway, and of keys that have none of their own."""

    requests_per_minute: PositiveInt | None = Field(
        default=None, description="Requests a minute in all; any number, if not set."
    )
    tokens_per_minute: PositiveInt | None = Field(
        default=None,
        description="Tokens a minute in all, of prompts and answers together; any number, if not "
        "set.",
    )
    concurrent_requests: PositiveInt | None = Field(
        default=None,
        description="Requests that are answered at a time in all, beyond which there is a 503; "
        "any number, if not set.",
    )
    max_answer_tokens: PositiveInt | None = Field(
        default=None,
        description="Longest answer that a request may ask for, in tokens, and the length of one "
        "that does not say; what the model can, if not set.",
    )
    key_requests_per_minute: PositiveInt | None = Field(
        default=None, description="Requests a minute of a key that has no such limit of its own."
    )
    key_tokens_per_minute: PositiveInt | None = Field(
        default=None, description="Tokens a minute of a key that has no such limit of its own."
    )
    key_concurrent_requests: PositiveInt | None = Field(
        default=None,
        description="Requests that are answered at a time for a key that has no such limit of its "
        "own.",
    )
    key_answer_tokens: PositiveInt | None = Field(
        default=None,
        description="Longest answer, in tokens, of a key that has no such limit of its own.",
    )
    limits_url: SecretStr | None = Field(
        default=None,
        description="Redis in which limits are counted for several hosts, as "
        "redis://:password@host:6379/0 or rediss://; on this machine, if not set.",
    )
    limits_timeout_s: float = Field(
        default=1.0,
        gt=0,
        description="Seconds that counting elsewhere may take; then each process counts alone.",
    )

    @field_validator("limits_url")
    @classmethod
    def _is_redis(cls, said: SecretStr | None) -> SecretStr | None:
        if said is not None and not _URL.match(said.get_secret_value()):
            raise ValueError("it is no URL that begins with redis://, rediss:// or unix:///")
        return said
