"""What clients say about vector stores and their files, checked. Each failure names the field."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from gateway.body import UNREADABLE, Body
from gateway.errors import InvalidRequest
from gateway.retrieval.options import MAX_RESULTS, Share
from indexer.index.library import Attributes, Chunking, ExpiresAfter
from indexer.index.library.attributes import checked_attributes

T = TypeVar("T")

MOST_FILES = 500
"""In one request."""
MOST_QUERIES = 10
DEFAULT_RESULTS = 10

_PLACE = re.compile(r"(?: - at (?:`key` in )?`\$(.*)`)?$")
"""How msgspec tells where it met what it did not expect."""
_FIELD = re.compile(r"(?:unknown|required) field `([^`]*)`")

Key = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Value = Annotated[str, msgspec.Meta(max_length=512)]
Metadata = Annotated[dict[Key, Value], msgspec.Meta(max_length=16)]
Name = Annotated[str, msgspec.Meta(max_length=256)]
Description = Annotated[str, msgspec.Meta(max_length=512)]
SaidAttributes = dict[str, str | float | bool]


class _Expiry(msgspec.Struct, forbid_unknown_fields=True):
    anchor: Literal["last_active_at"]
    days: Annotated[int, msgspec.Meta(ge=1, le=365)]


class _Sizes(msgspec.Struct, forbid_unknown_fields=True):
    max_chunk_size_tokens: Annotated[int, msgspec.Meta(ge=100, le=4096)]
    chunk_overlap_tokens: Annotated[int, msgspec.Meta(ge=0)]


class _Auto(msgspec.Struct, tag="auto", forbid_unknown_fields=True):
    """As the store or the indexer does it."""


class _Static(msgspec.Struct, tag="static", forbid_unknown_fields=True):
    static: _Sizes


_Strategy = _Auto | _Static
FileIds = Annotated[list[str], msgspec.Meta(max_length=MOST_FILES)]


class CreateStore(msgspec.Struct, forbid_unknown_fields=True):
    """A new vector store."""

    name: Name | None = None
    description: Description | None = None
    file_ids: FileIds | None = None
    metadata: Metadata | None = None
    expires_after: _Expiry | None = None
    chunking_strategy: _Strategy | None = None


class UpdateStore(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be said of a vector store from now on; what is unset stays, null is nothing."""

    name: Name | msgspec.UnsetType | None = msgspec.UNSET
    metadata: Metadata | msgspec.UnsetType | None = msgspec.UNSET
    expires_after: _Expiry | msgspec.UnsetType | None = msgspec.UNSET


class AttachFile(msgspec.Struct, forbid_unknown_fields=True):
    """A file that is to be in a vector store."""

    file_id: str
    attributes: SaidAttributes | None = None
    chunking_strategy: _Strategy | None = None


class UpdateFile(msgspec.Struct, forbid_unknown_fields=True):
    """Other attributes of a file in a vector store."""

    attributes: SaidAttributes | None


class CreateBatch(msgspec.Struct, forbid_unknown_fields=True):
    """Files that are to be in a vector store."""

    file_ids: FileIds | None = None
    files: Annotated[list[AttachFile], msgspec.Meta(max_length=MOST_FILES)] | None = None
    attributes: SaidAttributes | None = None
    chunking_strategy: _Strategy | None = None


class Ranking(msgspec.Struct, forbid_unknown_fields=True):
    """How results are ranked."""

    ranker: Literal["none", "auto", "default-2024-11-15"] = "auto"
    score_threshold: Share = 0.0


class SearchStore(msgspec.Struct, forbid_unknown_fields=True):
    """What is searched for."""

    query: str | Annotated[list[str], msgspec.Meta(min_length=1, max_length=MOST_QUERIES)]
    filters: Any = None
    max_num_results: Annotated[int, msgspec.Meta(ge=1, le=MAX_RESULTS)] | None = None
    ranking_options: Ranking | None = None
    rewrite_query: bool | None = None


def read(content: bytes, expected: type[T]) -> T:
    """The body of a request as `expected`; an empty one says nothing. Raises InvalidRequest."""
    content = content or b"{}"
    Body(content)
    try:
        return msgspec.json.decode(content, type=expected)
    except UNREADABLE as exc:
        message = str(exc)
        place, field = _PLACE.search(message), _FIELD.search(message)
        parts = [place[1] or "" if place else "", f".{field[1]}" if field else ""]
        param = "".join(parts).removeprefix(".") or None
        raise InvalidRequest(f"Invalid value for {param!r}: {message}", param) from exc


def attributes_of(said: SaidAttributes | None, param: str = "attributes") -> Attributes:
    """Attributes of a file within OpenAI's limits. Raises InvalidRequest."""
    try:
        return checked_attributes(said or {})
    except ValueError as exc:
        raise InvalidRequest(f"Invalid value for {param!r}: {exc}.", param) from exc


def expiry_of(said: _Expiry | None) -> ExpiresAfter | None:
    """When a store goes that nobody uses."""
    return None if said is None else ExpiresAfter(days=said.days, anchor=said.anchor)


def chunking_of(said: _Strategy | None, param: str = "chunking_strategy") -> Chunking | None:
    """How files are to be cut; None where the client leaves it open. Raises InvalidRequest."""
    if not isinstance(said, _Static):
        return None
    sizes = said.static
    if sizes.chunk_overlap_tokens > sizes.max_chunk_size_tokens // 2:
        where = f"{param}.static.chunk_overlap_tokens"
        raise InvalidRequest(
            f"Invalid value for {where!r}: it is more than half of max_chunk_size_tokens.", where
        )
    return Chunking(
        max_chunk_size_tokens=sizes.max_chunk_size_tokens,
        chunk_overlap_tokens=sizes.chunk_overlap_tokens,
    )


def common_chunking(
    strategies: Sequence[_Strategy | None], of_store: Chunking | None, *, is_empty: bool
) -> Chunking | None:
    """How a store is to be cut that gets files with these strategies.

    It is one for all files of a store, and the first files decide where its creation did not.
    Raises InvalidRequest.
    """
    for said in strategies:
        wanted = chunking_of(said)
        if wanted in (None, of_store):
            continue
        if of_store is not None or not is_empty:
            raise InvalidRequest(
                "Invalid value for 'chunking_strategy': all files of a vector store are cut in one "
                "way here. Say it when the store is created, or for its first files, and leave it "
                "out for others.",
                "chunking_strategy",
            )
        of_store = wanted
    return of_store


def queries_of(said: str | Sequence[str]) -> list[str]:
    """The questions of a search. Raises InvalidRequest."""
    queries = [said] if isinstance(said, str) else list(said)
    for place, query in enumerate(queries):
        if not query.strip():
            param = "query" if isinstance(said, str) else f"query[{place}]"
            raise InvalidRequest(f"Invalid value for {param!r}: it is blank.", param)
    return queries
