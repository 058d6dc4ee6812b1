"""Who may ask: the gateway's keys, and the commands that make, list and revoke them."""

from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt, SecretStr
from pydantic_settings import (
    BaseSettings,
    CliPositionalArg,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from gateway.access.keys import NAME_PATTERN
from indexer.index.settings import ENV_PREFIX, IndexSettings

_FILE = "JSON file with the keys that are let in; it is read again when it changes."


class AccessSettings(IndexSettings):
    """Who is let in: holders of keys, or everybody on this machine."""

    api_keys_file: Path | None = Field(default=None, description=_FILE)
    api_keys: SecretStr | None = Field(
        default=None, description="The content of such a file, instead of a file."
    )
    open_access: bool = Field(
        default=False,
        description="Whether everybody is let in without a key; on a loopback address alone.",
    )


class KeySettings(BaseSettings):
    """What the commands for keys have in common."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        extra="ignore",
        # A pattern means the same here as where keys are read.
        regex_engine="python-re",
    )

    api_keys_file: Path = Field(description=_FILE)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_: Any,
        **__: Any,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, and those of the gateway's own variables that mean the same here."""
        return init_settings, _Shared(settings_cls)


class _Shared(EnvSettingsSource):
    def __call__(self) -> dict[str, Any]:
        # GROUNDSERVE_KNOWLEDGE_BASES is what the gateway has, which would be no restriction.
        # An empty flag, on the other hand, is refused: it would be a restriction that went missing.
        shared = ("api_keys_file", "tenant")
        found = super().__call__()
        return {name: found[name] for name in shared if found.get(name)}


class MakeKeySettings(KeySettings):
    """Make a key, and print it: it is kept nowhere."""

    model_config = SettingsConfigDict(cli_prog_name="python -m gateway keys make")

    name: str = Field(
        pattern=NAME_PATTERN,
        description="What the key is called in logs and metrics: letters, digits, and . _ @ -",
    )
    tenant: str = Field(
        default="default",
        min_length=1,
        max_length=128,
        description="Whose documents it reads and writes.",
    )
    knowledge_bases: str | None = Field(
        default=None,
        description="Those of the indexer that it may search, separated by commas; all, if not "
        "set.",
    )
    models: str | None = Field(
        default=None,
        description="Models that it may ask, by the names that requests have, separated by "
        "commas; all, if not set.",
    )
    read_only: bool = Field(
        default=False, description="Whether it may not change files and vector stores."
    )
    expires_after_days: int | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description="Days after which it is not valid any more; never, if not set.",
    )
    requests_per_minute: PositiveInt | None = Field(default=None, description="Requests a minute.")
    tokens_per_minute: PositiveInt | None = Field(
        default=None, description="Tokens a minute, of prompts and answers together."
    )
    concurrent_requests: PositiveInt | None = Field(
        default=None, description="Requests that are being answered at a time."
    )
    answer_tokens: PositiveInt | None = Field(default=None, description="Tokens of one answer.")


class ListKeysSettings(KeySettings):
    """Print what is known of each key, which is nothing secret."""

    model_config = SettingsConfigDict(cli_prog_name="python -m gateway keys list")


class RevokeKeySettings(KeySettings):
    """Remove a key; gateways that run let it in no more after two seconds."""

    model_config = SettingsConfigDict(cli_prog_name="python -m gateway keys revoke")

    key: CliPositionalArg[str] = Field(description="Name or id of the key.")
