"""Azure OpenAI "On Your Data": the field `data_sources` of a chat request, and what it asks for.

Its endpoint, authentication and mapping of fields mean nothing here and are not looked at.
"""

from typing import Annotated, Any, Literal

import msgspec

from gateway.body import Body
from gateway.chat.odata import NotOData, parse_odata
from gateway.citations import Grounding, entry
from gateway.errors import InvalidRequest
from gateway.retrieval.options import MAX_QUERIES, MAX_RESULTS, RetrievalOptions
from gateway.retrieval.selection import Candidate
from indexer.index.records import SearchMode

FIELD = "data_sources"
_PARAMETERS = f"{FIELD}[0].parameters"

Kind = Literal["milvus", "azure_search", "azure_cosmos_db", "elasticsearch", "mongo_db", "pinecone"]
QueryType = Literal[
    "simple", "semantic", "vector", "vector_simple_hybrid", "vector_semantic_hybrid"
]
Part = Literal["citations", "intent", "all_retrieved_documents"]

_MODES: dict[QueryType, SearchMode] = {
    "simple": "bm25",
    "semantic": "bm25",
    "vector": "dense",
    "vector_simple_hybrid": "hybrid",
    "vector_semantic_hybrid": "hybrid",
}
_RELEVANCE_STEP = 0.1
"""What each step of strictness above the first adds to the relevance that is needed."""
_NAMES = {"filters": "filter", "vector_store_ids": "index_name", "rerank": "query_type"}
"""What options of retrieval are called here."""


class SourceParameters(msgspec.Struct, frozen=True):
    """What is left out is as configured."""

    index_name: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    query_type: QueryType | None = None
    in_scope: bool | None = None
    top_n_documents: Annotated[int, msgspec.Meta(ge=1, le=MAX_RESULTS)] | None = None
    strictness: Annotated[int, msgspec.Meta(ge=1, le=5)] | None = None
    filter: str | dict[str, Any] | None = None
    include_contexts: list[Part] | None = None
    role_information: str | None = None
    max_search_queries: Annotated[int, msgspec.Meta(ge=1)] | None = None


class Source(msgspec.Struct, frozen=True):
    """Where is looked, and how."""

    kind: Kind = msgspec.field(name="type")
    parameters: SourceParameters = SourceParameters()


class DataSource:
    """The data source of a request."""

    def __init__(self, parameters: SourceParameters) -> None:
        """Raises InvalidRequest for a filter that makes no sense."""
        self._included = parameters.include_contexts or ["citations", "intent"]
        self._role_information = parameters.role_information or ""
        self.options = self._options(parameters)

    @classmethod
    def read(cls, body: Body) -> "DataSource | None":
        """That of `body`, if it has one. Raises InvalidRequest, naming what is wrong in it."""
        if body.is_absent(FIELD):
            return None
        if not body.is_absent("retrieval"):
            raise InvalidRequest(f"'{FIELD}' and 'retrieval' say the same: send one.", FIELD)
        sources = body.get(FIELD, Annotated[list[Source], msgspec.Meta(min_length=1, max_length=1)])
        return cls(sources[0].parameters)

    @staticmethod
    def param(option: str) -> str:
        """What an option of retrieval is called here."""
        return f"{_PARAMETERS}.{_NAMES.get(option, option)}"

    def instructed(self, messages: list[msgspec.Raw], first_role: str) -> list[msgspec.Raw]:
        """`messages` with `role_information` at the head of the system message.

        A request without one gets one; many chat templates take no second one.
        """
        said = self._role_information
        if not said:
            return messages
        if first_role not in ("system", "developer"):
            own = msgspec.json.encode({"role": "system", "content": said})
            return [msgspec.Raw(own), *messages]
        system = msgspec.json.decode(messages[0], type=dict[str, Any])
        content: Any = system.get("content") or ""
        if isinstance(content, list):
            content = [{"type": "text", "text": said}, *content]
        elif isinstance(content, str):
            content = f"{said}\n\n{content}".strip()
        return [msgspec.Raw(msgspec.json.encode({**system, "content": content})), *messages[1:]]

    def included(self, grounding: Grounding) -> Grounding:
        """`grounding` with a context that has the parts that were asked for."""
        fields = {name: getattr(grounding, name) for name in grounding.__struct_fields__}
        return _Included(**fields, included=self._included)

    def _options(self, said: SourceParameters) -> RetrievalOptions:
        """What `said` means.

        "semantic" is Azure's name for ranking once more: that is done where a reranking model is
        configured, and without that name it is not. Strictness is a threshold of relevance: 1 lets
        everything through, 5 what has a cosine, or a reranked score, of 0.4.
        """
        kind, strictness = said.query_type, said.strictness
        return RetrievalOptions(
            enabled=True,
            vector_store_ids=[said.index_name] if said.index_name else None,
            max_num_results=said.top_n_documents,
            mode=_MODES[kind] if kind else None,
            rerank=None if kind is None or "semantic" in kind else False,
            relevance_threshold=strictness and round((strictness - 1) * _RELEVANCE_STEP, 1),
            filters=_filters(said.filter),
            num_queries=said.max_search_queries and min(said.max_search_queries, MAX_QUERIES),
            in_scope=said.in_scope,
            explain="all_retrieved_documents" in self._included,
        )


class _Included(Grounding, frozen=True, kw_only=True):
    """A grounding that tells some of its context."""

    included: list[Part]

    def context(self, invalid_citations: int | None = None) -> dict[str, Any]:
        context = super().context(invalid_citations)
        explained = context.pop("retrieval", {})
        for part in ("citations", "intent"):
            if part not in self.included:
                del context[part]
        if "all_retrieved_documents" in self.included:
            told = explained.get("candidates", [])
            context["all_retrieved_documents"] = [
                self._retrieved(candidate, each)
                for candidate, each in zip(self.candidates, told, strict=False)
            ]
        return context

    def _retrieved(self, candidate: Candidate, told: dict[str, Any]) -> dict[str, Any]:
        """A document in Azure's shape; `told` is what is explained about it."""
        scores = dict(told["scores"])
        reranked = scores.pop("rerank", None)
        document = {
            **entry(candidate.hit),
            "search_queries": list(self.queries),
            "data_source_index": 0,
            "original_search_score": next(iter(scores.values()), candidate.hit.score),
        }
        if reranked is not None:
            document["rerank_score"] = reranked
        if not told["kept"]:
            document["filter_reason"] = "rank" if self.hits else "score"
        return document


def _filters(said: str | dict[str, Any] | None) -> dict[str, Any] | None:
    if not isinstance(said, str):
        return said
    if not said.strip():
        return None
    try:
        return parse_odata(said)
    except NotOData as exc:
        raise InvalidRequest(
            f"Invalid value for '{_PARAMETERS}.filter': {exc} Send comparisons such as "
            "\"year ge 2023 and product eq 'router'\" with and, or, parentheses and search.in, or "
            "an object in the grammar of OpenAI's filters.",
            f"{_PARAMETERS}.filter",
        ) from exc
