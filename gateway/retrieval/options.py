"""What a request and the settings say about retrieval."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from indexer.index.metadata_filters import Filter, compile_filter, parse_filter
from indexer.index.records import AttributeType, SearchMode

WhenNothingFound = Literal["answer", "refuse", "fail"]
"""Answer without context, answer with a fixed sentence, or fail with an error."""
MAX_RESULTS = 50
MAX_CANDIDATES = 200
MAX_NEIGHBOURS = 5
MAX_QUERIES = 5
FILTERS = "retrieval.filters"
"""How errors name the filter of a request."""

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class RetrievalOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The request's own `retrieval` field; what it leaves out is as configured."""

    enabled: bool | None = None
    max_num_results: Annotated[int, msgspec.Meta(ge=1, le=MAX_RESULTS)] | None = None
    mode: SearchMode | None = None
    text_weight: Share | None = None
    candidates: Annotated[int, msgspec.Meta(ge=1, le=MAX_CANDIDATES)] | None = None
    score_threshold: Share | None = None
    relevance_threshold: Share | None = None
    rerank: bool | None = None
    neighbours: Annotated[int, msgspec.Meta(ge=0, le=MAX_NEIGHBOURS)] | None = None
    filters: Any = None
    """In OpenAI's grammar; see `indexer.index.metadata_filters`."""
    num_queries: Annotated[int, msgspec.Meta(ge=1, le=MAX_QUERIES)] | None = None
    in_scope: bool | WhenNothingFound | None = None
    """Azure's word: true is "refuse", false is "answer"."""
    explain: bool = False
    dry_run: bool = False
    """Explain, and do not ask the model."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """How one question is answered: the settings, and over them what the request says."""

    limit: int = 2
    """Hits that the model gets at most."""
    mode: SearchMode = "hybrid"
    text_weight: float | None = None
    """Weight of words in a hybrid search, of 1; by rank, if not set."""
    candidates: int = 40
    """Chunks that are looked at before the best are chosen."""
    score_threshold: float = 0.0
    """Hits below it are dropped."""
    relevance_threshold: float = 0.0
    """Below it, nothing relevant is found: of the best cosine, or of the best reranked score."""
    rerank: bool = False
    neighbours: int = 0
    """Chunks before and after a hit that are put to it."""
    document_share: float = 1.0
    """Share of the hits that one document may have."""
    filters: Filter | None = None
    """On attributes."""
    when_nothing_found: WhenNothingFound = "answer"
    explain: bool = False

    def where(self, declared: Mapping[str, AttributeType]) -> str:
        """The filter for a generation with these attributes. Raises FilterInvalid.

        Another generation may have other attributes in the same fields.
        """
        return "" if self.filters is None else compile_filter(self.filters, declared, FILTERS)

    def with_options(self, options: RetrievalOptions) -> "Wanted":
        """What the request says, over this. Raises FilterInvalid."""
        in_scope = options.in_scope
        if isinstance(in_scope, bool):
            in_scope = "refuse" if in_scope else "answer"
        said = {
            "limit": options.max_num_results,
            "mode": options.mode,
            "text_weight": options.text_weight,
            "candidates": options.candidates,
            "score_threshold": options.score_threshold,
            "relevance_threshold": options.relevance_threshold,
            "rerank": options.rerank,
            "neighbours": options.neighbours,
            "when_nothing_found": in_scope,
            "filters": None if options.filters is None else parse_filter(options.filters, FILTERS),
        }
        given = {name: value for name, value in said.items() if value is not None}
        explain = options.explain or options.dry_run
        return msgspec.structs.replace(self, **given, explain=explain)
