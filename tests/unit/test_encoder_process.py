"""The process with the encoder, as the workers ask it over HTTP."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import numpy as np
import pytest
import uvicorn

from gateway.encoder_process import create_encoder_app
from gateway.encoding import TEXTS_AT_ONCE
from gateway.errors import InvalidRequest
from gateway.remote_encoding import RemoteEncoding
from indexer.index.embedding import EmbeddingModel, Vectors
from indexer.index.errors import EncoderUnavailable, EncodingFailed
from tests.unit.embeddings_fakes import encoding_at, watching
from tests.unit.index_fakes import IDENTITY, FakeEncoder

pytestmark = pytest.mark.anyio


class SlowEncoder(FakeEncoder):
    """Begins each call only when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Semaphore(0)

    def _encode(self, texts: list[str]) -> Vectors:
        assert self.let.acquire(timeout=10)
        return super()._encode(texts)


@contextmanager
def serving(load: Callable[[], EmbeddingModel], port: int) -> Iterator[str]:
    """Base URL of a running one, /v1 included."""
    server = uvicorn.Server(
        uvicorn.Config(create_encoder_app(load), port=port, log_config=None, access_log=False)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.should_exit = True
        thread.join()


@asynccontextmanager
async def asking(load: Callable[[], EmbeddingModel], port: int) -> AsyncIterator[RemoteEncoding]:
    """What a worker has."""
    with serving(load, port) as url:
        ours = encoding_at(url, is_ours=True, encoder_model=IDENTITY.model)
        async with watching(ours) as encoding:
            yield encoding


async def ready(encoding: RemoteEncoding) -> None:
    ends = time.monotonic() + 10
    while True:
        try:
            encoding.check()
        except EncoderUnavailable:
            assert time.monotonic() < ends
            await asyncio.sleep(0.01)
        else:
            return


@pytest.fixture
def port(free_port: Callable[[], int]) -> int:
    return free_port()


async def test_it_tells_exactly_which_encoder_it_is(port: int, encoder: FakeEncoder) -> None:
    async def never() -> list[tuple[str, Vectors]]:
        raise AssertionError("nothing is to be proved")

    async with asking(lambda: encoder, port) as encoding:
        await ready(encoding)

        assert encoding.identity == IDENTITY
        assert await encoding.differences("g1", IDENTITY, never) == []
        assert encoder.calls == []


async def test_questions_and_texts_are_those_of_the_encoder_itself(
    port: int, encoder: FakeEncoder
) -> None:
    async with asking(lambda: encoder, port) as encoding:
        await ready(encoding)
        queries = await encoding.queries(["a", ""])
        texts = await encoding.texts(["a", "b c"], "query: ")
        arrays = await encoding.arrays([[7, 8], [9]], IDENTITY.query_prefix)

    expected = FakeEncoder()
    assert np.allclose(queries, expected.encode_queries(["a", ""]), atol=1e-6)
    assert np.allclose(texts.vectors, expected.encode_queries(["a", "b c"]), atol=1e-6)
    assert np.allclose(arrays.vectors, expected.encode_queries(["w7 w8", "w9"]), atol=1e-6)
    assert [texts.tokens, arrays.tokens] == [7, 7]


async def test_token_ids_of_another_tokenizer_are_refused_by_their_place(
    port: int, encoder: FakeEncoder
) -> None:
    async with asking(lambda: encoder, port) as encoding:
        await ready(encoding)
        with pytest.raises(InvalidRequest, match="100 is no token id") as refused:
            await encoding.arrays([[7], [100]])

    assert refused.value.param == "input[1]"


async def test_a_question_does_not_wait_for_long_texts(port: int) -> None:
    slow = SlowEncoder()
    async with asking(lambda: slow, port) as encoding:
        await ready(encoding)
        texts = [f"text {number}" for number in range(8 * TEXTS_AT_ONCE)]
        long = [asyncio.create_task(encoding.texts(texts)) for _ in range(3)]
        await asyncio.sleep(0.2)
        question = asyncio.create_task(encoding.queries(["What?"]))
        await asyncio.sleep(0.2)
        slow.let.release(3)
        await question

        assert ["query: What?"] in slow.calls[:3]
        slow.let.release(1000)
        await asyncio.gather(*long)


async def test_a_question_waits_for_its_turn_in_our_own_process(port: int) -> None:
    slow = SlowEncoder()
    with serving(lambda: slow, port) as url:
        ours = encoding_at(url, is_ours=True, encoder_model=IDENTITY.model, encoder_timeout_s=0.01)
        async with watching(ours) as encoding:
            await ready(encoding)
            question = asyncio.create_task(encoding.queries(["What?"]))
            await asyncio.sleep(0.2)
            slow.let.release(1)

            assert len(await question) == 1


async def test_what_could_not_be_loaded_is_loaded_later(
    port: int, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.loading.AGAIN_S", 0.05)
    monkeypatch.setattr("gateway.watching.AGAIN_S", 0.05)
    failures = [EncoderUnavailable("the hub is away"), RuntimeError("nobody expected that")] * 2

    def load() -> FakeEncoder:
        if failures:
            raise failures.pop()
        return encoder

    async with asking(load, port) as encoding:
        await ready(encoding)


async def test_while_it_loads_and_where_it_cannot_that_is_said(port: int) -> None:
    begin = threading.Event()

    def load() -> FakeEncoder:
        assert begin.wait(10)
        raise EncoderUnavailable("no such folder")

    async with asking(load, port) as encoding:
        for expected in ("still loading", "no such folder"):
            ends = time.monotonic() + 10
            while expected not in str(encoding._trouble):
                assert time.monotonic() < ends
                await asyncio.sleep(0.01)
            with pytest.raises(EncoderUnavailable, match=expected):
                await encoding.queries(["a"])
            begin.set()


async def test_a_model_that_fails_is_told(port: int, encoder: FakeEncoder) -> None:
    async with asking(lambda: encoder, port) as encoding:
        await ready(encoding)
        encoder.failure = EncodingFailed("out of memory")
        with pytest.raises(EncodingFailed, match="answered 500"):
            await encoding.queries(["a"])
        encoder.failure = None

        assert len(await encoding.queries(["a"])) == 1
