"""Keys: how one is made, what is kept of it, and the JSON that this is written in. Knows no file.

What is kept is a SHA-256, without salt and without rounds. Slow hashes protect secrets that people
choose, because those can be guessed. A key is 256 random bits: nobody finds it by trying, however
fast the hash is, and no table holds it. So a request need not pay for more than a microsecond.
"""

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec

from gateway.access.callers import Caller

PREFIX = "gs-"
"""What every key begins with, so that people and scanners for secrets know it by sight."""
_RANDOM_BYTES = 32
_ID_LENGTH = 12

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z"
"""A name stands in logs and labels of metrics, so it has neither spaces nor quotes."""
_LAST_S = 253_402_300_799
"""The end of the year 9999, beyond which there are no dates."""
_Time = Annotated[int, msgspec.Meta(ge=0, le=_LAST_S)]


class KeysUnusable(Exception):
    """Keys cannot be read, written or found; or nobody said who may ask."""


class Key(Caller, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is kept of a key: what it stands for, and by what it is known."""

    name: Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
    tenant: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    """Of the whole key, prefix included."""
    created_at: _Time
    """In seconds since 1970, as in OpenAI's objects."""
    expires_at: _Time | None = None
    """From then on it is not valid; None is never."""

    @property
    def id(self) -> str:
        """What may be shown of it, and tells two keys apart."""
        return self.sha256[:_ID_LENGTH]


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    keys: list[Key]


def new_token() -> str:
    """The key itself, which only its owner keeps."""
    return PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def digest(token: bytes) -> bytes:
    """What a key is known by: 32 bytes."""
    return hashlib.sha256(token).digest()


def parsed(document: bytes) -> list[Key]:
    """The keys in a JSON document. Raises KeysUnusable, which tells the place but no value."""
    try:
        keys = msgspec.json.decode(document, type=_Document).keys
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise KeysUnusable(f"these are no keys: {exc}") from exc
    _check_unique("name", (key.name for key in keys))
    _check_unique("sha256", (key.sha256 for key in keys))
    return keys


def written(keys: Sequence[Key]) -> bytes:
    """The same as a JSON document that people can read."""
    return msgspec.json.format(msgspec.json.encode(_Document(list(keys))), indent=2) + b"\n"


def _check_unique(field: str, values: Iterable[str]) -> None:
    seen: set[str] = set()
    for place, value in enumerate(values):
        if value in seen:
            raise KeysUnusable(f"these are no keys: keys[{place}].{field} is there twice")
        seen.add(value)
