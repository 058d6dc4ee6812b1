"""Reads plain text, which states no title. Knows text, not formats with structure."""

from indexer.documents import Content, Document
from indexer.parsing.decoding import decode


def parse(content: Content) -> Document:
    """The text as it is. Raises DocumentUnusable when it is binary."""
    return Document(title="", text=decode(content.data))
