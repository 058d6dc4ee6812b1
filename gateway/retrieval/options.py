"""What a request and the settings say about retrieval."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from gateway.body import UNREADABLE, Body
from gateway.errors import InvalidRequest
from indexer.index.metadata_filters import Filter, compile_filter, parse_filter
from indexer.index.records import AttributeType, SearchMode

WhenNothingFound = Literal["answer", "refuse", "fail"]
"""Answer without context, answer with a fixed sentence, or fail with an error."""
WhenUnavailable = Literal["fail", "degrade"]
"""Fail with an error, or answer without what a part that is away would give, and say so."""
MAX_RESULTS = 50
MAX_CANDIDATES = 200
MAX_NEIGHBOURS = 5
MAX_QUERIES = 5
MAX_STORES = 10
FILTERS = "retrieval.filters"
"""How errors name the filter of a request."""

HEADER = "x-groundserve-retrieval"
"""For clients that cannot add a field to a request: the same JSON as a header."""

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class RetrievalOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The request's own `retrieval` field; what it leaves out is as configured."""

    enabled: bool | None = None
    """Whether the answer is to stand on documents."""
    vector_store_ids: (
        Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_STORES)] | None
    ) = None
    """Where is looked; what several find is merged by score."""
    max_num_results: Annotated[int, msgspec.Meta(ge=1, le=MAX_RESULTS)] | None = None
    """Chunks that the model gets."""
    mode: SearchMode | None = None
    """By meaning, by words, or both."""
    text_weight: Share | None = None
    """Weight of words in a hybrid search, of 1, instead of fusing by rank."""
    candidates: Annotated[int, msgspec.Meta(ge=1, le=MAX_CANDIDATES)] | None = None
    """Chunks that are looked at before the best are chosen."""
    score_threshold: Share | None = None
    """Hits with a lower score are dropped."""
    relevance_threshold: Share | None = None
    """Where the best cosine, or reranked score, is lower, nothing relevant was found."""
    rerank: bool | None = None
    """Whether a configured reranking model reads the candidates."""
    neighbours: Annotated[int, msgspec.Meta(ge=0, le=MAX_NEIGHBOURS)] | None = None
    """Chunks before and after each hit that are put to it."""
    filters: Any = None
    """In OpenAI's grammar; see `indexer.index.metadata_filters`."""
    num_queries: Annotated[int, msgspec.Meta(ge=1, le=MAX_QUERIES)] | None = None
    """Ways in which the model puts the question before it is searched for."""
    in_scope: bool | WhenNothingFound | None = None
    """What to do where nothing relevant is found; true is "refuse", false is "answer"."""
    when_unavailable: WhenUnavailable | None = None
    """What to do where Milvus, the encoder or the reranker is away."""
    explain: bool = False
    """Tell how the hits were found, in the answer's context."""
    dry_run: bool = False
    """Explain, and do not ask the model."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """How one question is answered: the settings, and over them what the request says."""

    stores: tuple[str, ...] | None = None
    """Knowledge bases that are searched, which may be none; the configured one, if not set."""
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
    filters_param: str = FILTERS
    """How errors name them."""
    when_nothing_found: WhenNothingFound = "answer"
    when_unavailable: WhenUnavailable = "fail"
    explain: bool = False

    def where(self, declared: Mapping[str, AttributeType]) -> str:
        """The filter for a generation with these attributes. Raises FilterInvalid.

        Another generation may have other attributes in the same fields.
        """
        return (
            ""
            if self.filters is None
            else compile_filter(self.filters, declared, self.filters_param)
        )

    def with_options(self, options: RetrievalOptions, param: str = FILTERS) -> "Wanted":
        """What the request says, over this; `param` names its filters. Raises FilterInvalid."""
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
            "when_unavailable": options.when_unavailable,
            "filters": None if options.filters is None else parse_filter(options.filters, param),
            "filters_param": param,
        }
        given = {name: value for name, value in said.items() if value is not None}
        explain = options.explain or options.dry_run
        return msgspec.structs.replace(self, **given, explain=explain)


def read_options(body: Body, header: str | None, *, asks: bool = False) -> RetrievalOptions:
    """What a request says: in its body, else in its header. Raises InvalidRequest.

    With `asks`, who says how, and not whether, asks for retrieval.
    """
    said = body.get("retrieval", bool | RetrievalOptions | None)
    if said is None and header is not None:
        try:
            said = msgspec.json.decode(header, type=bool | RetrievalOptions | None)
        except UNREADABLE as exc:
            raise InvalidRequest(
                f"The header {HEADER} is not what the field 'retrieval' may be: {exc}", HEADER
            ) from exc
    if not isinstance(said, RetrievalOptions):
        return RetrievalOptions(enabled=said)
    if asks and said.enabled is None:
        return msgspec.structs.replace(said, enabled=True)
    return said
