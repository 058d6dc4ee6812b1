"""Cuts a document's Markdown text into chunks. Knows text, not files or vectors."""

from indexer.chunking.chunker import Chunker, ChunkerSettings
from indexer.documents import Span
from indexer.index.passages import passage

__all__ = ["Chunker", "ChunkerSettings", "Span", "passage"]
