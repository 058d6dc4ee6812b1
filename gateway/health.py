"""Whether every part that an answer needs is there, and which one is not."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from gateway.encoding import Encoding
from gateway.errors import UpstreamFailure, UpstreamUnavailable
from gateway.models import Models
from gateway.retrieval.published import Published
from gateway.retrieval.reranking import Reranker
from indexer.index.errors import EncoderUnavailable, IndexFailure


class Health:
    """Asks each part itself, all at the same time."""

    def __init__(
        self,
        models: Models,
        encoding: Encoding,
        published: Published,
        reranker: Reranker | None,
    ) -> None:
        self._models = models
        self._encoding = encoding
        self._published = published
        self._rerank_model = reranker

    async def missing(self) -> dict[str, str]:
        """The parts that are not there, with the reason; empty when the gateway is ready."""
        parts = {
            "vllm": self._vllm(),
            "encoder": self._encoder(),
            "reranker": self._reranker(),
            "milvus": self._milvus(),
        }
        reasons = await asyncio.gather(*map(_reason, parts.values()))
        return {part: reason for part, reason in zip(parts, reasons, strict=True) if reason}

    async def _vllm(self) -> None:
        if not await self._models.refresh():
            raise UpstreamUnavailable("the model server has no model loaded yet")

    async def _encoder(self) -> None:
        self._encoding.check()

    async def _reranker(self) -> None:
        if self._rerank_model is not None:
            self._rerank_model.check()

    async def _milvus(self) -> None:
        with contextlib.suppress(EncoderUnavailable):  # that is the encoder's trouble
            await self._published.refresh(self._published.default)


async def _reason(check: Coroutine[Any, Any, None]) -> str:
    try:
        await check
    except (UpstreamFailure, IndexFailure) as exc:
        return str(exc)
    return ""
