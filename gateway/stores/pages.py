"""Pages of a list, as OpenAI cuts them: by `limit`, `order`, and the id of an item as a cursor."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from gateway.errors import InvalidRequest

T = TypeVar("T")

DEFAULT_LIMIT = 20
MOST = 100
STATUSES = ("in_progress", "completed", "failed", "cancelled")
"""Of files in a vector store."""
_ORDERS = ("asc", "desc")


class PageQuery(msgspec.Struct, frozen=True):
    """Which part of a list a client wants."""

    limit: int = DEFAULT_LIMIT
    newest_first: bool = True
    after: str | None = None
    """Id of the item that stands before the page."""
    before: str | None = None
    """Id of the item that stands behind it."""

    @classmethod
    def read(
        cls, params: Mapping[str, str], *, limit: int = DEFAULT_LIMIT, most: int = MOST
    ) -> "PageQuery":
        """What the query of a URL says. Raises InvalidRequest, naming the parameter."""
        said = params.get("limit", str(limit))
        if not (said.isascii() and said.isdigit() and len(said) < 10 and 1 <= int(said) <= most):
            raise InvalidRequest(
                f"Invalid value for 'limit': it is a whole number from 1 to {most}.", "limit"
            )
        order = params.get("order", "desc")
        if order not in _ORDERS:
            raise InvalidRequest("Invalid value for 'order': it is 'asc' or 'desc'.", "order")
        return cls(
            int(said), order == "desc", params.get("after") or None, params.get("before") or None
        )


class FilesQuery(msgspec.Struct, frozen=True):
    """Which of the files of a vector store a client wants."""

    page: PageQuery = PageQuery()
    status: str | None = None
    """Only those with it."""

    @classmethod
    def read(cls, params: Mapping[str, str]) -> "FilesQuery":
        """What the query of a URL says. Raises InvalidRequest, naming the parameter."""
        status = params.get("filter") or None
        if status not in (None, *STATUSES):
            raise InvalidRequest(
                f"Invalid value for 'filter': it is one of {', '.join(STATUSES)}.", "filter"
            )
        return cls(PageQuery.read(params), status)


class Page(msgspec.Struct, Generic[T], frozen=True):
    """A part of a list."""

    items: list[T]
    has_more: bool
    """Whether there is more of it in the direction in which the client reads."""

    def told(self, shape: Callable[[T], dict[str, Any]]) -> dict[str, Any]:
        """OpenAI's list object, with each item in its `shape`."""
        return listing([shape(item) for item in self.items], has_more=self.has_more)


def page(
    oldest_first: Sequence[T],
    query: PageQuery,
    identity: Callable[[T], str],
    place: Callable[[str], int | None] = lambda _: None,
) -> Page[T]:
    """The part of a list that `query` wants.

    `place` tells how many items are older than one that is gone: clients delete what they list,
    and go on behind it. None where that is not known. Raises InvalidRequest for such a cursor.
    """
    places = {identity(item): at for at, item in enumerate(oldest_first)}

    def bounds(name: str, cursor: str) -> tuple[int, int]:
        """How many items are older than the cursor, and how many not newer."""
        if (at := places.get(cursor)) is not None:
            return at, at + 1
        if (at := place(cursor)) is None:
            raise InvalidRequest(
                f"Invalid value for {name!r}: there is nothing with id {cursor[:100]!r} in this "
                "list.",
                name,
            )
        return at, at

    begin, end = 0, len(oldest_first)
    after = None if query.after is None else bounds("after", query.after)
    before = None if query.before is None else bounds("before", query.before)
    older, newer = (before, after) if query.newest_first else (after, before)
    if older is not None:
        begin = older[1]
    if newer is not None:
        end = min(end, newer[0])
    items = list(oldest_first[begin:end])
    if query.newest_first:
        items.reverse()
    backwards = query.before is not None and query.after is None
    kept = items[-query.limit :] if backwards else items[: query.limit]
    return Page(kept, has_more=len(items) > query.limit)


def listing(data: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """OpenAI's list object."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }
