"""The things that are stored and found: chunks, hits, and the fingerprint of a collection."""

import hashlib
from typing import Any, Literal

import msgspec

AttributeType = Literal["string", "integer", "number", "boolean"]
"""What a declared attribute may be; see `attributes`."""

SCHEMA_VERSION = 3
SearchMode = Literal["dense", "bm25", "hybrid"]
"""By meaning, by words, or by both, fused by Milvus."""


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A stored span of a document."""

    chunk_id: str
    tenant: str
    document_id: str
    document_hash: str
    """Of its bytes and attributes: where it differs, the document has changed."""
    version: str
    """What its source gave to ask next time whether it changed, such as an ETag; may be empty."""
    run: int
    """Number of the run that wrote it. Of two versions of a document the later run's counts."""
    source: str
    """Canonical URL of the document, or its path."""
    title: str
    heading_path: str
    """Headings above the chunk, outermost first, joined by " > "."""
    anchor: str = ""
    """Fragment of the URL that leads to the innermost of them; empty where there is none."""
    ordinal: int
    """Place among the chunks of the document, from 0."""
    chunk_count: int
    """How many chunks the document has: where fewer are stored, a run was cut off."""
    start: int
    """First character of the chunk in the document's text."""
    end: int
    """One past its last character."""
    text: str
    chunk_hash: str
    """Of the passage that was embedded: chunks of one hash have one vector."""
    attributes: dict[str, Any]


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk that a search found."""

    chunk_id: str
    document_id: str
    document_hash: str = ""
    source: str
    title: str
    heading_path: str
    anchor: str = ""
    ordinal: int = 0
    chunks: int = 1
    """How many chunks from `ordinal` on it covers: neighbours may have been joined to it."""
    start: int
    end: int
    text: str
    attributes: dict[str, Any] = {}
    knowledge_base: str = ""
    """Where it was found; empty where only one can be meant."""
    score: float
    """In 0..1, higher is better. By meaning it is the cosine of the angle between query and
    passage, by words 2/π·atan of BM25, by both how well it ranks: 1 is the first of both."""


class EncoderIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides which vector a text gets."""

    model: str
    """Name or folder that the model was loaded from, for people; `revision` is what counts."""
    revision: str
    """Digest of the weights: the same wherever the model was loaded from."""
    dimension: int
    pooling: str
    normalised: bool
    query_prefix: str
    passage_prefix: str

    @classmethod
    def unknown(cls, dimension: int) -> "EncoderIdentity":
        """That of a collection which tells nothing but how long its vectors are."""
        return cls(
            model="",
            revision="",
            dimension=dimension,
            pooling="",
            normalised=True,
            query_prefix="",
            passage_prefix="",
        )

    def differences(self, other: "EncoderIdentity") -> list[str]:
        """Each part in which the two differ, with both values; `model` alone is no difference.

        Of an unknown encoder only the dimension counts.
        """
        parts = self.__struct_fields__ if self.revision else ("dimension",)
        return [
            f"{field} {getattr(self, field)!r} is not {getattr(other, field)!r}"
            for field in parts
            if field != "model" and getattr(self, field) != getattr(other, field)
        ]


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """What a collection was built with. Two of one fingerprint are interchangeable."""

    encoder: EncoderIdentity
    chunker: str
    """The splitter and its parameters, as one line."""
    metric: str = "COSINE"
    language: str = "english"
    """Whose words are stemmed for BM25, in questions as in passages; see `terms.LANGUAGES`."""
    attributes: dict[str, AttributeType] = {}
    """Declared attributes, by name and in the order of names: filters may use these alone."""
    schema_version: int = SCHEMA_VERSION


def content_hash(content: bytes) -> str:
    """128-bit BLAKE2b of `content`, as 32 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def key(*parts: str | int) -> str:
    """A deterministic key of 32 hexadecimal digits, whatever characters `parts` hold."""
    return content_hash(msgspec.json.encode(parts))
