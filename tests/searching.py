"""A retriever, put together and started as the gateway does it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from gateway.access.callers import Caller, acting_as
from gateway.access.tenant_index import TenantIndex
from gateway.encoding import LocalEncoding
from gateway.retrieval.options import Wanted
from gateway.retrieval.published import Published
from gateway.retrieval.reranking import Reranker
from gateway.retrieval.retriever import Retrieved, Retriever
from gateway.retrieval.searches import Searches
from gateway.stages import Stages
from indexer.index.collection import IndexReader
from indexer.index.embedding import EmbeddingModel
from indexer.index.errors import EncoderUnavailable


class ActingRetriever(Retriever):
    """One that a caller of a tenant asks, whoever is about otherwise."""

    def __init__(self, tenant: str, *parts: Any) -> None:
        super().__init__(*parts)
        self._who = Caller(name="test", tenant=tenant)

    async def retrieve(self, questions: Sequence[str], wanted: Wanted, stages: Stages) -> Retrieved:
        with acting_as(self._who):
            return await super().retrieve(questions, wanted, stages)


@asynccontextmanager
async def searching(
    reader: IndexReader,
    load: Callable[[], EmbeddingModel],
    *,
    tenant: str = "acme",
    knowledge_base: str = "documents",
    poll_interval_s: float = 60.0,
    reranker: Reranker | None = None,
) -> AsyncIterator[Retriever]:
    """One whose encoder is loaded, or has failed to load; everything is closed behind it."""
    encoding = LocalEncoding(load)
    published = Published(reader, encoding, poll_interval_s, knowledge_base)
    index = TenantIndex(reader, Searches(reader), published, [knowledge_base])
    starting = asyncio.create_task(encoding.start())
    while "still loading" in _trouble(encoding):  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.001)
    if reranker is not None:
        await reranker.start()
    try:
        yield ActingRetriever(tenant, index, encoding, published, reranker)
    finally:
        starting.cancel()
        if reranker is not None:
            await reranker.close()
        await encoding.close()
        await reader.close()


def _trouble(encoding: LocalEncoding) -> str:
    try:
        encoding.check()
    except EncoderUnavailable as exc:
        return str(exc)
    return ""
