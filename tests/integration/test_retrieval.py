"""The gateway's retrieval on a Milvus Lite server: publications, mismatches, restarts."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from stack import servers

from gateway.retrieval.options import Wanted
from gateway.retrieval.published import MOST_FAILURES
from gateway.retrieval.retriever import Retrieved, Retriever
from gateway.stages import Stages
from indexer.index.collection import IndexReader
from indexer.index.embedding import Encoder
from indexer.index.errors import (
    EncoderUnavailable,
    FingerprintMismatch,
    IndexUnavailable,
    KnowledgeBaseMissing,
)
from indexer.index.settings import IndexSettings
from indexer.report import Report
from tests.searching import searching

RunIndexer = Callable[..., Report]
QUESTION = "How high is a geostationary orbit?"
RECOVERY_S = 60.0


def _retriever(
    settings: IndexSettings, encoder: Encoder, poll_interval_s: float = 60.0
) -> AbstractAsyncContextManager[Retriever]:
    return searching(
        IndexReader(settings),
        lambda: encoder,
        tenant=settings.tenant,
        knowledge_base=settings.knowledge_base,
        poll_interval_s=poll_interval_s,
    )


async def _retrieved(retriever: Retriever, question: str) -> Retrieved:
    return await retriever.retrieve([question], Wanted(limit=1), Stages())


@pytest.mark.anyio
async def test_questions_that_wait_together_each_get_their_own_hits(
    index_settings: IndexSettings, encoder: Encoder, documents: Path, run_indexer: RunIndexer
) -> None:
    run_indexer(documents)
    async with _retriever(index_settings, encoder) as retriever:
        found = await asyncio.gather(
            *(_retrieved(retriever, text) for text in (QUESTION, "What do llamas eat?") * 8)
        )
    assert [result.hits[0].title for result in found] == ["Orbits", "Llamas"] * 8


@pytest.mark.anyio
async def test_a_publication_is_noticed_and_its_predecessor_is_never_missed(
    index_settings: IndexSettings, encoder: Encoder, documents: Path, run_indexer: RunIndexer
) -> None:
    async with _retriever(index_settings, encoder) as retriever:
        with pytest.raises(KnowledgeBaseMissing):
            await _retrieved(retriever, QUESTION)
        run_indexer(documents)
        assert (await _retrieved(retriever, QUESTION)).hits[0].title == "Orbits"
        # The generation that the retriever knows is dropped by this run.
        run_indexer(documents, size=128)
        assert (await _retrieved(retriever, QUESTION)).hits[0].title == "Orbits"


@pytest.mark.anyio
async def test_a_collection_of_another_encoder_is_refused_with_both_sides_named(
    index_settings: IndexSettings, documents: Path, run_indexer: RunIndexer
) -> None:
    run_indexer(documents)
    prefixed = Encoder.load(index_settings.model_copy(update={"encoder_query_prefix": "query: "}))
    async with _retriever(index_settings, prefixed) as retriever:
        with pytest.raises(FingerprintMismatch, match="query_prefix '' is not 'query: '"):
            await _retrieved(retriever, QUESTION)


@pytest.mark.anyio
async def test_an_encoder_that_cannot_be_loaded_is_named(index_settings: IndexSettings) -> None:
    def load() -> Encoder:
        return Encoder.load(index_settings.model_copy(update={"encoder_model": "/no/such/folder"}))

    async with searching(IndexReader(index_settings), load) as retriever:
        with pytest.raises(EncoderUnavailable, match="/no/such/folder"):
            await _retrieved(retriever, QUESTION)


@pytest.mark.anyio
async def test_the_watch_ends_whenever_it_is_told_to(
    index_settings: IndexSettings, documents: Path, run_indexer: RunIndexer, encoder: Encoder
) -> None:
    run_indexer(documents)
    for number in range(60):
        async with _retriever(index_settings, encoder) as retriever:
            watch = asyncio.create_task(retriever.published.watch())
            await asyncio.sleep(number * 0.0003)  # in the middle of connecting, sooner or later
            watch.cancel()
            done, _ = await asyncio.wait({watch}, timeout=5)
            assert watch in done
            assert watch.cancelled()


@pytest.mark.anyio
async def test_a_killed_and_restarted_milvus_is_found_again(
    encoder: Encoder,
    documents: Path,
    tmp_path: Path,
    free_port: Callable[[], int],
    run_indexer: RunIndexer,
) -> None:
    port = free_port()
    patient = IndexSettings(milvus_uri=f"http://127.0.0.1:{port}", milvus_timeout_s=10)
    settings = patient.model_copy(update={"milvus_timeout_s": 2})
    with servers.milvus(port, tmp_path / "data", tmp_path / "logs") as server:
        server.wait_ready()
        run_indexer(documents, settings=patient)
        async with _retriever(settings, encoder, poll_interval_s=0.5) as retriever:
            assert (await _retrieved(retriever, QUESTION)).hits
            server.stop()
            for _ in range(MOST_FAILURES + 1):
                with pytest.raises(IndexUnavailable):
                    await _retrieved(retriever, QUESTION)
            watch = asyncio.create_task(retriever.published.watch())
            server.start()
            server.wait_ready()
            found = await _eventually(lambda: _retrieved(retriever, QUESTION))
            watch.cancel()
            assert found.hits[0].title == "Orbits"


async def _eventually(attempt: Callable[[], Awaitable[Retrieved]]) -> Retrieved:
    end = asyncio.get_running_loop().time() + RECOVERY_S
    while True:
        try:
            return await attempt()
        except IndexUnavailable:
            if asyncio.get_running_loop().time() > end:
                raise
            await asyncio.sleep(0.2)
