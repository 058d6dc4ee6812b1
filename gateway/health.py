"""Whether every part that an answer needs is there, and which one is not."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from gateway.errors import UpstreamFailure
from gateway.models import Models
from gateway.retrieval.retriever import Retriever
from indexer.index.errors import EncoderUnavailable, IndexFailure


class Health:
    """Asks each part itself, all at the same time."""

    def __init__(self, models: Models, retriever: Retriever) -> None:
        self._models = models
        self._retriever = retriever

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
        await self._models.refresh()
        await self._models.resolve(None)

    async def _encoder(self) -> None:
        self._retriever.check_encoder()

    async def _reranker(self) -> None:
        self._retriever.check_reranker()

    async def _milvus(self) -> None:
        with contextlib.suppress(EncoderUnavailable):  # that is the encoder's trouble
            await self._retriever.published.refresh()


async def _reason(check: Coroutine[Any, Any, None]) -> str:
    try:
        await check
    except (UpstreamFailure, IndexFailure) as exc:
        return str(exc)
    return ""
