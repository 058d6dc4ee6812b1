"""From a conversation to what its answer stands on: understand, retrieve, fit, and tell how."""

from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.budget import Budget, Fitted
from gateway.citations import Grounding
from gateway.conversation import Conversation
from gateway.degraded import DETAIL, UNSEARCHED, Part, degraded, searching_part
from gateway.errors import InvalidRequest, NothingFound
from gateway.models import Loaded
from gateway.retrieval.catalogue import Catalogue
from gateway.retrieval.options import Wanted
from gateway.retrieval.retriever import Retrieved, Retriever
from gateway.retrieval.selection import Candidate, covers
from gateway.settings import GatewaySettings
from gateway.stages import Stages
from gateway.understanding import Understanding, Understood
from indexer.index.records import Hit


class Ground(msgspec.Struct, frozen=True):
    """What an answer stands on, and what is to be done with the request."""

    grounding: Grounding
    refuses: bool
    """Whether the answer is the configured refusal, and the model is not asked."""
    index: str
    """Which states of which knowledge bases were searched."""
    away: tuple[Part, ...] = ()
    """Parts that were to take part and could not."""


class Grounder:
    """Puts context into conversations."""

    def __init__(
        self,
        settings: GatewaySettings,
        retriever: Retriever,
        catalogue: Catalogue,
        understanding: Understanding,
        budget: Budget,
    ) -> None:
        self._enabled = settings.retrieval
        self._num_queries = settings.num_queries
        self._retriever = retriever
        self._catalogue = catalogue
        self._understanding = understanding
        self._budget = budget
        self._wanted = Wanted(
            limit=settings.max_num_results,
            mode=settings.search_mode,
            text_weight=settings.text_weight,
            candidates=settings.candidates,
            score_threshold=settings.score_threshold,
            relevance_threshold=settings.relevance_threshold,
            rerank=retriever.can_rerank,
            neighbours=settings.neighbours,
            document_share=settings.document_share,
            when_nothing_found=settings.when_nothing_found,
            when_unavailable=settings.when_unavailable,
        )

    def wanted(self, conversation: Conversation) -> bool:
        """Whether the answer is to stand on documents."""
        asked = conversation.retrieval.enabled
        if asked is None:
            asked = self._enabled and conversation.grounded_by_default
        return asked and bool(conversation.question)

    async def ground(self, conversation: Conversation, model: Loaded, stages: Stages) -> Ground:
        """Find what the question is about, and put into the conversation what fits.

        Raises GatewayFailure, IndexFailure and FilterInvalid: an answer that should stand on
        documents and cannot is no answer, unless the client or the operator has said that it is.
        """
        options = conversation.retrieval
        wanted = self._wanted.with_options(options, conversation.param("filters"))
        if wanted.rerank and not self._retriever.can_rerank:
            raise InvalidRequest("No reranking model is configured.", conversation.param("rerank"))
        stores = await self._catalogue.searchable(
            options.vector_store_ids, conversation.param("vector_store_ids")
        )
        if wanted.when_nothing_found != "answer" or options.dry_run:
            wanted = msgspec.structs.replace(wanted, when_unavailable="fail")
        wanted = msgspec.structs.replace(wanted, stores=stores)
        with stages.measure("rewrite"):
            understood = await self._understanding.queries(
                conversation, model, options.num_queries or self._num_queries
            )
        found = await self._found(understood.queries, wanted, stages)
        refuses = not found.hits and wanted.when_nothing_found == "refuse"
        fails = not found.hits and wanted.when_nothing_found == "fail"
        if fails and not options.dry_run:
            raise NothingFound("Nothing relevant to this question was found in the documents.")
        fitted = Fitted([], None)
        if not refuses:
            with stages.measure("fit"):
                fitted = await self._budget.fit(conversation, found.hits, model)
            conversation.augment(fitted.prompt, fitted.forgotten)
        details: dict[str, Any] = {}
        if found.away:
            details[DETAIL] = found.away
        if left_out := _left_out(fitted):
            details["left_out"] = left_out
        if wanted.explain:
            details["retrieval"] = {
                **_explained(understood, found, fitted),
                "milliseconds": stages.milliseconds(),
            }
        grounding = Grounding(
            understood.queries[0],
            fitted.hits,
            conversation.wants_json,
            details,
            understood.queries,
            found.candidates,
        )
        return Ground(grounding, refuses, self._retriever.versions(stores), found.away)

    async def _found(self, questions: Sequence[str], wanted: Wanted, stages: Stages) -> Retrieved:
        try:
            return await self._retriever.retrieve(questions, wanted, stages)
        except UNSEARCHED as exc:
            if wanted.when_unavailable == "fail":
                raise
            return Retrieved(hits=[], away=degraded(searching_part(exc), exc))


def _left_out(fitted: Fitted) -> dict[str, int]:
    """What had to leave for want of room; empty where nothing had to."""
    left = {"hits": fitted.hits_left_out, "messages": fitted.messages_left_out}
    return {kind: count for kind, count in left.items() if count}


def _explained(understood: Understood, found: Retrieved, fitted: Fitted) -> dict[str, Any]:
    return {
        "queries": understood.queries,
        "fallback": understood.fallback,
        "relevance": found.relevance,
        "candidates": [
            _told(candidate, found.scores.get(candidate.hit.chunk_id, {}), fitted.hits)
            for candidate in found.candidates
        ],
        "prompt": fitted.prompt,
        "tokens": fitted.tokens,
    }


def _told(candidate: Candidate, scores: dict[str, float], given: Sequence[Hit]) -> dict[str, Any]:
    hit = candidate.hit
    kept = any(covers(each, hit) for each in given)
    return {
        "chunk_id": hit.chunk_id,
        "title": hit.title,
        "url": hit.source,
        "score": hit.score,
        "scores": scores,
        "kept": kept,
        "reason": candidate.dropped or ("" if kept else "there is no room for it"),
    }
