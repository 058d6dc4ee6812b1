"""What the encoder reads of a chunk: a line of title and headings, and the text. Pure functions."""

HEAD_MAX_BYTES = 240
"""Bytes of the first line: whatever the script, an encoder makes no more tokens than bytes."""
SEPARATOR = " > "
"""Between the headings of a path, and between a title and the headings below it."""


def passage(title: str, heading_path: str, text: str) -> str:
    """What is embedded for a chunk that is embedded with its title and headings.

    A title that is also the first heading is said once. What is too long loses its outermost
    headings first, then the ends of the title and of the innermost heading.
    """
    parts = [" ".join(part.split()) for part in (title, *heading_path.split(SEPARATOR))]
    if len(parts) > 1 and parts[0] == parts[1]:
        del parts[0]
    parts = _fitting([part for part in parts if part])
    return "\n".join([*filter(None, [SEPARATOR.join(parts)]), text])


def text_alone(title: str, heading_path: str, text: str) -> str:  # noqa: ARG001
    """What is embedded for a chunk that is embedded without its title and headings."""
    return text


def _fitting(parts: list[str]) -> list[str]:
    while len(parts) > 2 and _is_too_long(parts):
        del parts[1]
    if _is_too_long(parts):
        room = HEAD_MAX_BYTES // len(parts) - len(SEPARATOR)
        parts = [part.encode()[:room].decode(errors="ignore").rstrip() for part in parts]
    return parts


def _is_too_long(parts: list[str]) -> bool:
    return len(SEPARATOR.join(parts).encode()) > HEAD_MAX_BYTES
