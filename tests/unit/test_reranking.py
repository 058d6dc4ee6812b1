"""Scoring once more: a model in a thread, and a server that may answer anything."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpcore2
import httpx2
import msgspec
import pytest
import respx

from gateway.breaker import Breakers
from gateway.client import Client
from gateway.errors import UpstreamBroken, UpstreamUnavailable
from gateway.retrieval.reranking import (
    PASSAGES_AT_ONCE,
    QUESTIONS_AT_ONCE,
    LocalReranker,
    RemoteReranker,
)
from gateway.routing import Care
from gateway.settings import GatewaySettings
from gateway.upstream import Upstream
from indexer.index.errors import EncoderUnavailable, EncodingFailed

pytestmark = pytest.mark.anyio

BASE = "http://reranker.test/v1"
PASSAGES = ["bread", "llama", "orbit"]


class Scorer:
    """Scores by how long both texts are, slowly."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[str, str]]] = []
        self.threads: set[int] = set()
        self.failure: Exception | None = None
        self.more = 0
        """How many scores there are too many, or too few below 0."""

    def scores(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.calls.append(list(pairs))
        self.threads.add(threading.get_ident())
        time.sleep(0.05)
        if self.failure is not None:
            raise self.failure
        scores = [score(*pair) for pair in pairs]
        return [*scores, *scores][: len(pairs) + self.more]


def score(question: str, passage: str) -> float:
    return 1 / (1 + 10 * len(question) + len(passage))


@pytest.fixture
async def server() -> AsyncIterator[RemoteReranker]:
    client = Client(BASE, "the key", httpx2.AsyncHTTPTransport())
    reranker = RemoteReranker(Upstream(client), "org/reranker", Care(2))
    yield reranker
    await reranker.close()


def answering(mock: respx.Router, *answers: Any) -> respx.Route:
    return mock.post(f"{BASE}/rerank").mock(side_effect=list(answers))


def ranking(*scored: tuple[Any, Any]) -> Any:
    """As vLLM answers, whose order is that of the scores."""
    results = [{"index": at, "document": {"text": "x"}, "relevance_score": s} for at, s in scored]
    return respx.MockResponse(200, json={"id": "r", "model": "m", "results": results})


async def test_many_questions_at_once_each_get_their_own_scores_in_few_calls() -> None:
    scorer = Scorer()
    reranker = LocalReranker(lambda: scorer)
    await reranker.start()
    questions = {"?" * n: PASSAGES[: n % 3 + 1] for n in range(1, 13)}
    found = await asyncio.gather(*(reranker.scores(q, ps) for q, ps in questions.items()))

    assert found == [[score(q, passage) for passage in ps] for q, ps in questions.items()]
    assert len(scorer.calls) <= 1 + len(questions) // QUESTIONS_AT_ONCE + 1
    assert threading.get_ident() not in scorer.threads
    assert len(scorer.threads) == 1
    await reranker.close()


async def test_many_passages_go_in_slices_with_others_in_between() -> None:
    scorer = Scorer()
    reranker = LocalReranker(lambda: scorer)
    await reranker.start()
    passages = ["p" * number for number in range(2 * PASSAGES_AT_ONCE + 1)]
    many = asyncio.create_task(reranker.scores("?", passages))
    for _ in range(2):  # its first slice waits, then is taken
        await asyncio.sleep(0)

    assert await reranker.scores("!", ["a"]) == [score("!", "a")]
    assert await many == [score("?", passage) for passage in passages]
    assert scorer.calls[1] == [("!", "a")]
    assert [len(call) for call in scorer.calls] == [PASSAGES_AT_ONCE, 1, PASSAGES_AT_ONCE, 1]
    assert await reranker.scores("?", []) == []
    await reranker.close()


class Waiting(Scorer):
    """Scores once it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.works, self.let = threading.Event(), threading.Event()

    def scores(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.works.set()
        assert self.let.wait(10)
        return super().scores(pairs)


async def test_the_event_loop_goes_on_while_the_model_works() -> None:
    scorer = Waiting()
    reranker = LocalReranker(lambda: scorer)
    await reranker.start()
    scoring = asyncio.create_task(reranker.scores("?", PASSAGES))
    async with asyncio.timeout(10):
        while not scorer.works.is_set():  # noqa: ASYNC110 - it is in another thread
            await asyncio.sleep(0.001)
    scorer.let.set()

    assert await scoring == [score("?", passage) for passage in PASSAGES]
    await reranker.close()


async def test_a_model_that_is_loading_or_cannot_be_loaded_is_named() -> None:
    def load() -> Scorer:
        raise EncoderUnavailable("no such folder")

    reranker = LocalReranker(load)
    with pytest.raises(EncoderUnavailable, match="still loading"):
        await reranker.scores("?", PASSAGES)
    starting = asyncio.create_task(reranker.start())
    async with asyncio.timeout(10):
        while "folder" not in str(reranker._trouble):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.001)
    with pytest.raises(EncoderUnavailable, match="no such folder"):
        await reranker.scores("?", PASSAGES)
    starting.cancel()
    await reranker.close()


@pytest.mark.parametrize("more", [-1, 1])
async def test_a_model_that_does_not_score_each_passage_fails_and_answers_the_next_question(
    more: int,
) -> None:
    scorer = Scorer()
    scorer.more = more
    reranker = LocalReranker(lambda: scorer)
    await reranker.start()
    async with asyncio.timeout(10):
        with pytest.raises(EncodingFailed, match=f"gave {3 + more} scores for 3 passages"):
            await reranker.scores("?", PASSAGES)
    scorer.more = 0

    assert len(await reranker.scores("?", PASSAGES)) == 3
    await reranker.close()


async def test_a_model_that_takes_longer_than_it_may_is_away() -> None:
    scorer = Waiting()
    reranker = LocalReranker(lambda: scorer)
    await reranker.start()
    with pytest.raises(EncoderUnavailable, match=r"did not answer within 0\.05 s"):
        await reranker.scores("?", PASSAGES, 0.05)
    scorer.let.set()

    assert len(await reranker.scores("?", PASSAGES, 20)) == 3
    await reranker.close()


async def test_a_model_that_fails_once_answers_the_next_question() -> None:
    scorer = Scorer()
    reranker = LocalReranker(lambda: scorer)
    await reranker.start()
    scorer.failure = EncodingFailed("out of memory")
    with pytest.raises(EncodingFailed):
        await reranker.scores("?", PASSAGES)
    scorer.failure = None

    assert len(await reranker.scores("?", PASSAGES)) == 3
    await reranker.close()


async def test_a_server_is_asked_as_vllm_wants_it_and_its_scores_are_put_in_our_order(
    server: RemoteReranker, httpx2_mock: respx.Router
) -> None:
    route = answering(httpx2_mock, ranking((1, 0.9), (2, 0.5), (0, 0.1)))
    await server.start()

    assert await server.scores("What do llamas eat?", PASSAGES) == [0.1, 0.9, 0.5]
    request = route.calls.last.request
    assert msgspec.json.decode(request.content) == {
        "model": "org/reranker", "query": "What do llamas eat?", "documents": PASSAGES,
    }  # fmt: skip
    assert request.headers["authorization"] == "Bearer the key"


@pytest.mark.parametrize("raw", [[7.5, -3.0, 2.0], [1.5, 0.2, 0.9], [900.0, -900.0, 0.0]])
async def test_scores_that_are_none_in_0_to_1_come_into_it_and_keep_their_order(
    server: RemoteReranker, httpx2_mock: respx.Router, raw: list[float]
) -> None:
    answering(httpx2_mock, ranking(*enumerate(raw)))
    scores = await server.scores("?", PASSAGES)

    assert all(0 <= each <= 1 for each in scores)
    assert sorted(range(3), key=scores.__getitem__) == sorted(range(3), key=raw.__getitem__)


@pytest.mark.parametrize(
    "answer",
    [
        ranking((0, 0.1), (1, 0.9)),
        ranking((0, 0.1), (1, 0.9), (3, 0.5)),
        ranking((0, 0.1), (1, 0.9), (-1, 0.5)),
        ranking((0, 0.1), (1, 0.9), (1, 0.5)),
        ranking((0, 0.1), (1, 0.9), (1, 0.2), (2, 0.5)),
        ranking(("0", 0.1), (1, 0.9), (2, 0.5)),
        ranking((0, None), (1, 0.9), (2, 0.5)),
        ranking(),
        respx.MockResponse(200, json={"data": []}),
        respx.MockResponse(200, json=[]),
        respx.MockResponse(200, content=b"<html>"),
        respx.MockResponse(200, content=b""),
        respx.MockResponse(200, content=b'{"results": [{"index": 0, "relevance_score": NaN}]}'),
        respx.MockResponse(200, content=b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    ],
    ids=["one is missing", "beyond the end", "negative", "doubled for another", "doubled",
         "index as text", "no score", "none", "another shape", "a list", "no JSON", "empty", "NaN",
         "deep"],
)  # fmt: skip
async def test_an_answer_that_does_not_score_each_passage_once_is_broken(
    server: RemoteReranker, httpx2_mock: respx.Router, answer: Any
) -> None:
    answering(httpx2_mock, answer)

    with pytest.raises(UpstreamBroken, match="the rerank server"):
        await server.scores("?", PASSAGES)


@pytest.mark.parametrize(
    ("status", "words"),
    [(status, "no such") for status in (401, 404, 429)]
    + [(status, f"the model server answered {status}") for status in (400, 422, 500)],
)
async def test_a_server_that_refuses_is_no_fault_of_the_client(
    server: RemoteReranker, httpx2_mock: respx.Router, status: int, words: str
) -> None:
    answering(httpx2_mock, respx.MockResponse(status, json={"error": {"message": "no such"}}))

    with pytest.raises(UpstreamBroken, match=f"the rerank server: {words}"):
        await server.scores("?", PASSAGES)


async def test_a_server_that_is_away_is_tried_again_and_then_unavailable(
    server: RemoteReranker, httpx2_mock: respx.Router
) -> None:
    refused = httpcore2.ConnectError("connection refused")
    route = answering(httpx2_mock, refused, refused, refused, ranking((0, 0.3)))
    with pytest.raises(UpstreamUnavailable, match=r"the rerank server: .*refused"):
        await server.scores("?", ["one"])

    assert route.call_count == 2
    assert await server.scores("?", ["one"]) == [0.3]


@asynccontextmanager
async def silent_server() -> AsyncIterator[str]:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        await left.wait()
        writer.close()

    left = asyncio.Event()
    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    left.set()
    server.close()


async def test_a_server_that_says_nothing_is_away_after_its_time_and_then_left_alone() -> None:
    async with silent_server() as url:
        care = Care(1, Breakers(2))
        reranker = RemoteReranker(Upstream.connect(GatewaySettings(), url), "m", care)
        for _ in range(2):
            with pytest.raises(UpstreamUnavailable, match=r"rerank server: .*within 0\.05 s"):
                await reranker.scores("?", PASSAGES, 0.05)
        with pytest.raises(UpstreamUnavailable, match="failed 2 times in a row"):
            await reranker.scores("?", PASSAGES, 600)
        await reranker.close()
