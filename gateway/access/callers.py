"""Who asks: whose documents a request may read, and what else it may do.

The caller of a request is kept beside the request, not handed from function to function: what reads
or changes documents asks for it where it adds the tenant, and fails where nobody was admitted.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated

import msgspec

_Most = Annotated[int, msgspec.Meta(ge=1)] | None


# A limit whose name is mistyped in a file of keys would be none.
class Limits(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """How much may be asked for; None is no limit."""

    requests_per_minute: _Most = None
    tokens_per_minute: _Most = None
    """Of prompts and answers together."""
    concurrent_requests: _Most = None
    """Requests that are being answered at a time, streams among them."""
    answer_tokens: _Most = None
    """Of one answer."""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """What a key stands for."""

    name: str
    """For logs and metrics; nothing secret."""
    tenant: str
    """Whose documents it reads and writes."""
    knowledge_bases: tuple[str, ...] | None = None
    """Those of the indexer that it may search; None means all of them.

    Where a request names none, the gateway's default is searched if it is among them, else the
    first.
    """
    models: tuple[str, ...] | None = None
    """Names, as requests say them, that it may ask; None means all of them."""
    may_write: bool = True
    """Whether it may store and change files and vector stores."""
    limits: Limits = Limits()


_CALLER: ContextVar[Caller] = ContextVar("caller")


def caller() -> Caller:
    """Who asks. Raises LookupError outside of a request that was admitted."""
    return _CALLER.get()


def tenant_or_nobody() -> str:
    """The caller's tenant; empty for what the gateway does by itself."""
    who = _CALLER.get(None)
    return "" if who is None else who.tenant


@contextmanager
def acting_as(who: Caller) -> Iterator[None]:
    """Have `caller()` be `who` in this block, and in the tasks that it starts."""
    token = _CALLER.set(who)
    try:
        yield
    finally:
        _CALLER.reset(token)
