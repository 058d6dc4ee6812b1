"""What grounded answers have beside the text: what was retrieved, and what the model cited."""

from typing import Any, Literal

import msgspec


class ContextCitation(msgspec.Struct):
    """A chunk that the model was given; Azure OpenAI's shape."""

    content: str
    """The chunk's text, as it is in the index."""
    title: str
    url: str
    filepath: str
    chunk_id: str


class Context(msgspec.Struct):
    """What was retrieved for an answer. A stream tells it in the first event of each choice."""

    intent: str | None = None
    """A JSON array with what was searched for."""
    citations: list[ContextCitation] | None = None
    """The chunks that the model was given, best first: `[1]` in the answer means the first."""
    invalid_citations: int | None = None
    """How many numbers the model wrote into markers that name no chunk."""
    degraded: list[Literal["milvus", "encoder", "reranker"]] | None = None
    """Parts that were away, without which the answer was made: the client or the operator said that
    it may be."""
    left_out: dict[str, int] | None = None
    """How many `hits` and `messages` had to leave for want of room."""
    retrieval: dict[str, Any] | None = None
    """How the chunks were found, where `explain` or `dry_run` asks for that."""
    all_retrieved_documents: list[dict[str, Any]] | None = None
    """Everything that was found, where `include_contexts` of `data_sources` asks for that."""


class UrlCitation(msgspec.Struct):
    """Where the model cites what. Indices are character places."""

    start_index: int
    """First character of the marker in the answer."""
    end_index: int
    """One past its last character."""
    title: str
    url: str
    number: int | None = None
    """Entry of `context.citations`, counted from 1."""
    chunk_id: str | None = None
    document_id: str | None = None
    filename: str | None = None
    heading_path: str | None = None
    source_start_index: int | None = None
    """First character of the chunk in the text of its document."""
    source_end_index: int | None = None


class UrlCitationAnnotation(msgspec.Struct, tag_field="type", tag="url_citation"):
    """A citation that the model wrote; OpenAI's shape, with more inside."""

    url_citation: UrlCitation
