"""Pages of lists, and what lists are asked, as they are documented."""

from typing import Annotated, Literal

import msgspec

from gateway.schemas.documented import Parameter
from gateway.stores.pages import DEFAULT_LIMIT, MOST


class Page(msgspec.Struct, tag_field="object", tag="list", kw_only=True):
    """A part of a list."""

    first_id: str | None
    last_id: str | None
    """The cursor that goes on from here: `after`."""
    has_more: bool


class Deleted(msgspec.Struct):
    """What is told of an object that is gone."""

    id: str
    object: str
    deleted: Literal[True]


def paged(default: int = DEFAULT_LIMIT, most: int = MOST) -> tuple[Parameter, ...]:
    """What a request may say about the part of a list that it wants."""
    return (
        Parameter(
            name="limit",
            description=f"How many; {default}, if not said.",
            type=Annotated[int, msgspec.Meta(ge=1, le=most)],
        ),
        Parameter(
            name="order",
            description="By age: `desc` has the newest first, and is meant if not said.",
            type=Literal["asc", "desc"],
        ),
        Parameter(name="after", description="Id of what stands before the page."),
        Parameter(name="before", description="Id of what stands behind the page."),
    )
