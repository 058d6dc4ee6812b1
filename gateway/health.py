"""Whether every part that an answer needs is there, and which one is not.

Who asks is never kept waiting: a part that does not answer soon is one that is not there. However
many ask at the same time, each part is asked once for all of them.
"""

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

LOOK_S = 2.0
"""Longest wait for any part; who probes the gateway does not wait for much longer."""


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
        self._looking: asyncio.Task[dict[str, str]] | None = None

    async def missing(self) -> dict[str, str]:
        """The parts that are not there, with the reason; empty when the gateway is ready."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        return await asyncio.shield(self._looking)

    async def _look(self) -> dict[str, str]:
        parts = {
            "vllm": self._vllm(),
            "encoder": self._encoder(),
            "reranker": self._reranker(),
            "milvus": self._milvus(),
        }
        reasons = await asyncio.gather(*map(_reason, parts.values()))
        return {part: reason for part, reason in zip(parts, reasons, strict=True) if reason}

    async def _vllm(self) -> None:
        await self._models.until_served()
        if self._models.none_may_be_asked:
            raise UpstreamUnavailable("; ".join(self.troubles.values()))

    @property
    def troubles(self) -> dict[str, str]:
        """What is the matter with vLLM servers that others stand in for, by their URL."""
        return self._models.troubles()

    async def _encoder(self) -> None:
        self._encoding.check()

    async def _reranker(self) -> None:
        if self._rerank_model is not None:
            self._rerank_model.check()

    async def _milvus(self) -> None:
        with contextlib.suppress(EncoderUnavailable):  # that is the encoder's trouble
            await self._published.check()


async def _reason(check: Coroutine[Any, Any, None]) -> str:
    try:
        async with asyncio.timeout(LOOK_S):
            await check
    except TimeoutError:
        return f"it did not answer within {LOOK_S:g} s"
    except (UpstreamFailure, IndexFailure) as exc:
        return str(exc)
    return ""
