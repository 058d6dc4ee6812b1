"""Ties what the model wrote to the hits it was given, in the shapes that clients know.

`context` is what was retrieved (Azure OpenAI "On Your Data"), annotations are what the model
cited (OpenAI's). What the model did not cite is never presented as cited.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from gateway.degraded import DETAIL
from gateway.markers import markers, markers_in_json
from gateway.retrieval.selection import Candidate
from indexer.index.records import Hit


class Citation(msgspec.Struct, frozen=True):
    """A claim in an answer, tied to a hit."""

    start: int
    """First character of the marker in the answer."""
    end: int
    """One past its last character."""
    number: int
    """That of the hit in the prompt, from 1."""
    hit: Hit


class Cited(msgspec.Struct, frozen=True):
    """What an answer cites."""

    citations: list[Citation]
    """In the order of the answer."""
    invalid: int
    """How many numbers the model wrote into markers that name no hit. They claim nothing."""


class Grounding(msgspec.Struct, frozen=True):
    """What an answer was given to stand on."""

    question: str
    hits: Sequence[Hit]
    is_json: bool = False
    """Whether the client asked for JSON, as text or after a schema."""
    details: dict[str, Any] = {}
    """What the context tells beside query and hits: what was left out, how hits were chosen."""
    queries: Sequence[str] = ()
    """Everything that was searched for."""
    candidates: Sequence[Candidate] = ()
    """Everything that was found, what the model does not get included."""

    @property
    def was_searched(self) -> bool:
        """Whether there was a search: there is none where a part that it needs is away."""
        return {"milvus", "encoder"}.isdisjoint(self.details.get(DETAIL, ()))

    def context(self, invalid_citations: int | None = None) -> dict[str, Any]:
        """The `context` field of a message; see `context`."""
        return context(self.question, self.hits, invalid_citations) | self.details

    def cited(self, answer: str) -> Cited:
        """What `answer` cites; see `cited`."""
        return cited(answer, self.hits, is_json=self.is_json)


def cited(answer: str, hits: Sequence[Hit], *, is_json: bool = False) -> Cited:
    """What the markers in `answer` cite; number n means entry n - 1 of `hits`.

    In a JSON answer markers are in strings alone: elsewhere `[1]` is an array.
    """
    found = markers_in_json(answer) if is_json else markers(answer)
    return Cited(
        [
            Citation(marker.start, marker.end, number, hits[number - 1])
            for marker in found
            for number in marker.named(len(hits))
        ],
        sum(marker.stray(len(hits)) for marker in found),
    )


def context(
    question: str, hits: Sequence[Hit], invalid_citations: int | None = None
) -> dict[str, Any]:
    """The `context` field of a message: the query, and the hits best first.

    Hit number n of the prompt is entry n - 1 of `citations`. How many citations are invalid is
    left out where it is not known yet.
    """
    retrieved: dict[str, Any] = {
        "intent": msgspec.json.encode([question]).decode(),
        "citations": [entry(hit) for hit in hits],
    }
    if invalid_citations is None:
        return retrieved
    return retrieved | {"invalid_citations": invalid_citations}


def entry(hit: Hit) -> dict[str, Any]:
    """A hit in a `context`."""
    return {
        "content": hit.text,
        "title": hit.title,
        "url": hit.source,
        "filepath": filename(hit),
        "chunk_id": hit.chunk_id,
    }


def annotations(answer: str, hits: Sequence[Hit], *, is_json: bool = False) -> list[dict[str, Any]]:
    """The `annotations` field of a message with that text: see `url_citation`."""
    return [url_citation(each) for each in cited(answer, hits, is_json=is_json).citations]


def url_citation(citation: Citation) -> dict[str, Any]:
    """An annotation of a chat message, with more inside than OpenAI's has.

    All indices are character places: of the marker in the answer, and of the chunk in the text
    of its document (`source_…`).
    """
    return {
        "type": "url_citation",
        "url_citation": {
            "start_index": citation.start,
            "end_index": citation.end,
            "title": citation.hit.title,
            "url": _url(citation.hit),
            "document_id": citation.hit.document_id,
            "filename": filename(citation.hit),
            **_place(citation),
        },
    }


def file_citation(citation: Citation) -> dict[str, Any]:
    """An annotation of a text in the Responses API, with more beside it than OpenAI's has.

    `index` is the character where the marker begins.
    """
    return {
        "type": "file_citation",
        "file_id": citation.hit.document_id,
        "filename": filename(citation.hit),
        "index": citation.start,
        "start_index": citation.start,
        "end_index": citation.end,
        "title": citation.hit.title,
        "url": _url(citation.hit),
        **_place(citation),
    }


def search_result_location(citation: Citation) -> dict[str, Any]:
    """A citation of a text block in Anthropic's API, with more beside it than theirs has.

    A hit is a search result of one block, and its index that in `context.citations`.
    """
    return {
        "type": "search_result_location",
        "cited_text": citation.hit.text,
        "source": _url(citation.hit),
        "title": citation.hit.title or None,
        "search_result_index": citation.number - 1,
        "start_block_index": 0,
        "end_block_index": 1,
        "start_index": citation.start,
        "end_index": citation.end,
        "document_id": citation.hit.document_id,
        "filename": filename(citation.hit),
        **_place(citation),
    }


def _place(citation: Citation) -> dict[str, Any]:
    """What tells exactly which part of which document is cited."""
    return {
        "number": citation.number,
        "chunk_id": citation.hit.chunk_id,
        "heading_path": citation.hit.heading_path,
        "source_start_index": citation.hit.start,
        "source_end_index": citation.hit.end,
    }


def _url(hit: Hit) -> str:
    """Its source; on the web, the heading of the page that the chunk stands below."""
    is_page = hit.source.startswith(("http://", "https://")) and "#" not in hit.source
    return (
        f"{hit.source}#{quote(hit.anchor, _IN_FRAGMENTS)}" if is_page and hit.anchor else hit.source
    )


def filename(hit: Hit) -> str:
    """What the document of a hit is called; see `filename_of`."""
    return filename_of(hit.source)


def filename_of(source: str) -> str:
    """The last part of a document's source, which may be a page without a path."""
    if "://" in source:
        source = source.partition("#")[0].partition("?")[0].rstrip("/")
    return source.rsplit("/", 1)[-1]


_IN_FRAGMENTS = "/?:@!$&'()*+,;=-._~"
"""What need not be escaped behind the "#" of a URL (RFC 3986, section 3.5)."""
