"""How the fields of a collection that another program made are mapped to ours."""

FIELDS = ("text", "source", "vector", "title", "tenant")
"""What may be mapped; text and vector must be."""


def parsed_fields(said: str) -> dict[str, str]:
    """`text=chunk, vector=vector` as a mapping. Raises ValueError, saying what is wrong."""
    pairs = [part.strip().partition("=") for part in said.split(",") if part.strip()]
    fields = {ours.strip(): theirs.strip() for ours, _, theirs in pairs}
    if unknown := fields.keys() - set(FIELDS):
        raise ValueError(f"{', '.join(sorted(unknown))} cannot be mapped, but {', '.join(FIELDS)}")
    if missing := [name for name in ("text", "vector") if not fields.get(name)]:
        raise ValueError(f"{' and '.join(missing)} must be mapped, as in text=chunk")
    if empty := [name for name, theirs in fields.items() if not theirs]:
        raise ValueError(f"{', '.join(empty)} is mapped to nothing")
    return fields
