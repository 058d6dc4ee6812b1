"""Searches a vector store for chunks, and no model answers."""

import asyncio
from typing import Any

import msgspec

from gateway.access.limits import spend
from gateway.citations import filename
from gateway.errors import ModelNotFound, UpstreamFailure
from gateway.models import Models
from gateway.retrieval.catalogue import Catalogue
from gateway.retrieval.options import Wanted
from gateway.retrieval.retriever import Retriever
from gateway.settings import GatewaySettings
from gateway.stages import Stages
from gateway.stores.requests import DEFAULT_RESULTS, Ranking, SearchStore, queries_of, read
from gateway.understanding import Understanding, searched
from indexer.index.attributes import within_limits
from indexer.index.metadata_filters import parse_filter
from indexer.index.records import Hit

FILTERS = "filters"


class StoreSearch:
    """Finds what belongs to a question in one vector store."""

    def __init__(
        self,
        settings: GatewaySettings,
        retriever: Retriever,
        catalogue: Catalogue,
        models: Models,
        understanding: Understanding,
    ) -> None:
        self._retriever = retriever
        self._catalogue = catalogue
        self._models = models
        self._understanding = understanding
        self._wanted = Wanted(
            mode=settings.search_mode,
            text_weight=settings.text_weight,
            candidates=settings.candidates,
            document_share=settings.document_share,
            filters_param=FILTERS,
        )

    async def answer(self, store_id: str, content: bytes, stages: Stages) -> dict[str, Any]:
        """OpenAI's page of results, best first; each is one chunk.

        A store without any file that is ready has none. Raises InvalidRequest, FilterInvalid,
        RateLimited, VectorStoreNotFound, IndexFailure and LibraryUnavailable.
        """
        with stages.measure("admit"):
            said = read(content, SearchStore)
            questions = [searched(query) for query in queries_of(said.query)]
            wanted = self._wanted_by(said)
            await spend(content)
        with stages.measure("look"):
            is_published = await self._catalogue.is_published(store_id, anew=True)
        with stages.measure("rewrite"):
            queries = await self._queries(questions, rewrite=bool(said.rewrite_query))
        hits: list[Hit] = []
        if is_published:
            wanted = msgspec.structs.replace(wanted, stores=(store_id,))
            hits = (await self._retriever.retrieve(queries, wanted, stages)).hits
        return {
            "object": "vector_store.search_results.page",
            "search_query": queries,
            "data": [_result(hit) for hit in hits],
            "has_more": False,
            "next_page": None,
        }

    def _wanted_by(self, said: SearchStore) -> Wanted:
        ranking = said.ranking_options or Ranking()
        return msgspec.structs.replace(
            self._wanted,
            limit=said.max_num_results or DEFAULT_RESULTS,
            score_threshold=ranking.score_threshold,
            rerank=self._retriever.can_rerank and ranking.ranker != "none",
            filters=None if said.filters is None else parse_filter(said.filters, FILTERS),
        )

    async def _queries(self, questions: list[str], *, rewrite: bool) -> list[str]:
        """What is searched for: as it was asked, where no model can put it anew."""
        if not rewrite or not self._models.served:
            return questions
        try:
            model = await self._models.loaded(None)
        except (UpstreamFailure, ModelNotFound):
            return questions
        understood = await asyncio.gather(
            *(self._understanding.rewritten(question, model) for question in questions)
        )
        return [each.queries[0] for each in understood]


def _result(hit: Hit) -> dict[str, Any]:
    """A chunk as OpenAI shows it, and its place in the text of its document."""
    return {
        "file_id": hit.document_id,
        "filename": filename(hit),
        "score": hit.score,
        "attributes": within_limits(hit.attributes),
        "content": [{"type": "text", "text": hit.text}],
        "chunk_id": hit.chunk_id,
        "start_index": hit.start,
        "end_index": hit.end,
    }
