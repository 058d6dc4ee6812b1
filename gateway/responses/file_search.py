"""The `file_search` tool: what it says about retrieval, and its call in an answer."""

from typing import Annotated, Any, Literal

import msgspec

from gateway.body import Body, decoded
from gateway.citations import Grounding, filename
from gateway.errors import InvalidRequest
from gateway.retrieval.options import MAX_RESULTS, MAX_STORES, RetrievalOptions, Share
from indexer.index.attributes import within_limits
from indexer.index.metadata_filters import parse_filter
from indexer.index.records import Hit

FILE_SEARCH = "file_search"
_CHOSEN = "tool_choice.tools"

Weight = Annotated[float, msgspec.Meta(ge=0)]


class HybridSearch(msgspec.Struct, forbid_unknown_fields=True):
    """What counts how much in a search by meaning and by words."""

    embedding_weight: Weight
    text_weight: Weight


class RankingOptions(msgspec.Struct, forbid_unknown_fields=True):
    """How results are ranked."""

    ranker: Literal["auto", "none", "default-2024-11-15"] | None = None
    score_threshold: Share | None = None
    hybrid_search: HybridSearch | None = None


class _FileSearch(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    vector_store_ids: (
        Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_STORES)] | None
    ) = None
    filters: Any = None
    max_num_results: Annotated[int, msgspec.Meta(ge=1, le=MAX_RESULTS)] | None = None
    ranking_options: RankingOptions | None = None


class _Typed(msgspec.Struct):
    type: str


class Tools(msgspec.Struct, frozen=True):
    """The tools of a request."""

    others: list[msgspec.Raw]
    """Those that vLLM gets."""
    search: msgspec.Raw | None = None
    """The `file_search` tool as it came."""
    place: int = 0
    """Of that, in the client's list."""

    @property
    def name(self) -> str:
        """How errors name the `file_search` tool."""
        return f"tools[{self.place}]"


def read_tools(body: Body) -> Tools:
    """The tools of a request. Raises InvalidRequest."""
    tools: list[msgspec.Raw] = body.get("tools", list[msgspec.Raw] | None) or []
    kinds = [decoded(tool, _Typed, f"tools[{at}]").type for at, tool in enumerate(tools)]
    places = [at for at, kind in enumerate(kinds) if kind == FILE_SEARCH]
    if not places:
        return Tools(tools)
    if len(places) > 1:
        raise InvalidRequest(
            "There is more than one file_search tool: name all stores in one.",
            f"tools[{places[1]}]",
        )
    place = places[0]
    return Tools(tools[:place] + tools[place + 1 :], tools[place], place)


def search_options(raw: msgspec.Raw, name: str, said: RetrievalOptions) -> RetrievalOptions:
    """What the tool called `name` says, over what the request `said` elsewhere.

    Raises InvalidRequest and FilterInvalid.
    """
    tool: _FileSearch = decoded(raw, _FileSearch, name)
    if tool.vector_store_ids is None:
        missing = f"{name}.vector_store_ids"
        raise InvalidRequest(f"Missing required parameter: {missing!r}.", missing)
    if tool.filters is not None:
        parse_filter(tool.filters, f"{name}.filters")
    ranking = tool.ranking_options or RankingOptions()
    options: dict[str, Any] = {
        "enabled": True,
        "vector_store_ids": tool.vector_store_ids,
        "filters": tool.filters,
        "max_num_results": tool.max_num_results,
        "score_threshold": ranking.score_threshold,
        "rerank": False if ranking.ranker == "none" else None,
    }
    if ranking.hybrid_search is not None:
        options["mode"] = "hybrid"
        options["text_weight"] = _share(
            ranking.hybrid_search, f"{name}.ranking_options.hybrid_search"
        )
    given = {field: value for field, value in options.items() if value is not None}
    return msgspec.structs.replace(said, **given)


def without_search(body: Body, tools: Tools) -> tuple[bool, Any]:
    """Whether `tool_choice` lets the search run, and what vLLM gets in its place; None for nothing.

    A search that was demanded has been made when vLLM is asked. Raises InvalidRequest.
    """
    choice = body.lenient("tool_choice", Any)
    searches = tools.search is not None
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == FILE_SEARCH and not searches:
        raise InvalidRequest(
            "Invalid value for 'tool_choice': there is no file_search tool.", "tool_choice"
        )
    if not searches or choice is None:
        return searches, choice
    if kind == "allowed_tools":
        searches, choice = _allowed(choice)
    elif choice == "required" or kind == FILE_SEARCH:
        choice = "auto"
    else:
        searches = choice == "auto"
    return searches, choice if tools.others else None


def search_call(
    call_id: str, grounding: Grounding, status: str, shows_results: bool
) -> dict[str, Any]:
    """The item of an answer that tells what was searched for, and found where that is wanted."""
    finished = status == "completed"
    results = [result(hit) for hit in grounding.hits] if finished and shows_results else None
    return {
        "id": call_id,
        "type": "file_search_call",
        "status": status,
        "queries": list(grounding.queries or [grounding.question]) if finished else [],
        "results": results,
    }


def result(hit: Hit) -> dict[str, Any]:
    """A hit as OpenAI shows it, and its place: the chunk, and the characters of its document."""
    return {
        "file_id": hit.document_id,
        "filename": filename(hit),
        "score": hit.score,
        "text": hit.text,
        "attributes": within_limits(hit.attributes),
        "chunk_id": hit.chunk_id,
        "start_index": hit.start,
        "end_index": hit.end,
    }


def _share(weights: HybridSearch, name: str) -> float:
    """The weight of words, of 1. Raises InvalidRequest."""
    total = weights.embedding_weight + weights.text_weight
    if not total:
        raise InvalidRequest(f"Invalid value for {name!r}: both weights are 0.", name)
    return weights.text_weight / total


def _allowed(choice: dict[str, Any]) -> tuple[bool, Any]:
    """The same of a choice that names the tools that may be used. Raises InvalidRequest."""
    tools = choice.get("tools")
    if not isinstance(tools, list):
        raise InvalidRequest(f"Invalid value for {_CHOSEN!r}: it is no list.", _CHOSEN)
    left = [
        tool for tool in tools if not (isinstance(tool, dict) and tool.get("type") == FILE_SEARCH)
    ]
    if len(left) == len(tools):
        return False, choice
    return True, {**choice, "mode": "auto", "tools": left} if left else "none"
