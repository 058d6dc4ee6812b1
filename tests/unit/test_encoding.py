"""One encoder for the questions of chats and the texts of clients: who waits for whom."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest

from gateway.encoding import ARRAYS_AT_ONCE, CHARS_AT_ONCE, TEXTS_AT_ONCE, Embedded, LocalEncoding
from indexer.index.embedding import Vectors
from indexer.index.errors import EncoderUnavailable, EncodingFailed, TokensInvalid
from tests.unit.index_fakes import IDENTITY, FakeEncoder

pytestmark = pytest.mark.anyio


class SlowEncoder(FakeEncoder):
    """Begins each call only when it is let; remembers in which thread."""

    def __init__(self) -> None:
        super().__init__()
        self.started = threading.Semaphore(0)
        self.let = threading.Semaphore(0)
        self.threads: set[int] = set()

    def _encode(self, texts: list[str]) -> Vectors:
        self.threads.add(threading.get_ident())
        self.started.release()
        assert self.let.acquire(timeout=10)
        return super()._encode(texts)

    async def wait_started(self) -> None:
        assert await asyncio.to_thread(self.started.acquire, timeout=10)


@pytest.fixture
def slow() -> SlowEncoder:
    return SlowEncoder()


@pytest.fixture
async def encoding(slow: SlowEncoder) -> AsyncIterator[LocalEncoding]:
    encoding = LocalEncoding(lambda: slow)
    await encoding.start()
    yield encoding
    slow.let.release(1000)
    await encoding.close()


async def loaded(encoder: FakeEncoder) -> LocalEncoding:
    encoding = LocalEncoding(lambda: encoder)
    await encoding.start()
    return encoding


def texts_of(count: int) -> list[str]:
    return [f"text {number}" for number in range(count)]


async def test_a_model_that_is_loading_or_cannot_be_loaded_is_named() -> None:
    begin = threading.Event()

    def load() -> FakeEncoder:
        assert begin.wait(10)
        raise EncoderUnavailable("no such folder")

    encoding = LocalEncoding(load)
    starting = asyncio.create_task(encoding.start())
    for expected in ("still loading", "no such folder"):
        with pytest.raises(EncoderUnavailable, match=expected):
            encoding.check()
        with pytest.raises(EncoderUnavailable, match=expected):
            _ = encoding.identity
        with pytest.raises(EncoderUnavailable, match=expected):
            await encoding.queries(["a"])
        with pytest.raises(EncoderUnavailable, match=expected):
            await encoding.texts(["a"])
        with pytest.raises(EncoderUnavailable, match=expected):
            await encoding.arrays([[1]])
        begin.set()
        async with asyncio.timeout(10):
            while "folder" not in str(encoding._trouble):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.001)
    starting.cancel()
    await encoding.close()


async def test_questions_get_the_prefix_of_questions_and_texts_the_one_that_is_named() -> None:
    encoder = FakeEncoder()
    encoding = await loaded(encoder)
    encoding.check()
    [query] = await encoding.queries(["a"])
    plain = await encoding.texts(["a", "b c"])
    prefixed = await encoding.texts(["a"], encoding.identity.query_prefix)

    assert encoder.calls == [["query: a"], ["a", "b c"], ["query: a"]]
    assert encoding.identity is IDENTITY
    assert np.array_equal(prefixed.vectors[0], query)
    assert not np.array_equal(plain.vectors[0], query)
    assert [plain.tokens, prefixed.tokens] == [5, 3]
    await encoding.close()


async def test_nothing_is_asked_for_no_texts() -> None:
    encoder = FakeEncoder()
    encoding = await loaded(encoder)

    nothing = Embedded([], 0)
    assert await encoding.texts([]) == await encoding.arrays([]) == nothing
    assert await encoding.queries([]) == []
    assert encoder.calls == []
    await encoding.close()


async def test_many_texts_go_in_slices_in_order() -> None:
    encoder = FakeEncoder()
    encoding = await loaded(encoder)
    texts = texts_of(2 * TEXTS_AT_ONCE + 1)
    embedded = await encoding.texts(texts)

    assert [len(call) for call in encoder.calls] == [TEXTS_AT_ONCE, TEXTS_AT_ONCE, 1]
    assert [text for call in encoder.calls for text in call] == texts
    expected = FakeEncoder().encode_texts(texts)
    assert np.array_equal(embedded.vectors, expected)
    await encoding.close()


async def test_long_texts_go_fewer_at_once_and_one_that_is_too_long_alone() -> None:
    encoder = FakeEncoder()
    encoding = await loaded(encoder)
    half, more = "h" * (CHARS_AT_ONCE // 2), "m" * (CHARS_AT_ONCE + 1)
    await encoding.texts([half, half, half, more, "a", "b"])

    assert [len(call) for call in encoder.calls] == [2, 1, 1, 2]
    await encoding.close()


async def test_a_question_waits_for_one_slice_of_a_long_request_at_most(
    encoding: LocalEncoding, slow: SlowEncoder
) -> None:
    texts = texts_of(10 * TEXTS_AT_ONCE)
    long = asyncio.create_task(encoding.texts(texts))
    await slow.wait_started()
    question = asyncio.create_task(encoding.queries(["What?"]))
    await asyncio.sleep(0)
    slow.let.release(2)
    await question

    assert len(slow.calls) <= 2
    assert slow.calls[1] == ["query: What?"]
    slow.let.release(100)
    assert len((await long).vectors) == len(texts)
    assert len(slow.threads) == 1
    assert threading.get_ident() not in slow.threads


async def test_two_long_requests_take_turns_and_short_ones_go_together(
    encoding: LocalEncoding, slow: SlowEncoder
) -> None:
    first = asyncio.create_task(encoding.texts(["a"] * 3 * TEXTS_AT_ONCE))
    await slow.wait_started()
    others = [
        asyncio.create_task(encoding.texts(["b"] * 2 * TEXTS_AT_ONCE)),
        asyncio.create_task(encoding.texts(["c"])),
        asyncio.create_task(encoding.texts(["d"])),
    ]
    await asyncio.sleep(0)
    slow.let.release(100)
    await asyncio.gather(first, *others)

    assert [set(call) for call in slow.calls[:2]] == [{"a"}, {"b"}]
    assert slow.calls[2][:2] == ["c", "d"]
    assert max(map(len, slow.calls)) == TEXTS_AT_ONCE


async def test_a_client_that_leaves_frees_the_rest_of_its_texts(
    encoding: LocalEncoding, slow: SlowEncoder
) -> None:
    leaving = asyncio.create_task(encoding.texts(["a"] * 50 * TEXTS_AT_ONCE))
    await slow.wait_started()
    leaving.cancel()
    await asyncio.sleep(0)
    staying = asyncio.create_task(encoding.texts(["b"]))
    await asyncio.sleep(0)
    slow.let.release(100)
    await staying

    assert [set(call) for call in slow.calls] == [{"a"}, {"b"}]


async def test_an_encoder_that_fails_once_answers_the_next_request() -> None:
    encoder = FakeEncoder()
    encoding = await loaded(encoder)
    encoder.failure = EncodingFailed("out of memory")
    with pytest.raises(EncodingFailed, match="out of memory"):
        await encoding.texts(texts_of(TEXTS_AT_ONCE + 1))
    encoder.failure = None

    assert len((await encoding.texts(["a"])).vectors) == 1
    await encoding.close()


async def test_token_ids_become_text_slice_by_slice_and_a_wrong_one_is_placed() -> None:
    class Counting(FakeEncoder):
        def decode(self, arrays: Sequence[Sequence[int]]) -> list[str]:
            sizes.append(len(arrays))
            return super().decode(arrays)

    sizes: list[int] = []
    encoder = Counting()
    encoding = await loaded(encoder)
    arrays = [[number % 100] for number in range(ARRAYS_AT_ONCE + 2)]
    embedded = await encoding.arrays(arrays, "query: ")
    assert sizes == [ARRAYS_AT_ONCE, 2]
    assert len(embedded.vectors) == len(arrays)
    assert [text for call in encoder.calls for text in call] == [
        f"query: w{number % 100}" for number in range(ARRAYS_AT_ONCE + 2)
    ]

    arrays[-1] = [3, 100]
    with pytest.raises(TokensInvalid, match="100 is no token id") as refused:
        await encoding.arrays(arrays)
    assert refused.value.place == ARRAYS_AT_ONCE + 1
    await encoding.close()


class Picky(SlowEncoder):
    """Fails on a text with half of a character in it, as tokenizers do."""

    def _encode(self, texts: list[str]) -> Vectors:
        vectors = super()._encode(texts)
        for text in texts:
            text.encode()
        return vectors


@pytest.mark.parametrize("kind", ["questions", "texts"])
async def test_an_input_that_the_model_fails_on_fails_nobody_elses(kind: str) -> None:
    encoder = Picky()
    encoding = await loaded(encoder)

    async def embedded(text: str) -> int:
        if kind == "questions":
            return len(await encoding.queries([text]))
        return len((await encoding.texts([text])).vectors)

    first = asyncio.create_task(embedded("first"))
    await encoder.wait_started()
    others = [asyncio.create_task(embedded(text)) for text in ("a", "b", "\ud800", "c")]
    await asyncio.sleep(0.01)
    encoder.let.release(100)
    results = await asyncio.gather(first, *others, return_exceptions=True)

    assert [*results[:3], results[4]] == [1, 1, 1, 1]
    assert isinstance(results[3], UnicodeEncodeError)
    assert len(encoder.calls) < 2 * 5
    await encoding.close()
