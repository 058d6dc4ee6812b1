"""Documents ranked for a query, as Jina, Cohere and vLLM shape it. Knows no HTTP."""

import asyncio
import secrets
from collections.abc import Sequence
from typing import Annotated

import msgspec

from gateway.access.limits import BYTES_A_TOKEN, admission, spend
from gateway.body import Body
from gateway.errors import InvalidRequest, ModelNotFound, UpstreamBroken, UpstreamRejected
from gateway.own_models import OwnModel
from gateway.retrieval.reranking import Reranker
from gateway.settings import GatewaySettings
from gateway.stages import Stages

MAX_DOCUMENTS = 1000
_REFUSALS = (400, 413, 422)
"""Statuses of a rerank server for texts that it does not take."""


class Document(msgspec.Struct, frozen=True):
    """A document of a request or of an answer; what else it says does not count."""

    text: str


_Documents = Annotated[list[str | Document], msgspec.Meta(min_length=1, max_length=MAX_DOCUMENTS)]


class RerankRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a client wants ranked, and for what."""

    model: str
    query: str
    documents: list[str]
    top_n: int
    """How many of the best the answer has."""
    return_documents: bool
    """Whether the answer has their texts."""

    @classmethod
    def read(cls, content: bytes) -> "RerankRequest":
        """The request in `content`. Raises InvalidRequest."""
        body = Body(content)
        model = body.required("model", str)
        query = body.required("query", Annotated[str, msgspec.Meta(min_length=1)])
        documents = [
            given if isinstance(given, str) else given.text
            for given in body.required("documents", _Documents)
        ]
        top_n = body.get("top_n", Annotated[int, msgspec.Meta(ge=1)] | None)
        return_documents = body.get("return_documents", bool | None)
        return cls(
            model=model,
            query=query,
            documents=documents,
            top_n=min(top_n or len(documents), len(documents)),
            return_documents=return_documents is not False,
        )


class _Result(msgspec.Struct, frozen=True, omit_defaults=True):
    index: int
    relevance_score: float
    document: Document | None = None


class _Ranking(msgspec.Struct, frozen=True):
    id: str
    model: str
    results: list[_Result]


class Ranking:
    """Answers requests to rank documents."""

    def __init__(self, settings: GatewaySettings, reranker: Reranker | None) -> None:
        self._reranker = reranker
        # A server tells the name that it knows the model by; no folder is one.
        name = settings.reranker_model if settings.reranker_url else None
        self._model = OwnModel.called(settings.reranker_model or "reranker", name)

    async def answer(self, content: bytes, stages: Stages) -> bytes:
        """The answer to the request in `content`, as JSON.

        Raises InvalidRequest, ModelNotFound, IndexFailure and UpstreamFailure.
        """
        if self._reranker is None:
            raise ModelNotFound("No reranking model is configured here.")
        await spend(content)
        # It may be megabytes: that is for another thread.
        request = await asyncio.to_thread(RerankRequest.read, content)
        self._model.check(request.model)
        with stages.measure("rerank"):
            scores = await self._scores(self._reranker, request)
        if (limited := admission()) is not None:
            again = (len(request.documents) - 1) * len(request.query)
            limited.used_besides(again // BYTES_A_TOKEN)  # it is read with each document
        return msgspec.json.encode(self._ranking(request, scores))

    async def _scores(self, reranker: Reranker, request: RerankRequest) -> list[float]:
        try:
            return await reranker.scores(request.query, request.documents)
        except UpstreamBroken as exc:
            # Elsewhere what a server refuses is the gateway's fault; these texts are the client's.
            refusal = exc.__cause__
            if isinstance(refusal, UpstreamRejected) and refusal.status in _REFUSALS:
                said = f"the rerank server: {refusal.message}"
                raise InvalidRequest(said, "documents") from exc
            raise

    def _ranking(self, request: RerankRequest, scores: Sequence[float]) -> _Ranking:
        best = sorted(range(len(scores)), key=lambda index: -scores[index])[: request.top_n]
        results = [
            _Result(
                index,
                scores[index],
                Document(request.documents[index]) if request.return_documents else None,
            )
            for index in best
        ]
        return _Ranking(f"rerank-{secrets.token_hex(12)}", self._model.name, results)
