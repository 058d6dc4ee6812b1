"""From the bytes of one document to its chunks: what worker processes do. Knows no vectors."""

from functools import cached_property
from typing import Any

import msgspec

from indexer.chunking import Chunker, ChunkerSettings
from indexer.documents import Content, Span
from indexer.errors import DocumentUnusable
from indexer.parsing import parse


class Prepared(msgspec.Struct, frozen=True):
    """A parsed document, cut into spans."""

    title: str
    """Its own, or else the one that its content came with."""
    canonical_url: str
    attributes: dict[str, Any]
    """What the source says of it, and over that what it says of itself."""
    spans: list[Span]


class Preparation:
    """Parses and cuts documents. It is sent to each process, which makes a chunker of its own."""

    def __init__(self, settings: ChunkerSettings) -> None:
        self._settings = settings

    @cached_property
    def _chunker(self) -> Chunker:
        return Chunker(self._settings)

    def __call__(self, content: Content) -> Prepared:
        """The spans of `content`. Raises DocumentUnusable when there are none."""
        document = parse(content)
        title = document.title or content.title
        spans = self._chunker.split(
            title=title,
            text=document.text,
            anchors=document.anchors,
            has_slugs=document.has_slugs,
        )
        if not spans:
            raise DocumentUnusable("there is no text in it but headings")
        return Prepared(
            title=title,
            canonical_url=document.canonical_url,
            attributes=content.attributes | document.attributes,
            spans=spans,
        )
