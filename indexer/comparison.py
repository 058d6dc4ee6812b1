"""What is stored, document by document, and whether it is whole. Knows rows, not sources."""

from collections.abc import Iterable

import msgspec

from indexer.documents import Content
from indexer.index.collection import StoredChunk
from indexer.index.records import content_hash, key

UPLOAD_SCHEME = "upload:"
"""Of the uris of uploaded files, whose ids are those of their documents."""


class StoredDocument(msgspec.Struct, gc=False):
    """What the rows of one document say together."""

    document_hash: str
    version: str
    source: str
    chunk_count: int
    rows: int = 1
    is_uniform: bool = True
    """Whether its rows are all of one version: a run that was cut off leaves several."""

    @property
    def is_whole(self) -> bool:
        """Whether every chunk is there, and nothing else."""
        return self.is_uniform and self.rows == self.chunk_count

    def add(self, row: StoredChunk) -> None:
        """Take one more of its rows into account."""
        self.rows += 1
        self.is_uniform &= (row.document_hash, row.version, row.chunk_count) == (
            self.document_hash,
            self.version,
            self.chunk_count,
        )


def stored_documents(rows: Iterable[StoredChunk]) -> dict[str, StoredDocument]:
    """The documents that `rows` make up, by their ids; a few hundred bytes each."""
    documents: dict[str, StoredDocument] = {}
    for row in rows:
        if (known := documents.get(row.document_id)) is not None:
            known.add(row)
        else:
            documents[row.document_id] = StoredDocument(
                row.document_hash, row.version, row.source, row.chunk_count
            )
    return documents


def is_unchanged(stored: StoredDocument | None, content: Content) -> bool:
    """Whether all that `content` makes is stored already."""
    return stored is not None and stored.is_whole and stored.document_hash == document_hash(content)


def document_id(tenant: str, uri: str) -> str:
    """The same for the same document in every run: two tenants may have the same file."""
    if uri.startswith(UPLOAD_SCHEME):
        return uri.removeprefix(UPLOAD_SCHEME)
    return key(tenant, uri)


def document_hash(content: Content) -> str:
    """Of everything that decides what is stored: the bytes, the format and the attributes."""
    said = msgspec.structs.replace(content, data=b"", version="")
    return key(
        content_hash(content.data), msgspec.json.encode(said, order="deterministic").decode()
    )
