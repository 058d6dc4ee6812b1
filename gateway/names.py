"""Names that clients may give to models: vLLM's own, `default`, and aliases.

An ending of the name switches retrieval. Knows no server.
"""

from collections.abc import Mapping

import msgspec

DEFAULT_MODEL = "default"
"""The name that always means whatever vLLM serves."""
_ENDINGS = {":no-retrieval": False, ":retrieval": True}
"""For clients that can choose a model and nothing else."""


class Named(msgspec.Struct, frozen=True):
    """What a name means."""

    model: str
    """As vLLM knows it, or `default`."""
    retrieval: bool | None = None
    """Whether its ending switches retrieval on or off."""


def named(requested: str, aliases: Mapping[str, str]) -> Named:
    """What `requested` means; an alias may stand for a name with an ending."""
    name, retrieval = without_ending(requested)
    name, by_alias = without_ending(aliases.get(name, name))
    return Named(name, by_alias if retrieval is None else retrieval)


def parsed_aliases(said: str) -> dict[str, str]:
    """The aliases that `gpt-4o=default, plain=default:no-retrieval` names.

    Raises ValueError.
    """
    aliases: dict[str, str] = {}
    for pair in filter(None, map(str.strip, said.split(","))):
        name, equals, target = (part.strip() for part in pair.partition("="))
        if not (name and equals and target):
            raise ValueError("a part of it is not written as name=model")
        if name in aliases or name == DEFAULT_MODEL:
            raise ValueError("one of its names has a meaning already")
        aliases[name] = target
    if any(without_ending(target)[0] in aliases for target in aliases.values()):
        raise ValueError("an alias in it means another alias")
    return aliases


def without_ending(name: str) -> tuple[str, bool | None]:
    """`name` without the ending that switches retrieval, and what that says."""
    for ending, retrieval in _ENDINGS.items():
        if name.endswith(ending):
            return name.removesuffix(ending), retrieval
    return name, None
