"""What the encoder reads of a chunk: its text with title and headings in front. Pure functions."""

TITLE_MAX_BYTES = 120
"""Bytes, since an encoder never makes more tokens than bytes of what it does not know."""
HEADING_PATH_MAX_BYTES = 120
SEPARATOR = " > "
"""Between the headings of a path."""


def passage(title: str, heading_path: str, text: str) -> str:
    """What is embedded for a chunk: title, headings and text, one below the other.

    A long title loses its end, a long path its outermost headings: both together stay below 250
    bytes. A path that begins with the title says it once.
    """
    head = [_clipped(" ".join(title.split()), TITLE_MAX_BYTES), _innermost(title, heading_path)]
    return "\n".join([*filter(None, head), text])


def text_alone(title: str, heading_path: str, text: str) -> str:  # noqa: ARG001
    """What is embedded for a chunk without its title and headings."""
    return text


def _innermost(title: str, heading_path: str) -> str:
    headings = [" ".join(heading.split()) for heading in heading_path.split(SEPARATOR)]
    if headings[0] == " ".join(title.split()):
        del headings[0]
    while len(headings) > 1 and len(SEPARATOR.join(headings).encode()) > HEADING_PATH_MAX_BYTES:
        del headings[0]
    return _clipped(SEPARATOR.join(headings), HEADING_PATH_MAX_BYTES)


def _clipped(text: str, max_bytes: int) -> str:
    return text.encode()[:max_bytes].decode(errors="ignore").rstrip()
