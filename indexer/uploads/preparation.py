"""From the bytes of an upload to its chunks: what worker processes do. Knows no index."""

import msgspec

from indexer.chunking import ChunkerSettings
from indexer.documents import Content
from indexer.errors import ConfigurationUnusable
from indexer.index.library.records import Chunking
from indexer.preparation import Preparation, Prepared

_MOST_PREPARATIONS = 8


class UploadedContent(Content, frozen=True, kw_only=True):
    """The bytes of an uploaded file, and how its store wants it to be cut."""

    file_id: str
    chunking: Chunking | None


class UploadPreparation:
    """Parses and cuts uploads, of whatever store: what worker processes do.

    What a client says of a file counts, and not what the file says of itself: its source is the
    file, and its attributes are those of its membership.
    """

    def __init__(self, settings: ChunkerSettings) -> None:
        self._settings = settings
        self._preparations: dict[Chunking | None, Preparation] = {}

    def __call__(self, content: Content) -> Prepared:
        """The spans of `content`. Raises DocumentUnusable when there are none."""
        chunking = content.chunking if isinstance(content, UploadedContent) else None
        if chunking not in self._preparations:
            if len(self._preparations) >= _MOST_PREPARATIONS:
                self._preparations.clear()
            self._preparations[chunking] = Preparation(chunker_of(self._settings, chunking))
        prepared = self._preparations[chunking](content)
        return msgspec.structs.replace(prepared, canonical_url="", attributes=content.attributes)


def chunker_of(settings: ChunkerSettings, chunking: Chunking | None) -> ChunkerSettings:
    """`settings` with the size that a store asks for. Raises ConfigurationUnusable."""
    if chunking is None:
        return settings
    if not settings.tokenizer:
        raise ConfigurationUnusable(
            "the tokenizer of the embedding model is not known: chunks have no size in tokens"
        )
    share = 100 * chunking.chunk_overlap_tokens // chunking.max_chunk_size_tokens
    return msgspec.structs.replace(
        settings,
        size=chunking.max_chunk_size_tokens,
        overlap_percent=min(50, share),
        unit="tokens",
    )
