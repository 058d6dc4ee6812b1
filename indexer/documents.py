"""What passes between the steps of a run: a document to be read, its bytes, text and spans."""

from typing import Any, Protocol

import msgspec


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """What a source gives for one document."""

    data: bytes
    format: str
    """Suffix that tells the format, with its dot and in lower case: ".md"."""
    version: str = ""
    """What to show the source next time, to be told that nothing changed: an ETag. May be empty."""
    attributes: dict[str, Any] = {}
    """What the configuration and a sidecar file say of it; values are JSON."""
    title: str = ""
    """What its record or its sidecar file calls it; used where the text states no title."""
    charset: str = ""
    """Encoding that the web server declares; may be wrong, or no encoding at all."""


class SourceDocument(Protocol):
    """A document that a source has listed. It can be pickled: worker processes read it too."""

    @property
    def uri(self) -> str:
        """Absolute and the same in every run: `file:///srv/docs/a.md`, `https://x.org/a`."""

    @property
    def name(self) -> str:
        """What people are shown, and the source of its chunks where it states no canonical URL."""

    @property
    def tenant(self) -> str:
        """Whose document it is."""

    def read(self, known_version: str = "") -> Content | None:
        """Its content; None when it has not changed since it had `known_version`.

        Raises DocumentGone when it is no longer there, DocumentUnusable when it cannot be read.
        """


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """The text of one document, as a parser leaves it."""

    title: str
    """Empty where the document states none."""
    canonical_url: str = ""
    """Empty where the document states none."""
    text: str
    """Markdown, or plain text."""
    attributes: dict[str, Any] = {}
    """What the document says of itself, in its front matter; values are JSON."""
    anchors: list[tuple[str, str]] = []
    """Words and id of each of its headings in order, where it states ids; an id may be empty."""
    has_slugs: bool = False
    """Whether its headings have the anchors that GitHub gives to those of Markdown files."""


class Span(msgspec.Struct, frozen=True):
    """A chunk before it has a vector: a piece of a document's text."""

    start: int
    """First character in the document's text."""
    text: str
    heading_path: str
    """Headings above it, outermost first, joined by " > "."""
    anchor: str = ""
    """What leads to the heading above it: the part of an address behind "#". May be empty."""

    @property
    def end(self) -> int:
        """One past its last character."""
        return self.start + len(self.text)
