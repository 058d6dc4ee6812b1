"""A retriever, put together and started as the gateway does it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from gateway.encoding import LocalEncoding
from gateway.retrieval.published import Published
from gateway.retrieval.reranking import Reranker
from gateway.retrieval.retriever import Retriever
from indexer.index.collection import IndexReader
from indexer.index.embedding import EmbeddingModel


@asynccontextmanager
async def searching(
    reader: IndexReader,
    load: Callable[[], EmbeddingModel],
    *,
    tenant: str = "acme",
    knowledge_base: str = "documents",
    reranker: Reranker | None = None,
) -> AsyncIterator[Retriever]:
    """One whose encoder is loaded, or has failed to load; everything is closed behind it."""
    encoding = LocalEncoding(load)
    published = Published(reader, encoding, 60, knowledge_base)
    await encoding.start()
    if reranker is not None:
        await reranker.start()
    try:
        yield Retriever(reader, encoding, published, tenant, reranker)
    finally:
        if reranker is not None:
            await reranker.close()
        await encoding.close()
        await reader.close()
