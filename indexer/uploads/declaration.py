"""Which attributes the files of a vector store have, and of which type each is."""

from collections.abc import Iterable, Mapping

from indexer.index.attributes import MOST_ATTRIBUTES
from indexer.index.library import Membership
from indexer.index.library.attributes import attribute_type, checked_attributes
from indexer.index.records import AttributeType


def declaration(
    members: Iterable[Membership], published: Mapping[str, AttributeType]
) -> tuple[dict[str, AttributeType], dict[str, str]]:
    """The declared attributes of a store, and why files cannot be in it, by their ids.

    Of two files that do not go together the later one cannot. What is `published` and no file
    has any more stays declared where it can: another declaration builds the index anew.
    """
    declared: dict[str, AttributeType] = {}
    refused: dict[str, str] = {}
    for member in sorted(members, key=lambda member: member.version):
        try:
            declared |= _types(member, declared)
        except ValueError as exc:
            refused[member.file_id] = str(exc)
    for name, kind in sorted(published.items()):
        if len(declared) < MOST_ATTRIBUTES:
            declared.setdefault(name, kind)
    return dict(sorted(declared.items())), refused


def _types(member: Membership, declared: dict[str, AttributeType]) -> dict[str, AttributeType]:
    checked_attributes(member.attributes)
    types = {name: attribute_type(name, value) for name, value in member.attributes.items()}
    for name, kind in types.items():
        if (other := declared.get(name, kind)) != kind:
            raise ValueError(
                f"attribute {name!r} is a {kind}, and a {other} in another file of the vector store"
            )
    if len(declared | types) > MOST_ATTRIBUTES:
        raise ValueError(
            f"the files of the vector store have more than {MOST_ATTRIBUTES} attributes together"
        )
    return types
