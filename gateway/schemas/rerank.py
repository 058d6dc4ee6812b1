"""Reranking, as it is documented."""

from typing import Annotated

import msgspec

from gateway.errors import InvalidRequest, ModelNotFound
from gateway.rerank import MAX_DOCUMENTS, Document
from gateway.schemas import failures
from gateway.schemas.documented import Documented
from gateway.schemas.sampling import Positive


class RerankRequest(msgspec.Struct, kw_only=True):
    """The request that Jina, Cohere and vLLM share."""

    model: str
    """`default`, or the name of the reranking model."""
    query: Annotated[str, msgspec.Meta(min_length=1)]
    documents: Annotated[list[str | Document], msgspec.Meta(min_length=1, max_length=MAX_DOCUMENTS)]
    top_n: Positive | None = None
    """How many of the best the answer has; all, if not said."""
    return_documents: bool | None = None
    """Whether the answer has their texts; it has, if not said."""


class RankedDocument(msgspec.Struct):
    """A document and how well it fits."""

    index: int
    """Its place in the request."""
    relevance_score: float
    """0 to 1, higher is better."""
    document: Document | None = None


class RerankAnswer(msgspec.Struct):
    """The documents, best first."""

    id: str
    model: str
    results: list[RankedDocument]


RERANK = Documented(
    id="createRerank",
    tag="Embeddings",
    summary="Rank documents for a query",
    requests=(RerankRequest,),
    example={
        "model": "default",
        "query": "What do llamas eat?",
        "documents": ["Llamas eat grass.", "GEO is high."],
        "top_n": 1,
    },
    answers=(RerankAnswer,),
    failures=(InvalidRequest, ModelNotFound, *failures.UPSTREAM, *failures.ENCODER),
)
