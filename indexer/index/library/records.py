"""The things in a library: files, vector stores, which file is in which, and what became of it."""

from typing import Literal

import msgspec

Attributes = dict[str, str | float | bool]
"""What a client says of a file in a store; filters may use it. Numbers are floats."""

ErrorCode = Literal["server_error", "unsupported_file", "invalid_file"]

_DAY_S = 86_400


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was uploaded. It never changes."""

    id: str
    filename: str
    """Without folders."""
    bytes: int
    created_at: int
    """Seconds since the epoch, as every time here."""
    purpose: str
    expires_at: int | None = None


class ExpiresAfter(msgspec.Struct, frozen=True, kw_only=True):
    """When a store that nobody uses goes by itself."""

    days: int
    anchor: Literal["last_active_at"] = "last_active_at"


class Chunking(msgspec.Struct, frozen=True, kw_only=True):
    """How every file of a store is cut: in tokens of the encoder."""

    max_chunk_size_tokens: int
    chunk_overlap_tokens: int


class VectorStore(msgspec.Struct, frozen=True, kw_only=True):
    """A set of files that are searched together."""

    id: str
    """Also the name of its knowledge base. `new_id("vector store")` makes one."""
    name: str
    created_at: int
    last_active_at: int
    metadata: dict[str, str] = {}
    expires_after: ExpiresAfter | None = None
    description: str | None = None
    chunking: Chunking | None = None
    """What the indexer is configured for, if not set. It never changes."""

    @property
    def expires_at(self) -> int | None:
        """When it goes, unless it is used before; None where it stays."""
        if self.expires_after is None:
            return None
        return self.last_active_at + self.expires_after.days * _DAY_S


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """A file in a store."""

    store_id: str
    file_id: str
    version: str
    """Another one with each change; a later one sorts behind an earlier one."""
    created_at: int
    attributes: Attributes = {}
    """Empty in a listing, until `Library.described` has read them."""
    is_cancelled: bool = False
    """Whether it is not to be indexed."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a file in a store."""

    version: str
    """Of the membership that this is about: of any other one nothing is known yet."""
    status: Literal["completed", "failed"]
    usage_bytes: int = 0
    """Of the texts that are stored of it."""
    chunks: int = 0
    error_code: ErrorCode | None = None
    error_message: str = ""
    is_lasting: bool = False
    """Whether it failed for what is in the file itself, so that trying again is of no use."""


class StoreOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the indexer has made of a store."""

    files: dict[str, Outcome] = {}
    """By the ids of the files."""
    is_published: bool = False
    """Whether there is an index of it that can be searched; it may hold nothing."""
    built_with: str = ""
    """Digest of what every file was read, cut and embedded with."""
    finished_at: int = 0

    @property
    def usage_bytes(self) -> int:
        """Of the texts that are stored of all its files."""
        return sum(outcome.usage_bytes for outcome in self.files.values())

    def of(self, membership: Membership) -> Outcome | None:
        """What became of this version of a membership; None while it is in progress."""
        found = self.files.get(membership.file_id)
        return found if found is not None and found.version == membership.version else None


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Files that were attached to a store together."""

    id: str
    store_id: str
    created_at: int
    members: list[tuple[str, str]]
    """File id and version of each membership that it made."""
