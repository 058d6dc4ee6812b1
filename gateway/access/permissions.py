"""What the caller of a request may use. Each of these questions is answered here alone.

What a caller may not use does not exist for it: it is left out of every list, and who names it is
told what is told of a name that nothing has. Only writing is refused as such, since that says
nothing of anybody's documents.
"""

from collections.abc import Iterable, Sequence

from gateway.access.callers import caller
from gateway.errors import ModelNotFound, PermissionDenied
from gateway.names import DEFAULT_MODEL, without_ending


def check_may_write() -> None:
    """Raises PermissionDenied where the caller may only read."""
    if not caller().may_write:
        raise PermissionDenied(
            "This API key may not store or change anything. Use one that may write."
        )


def usable(knowledge_bases: Sequence[str]) -> Sequence[str]:
    """Those that the caller may use, of what the gateway is configured for.

    The first is meant where a request names none: the gateway's own first one if the caller may
    use it, else the first that its key lists.
    """
    allowed = caller().knowledge_bases
    if allowed is None:
        return knowledge_bases
    listed = [name for name in dict.fromkeys(allowed) if name in knowledge_bases]
    return sorted(listed, key=lambda name: name != knowledge_bases[0])


def may_ask(model: str) -> bool:
    """Whether the caller may ask the model that a request calls `model`.

    A key lists names as requests say them, and each stands for itself: that of an alias, or
    `default`, lets nobody ask by the name that it means now, and the other way round. An ending
    that switches retrieval is no part of a name.
    """
    allowed = caller().models
    return allowed is None or model in allowed or without_ending(model)[0] in allowed


def usual_model() -> str:
    """The name of the model that is meant where a request names none; "" where there is none."""
    allowed = caller().models
    if allowed is None or DEFAULT_MODEL in allowed:
        return DEFAULT_MODEL
    return allowed[0] if allowed else ""


def model_not_found(requested: str, known: Iterable[str]) -> ModelNotFound:
    """The error for a name that nothing has which the caller may ask; it tells those of `known`."""
    names = ", ".join(filter(may_ask, known)) or "none"
    return ModelNotFound(f"The model {requested!r} does not exist here. There are: {names}.")
