"""An encoder on a server: what it is asked, which answers are taken, and what it may search."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

from gateway.breaker import Breakers
from gateway.embeddings_server import EmbeddingsServer
from gateway.encoding import TEXTS_AT_ONCE, Vector
from gateway.errors import InvalidRequest
from gateway.remote_encoding import REQUESTS_AT_ONCE, TEXTS_PATH, RemoteEncoding
from gateway.routing import Care
from gateway.settings import GatewaySettings
from gateway.upstream import Upstream
from indexer.index.errors import EncoderUnavailable, EncodingFailed
from indexer.index.records import EncoderIdentity
from tests.unit.embeddings_fakes import (
    MODEL,
    FakeEmbeddings,
    encoding_at,
    negated,
    serving,
    watching,
)
from tests.unit.index_fakes import IDENTITY, FakeEncoder

pytestmark = pytest.mark.anyio

Said = dict[str, Any]


@pytest.fixture
def server() -> Iterator[FakeEmbeddings]:
    with serving() as server:
        yield server


async def until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < ends
        await asyncio.sleep(0.01)


def is_there(encoding: RemoteEncoding) -> bool:
    try:
        encoding.check()
    except EncoderUnavailable:
        return False
    return True


@pytest.fixture
async def encoding(server: FakeEmbeddings) -> AsyncIterator[RemoteEncoding]:
    async with watching(encoding_at(server.url)) as encoding:
        await until(lambda: is_there(encoding))
        yield encoding


def vectors_of(*texts: str) -> Any:
    return FakeEncoder().encode_texts(texts)


async def test_questions_get_the_prefix_and_texts_the_one_that_is_named(
    encoding: RemoteEncoding, server: FakeEmbeddings
) -> None:
    [query] = await encoding.queries(["a"])
    plain = await encoding.texts(["a", "b c"])

    assert server.inputs() == [["query: a"], ["a", "b c"]]
    assert server.asked[-1] == (
        "/v1/embeddings",
        {"model": MODEL, "input": ["a", "b c"], "encoding_format": "base64"},
    )
    assert np.allclose([query, *plain.vectors], vectors_of("query: a", "a", "b c"), atol=1e-6)
    assert np.allclose(np.linalg.norm([query, *plain.vectors], axis=1), 1)
    assert plain.tokens == 5


async def test_of_a_server_the_dimension_is_learned_and_the_prefix_that_a_card_documents(
    server: FakeEmbeddings,
) -> None:
    given = encoding_at(server.url, encoder_model="org/bge-small-en", encoder_query_prefix=None)
    async with watching(given) as encoding:
        with pytest.raises(EncoderUnavailable, match="not answered yet"):
            encoding.check()
        await until(lambda: is_there(encoding))

        assert encoding.identity.revision == ""
        assert encoding.identity.dimension == IDENTITY.dimension
        assert encoding.identity.query_prefix.startswith("Represent this sentence")


async def test_many_texts_go_in_slices_and_the_tokens_are_added(
    encoding: RemoteEncoding, server: FakeEmbeddings
) -> None:
    texts = [f"text {number}" for number in range(TEXTS_AT_ONCE + 1)]
    embedded = await encoding.texts(texts)

    assert [len(each) for each in server.inputs()] == [TEXTS_AT_ONCE, 1]
    assert np.allclose(embedded.vectors, vectors_of(*texts), atol=1e-6)
    assert embedded.tokens == 3 * len(texts)


async def test_questions_that_wait_go_together_in_few_requests(
    encoding: RemoteEncoding, server: FakeEmbeddings
) -> None:
    server.let.clear()
    first = [
        asyncio.create_task(encoding.queries([f"{number}"])) for number in range(REQUESTS_AT_ONCE)
    ]
    await until(lambda: len(server.inputs()) == 1)
    second = [asyncio.create_task(encoding.queries([f"x{number}"])) for number in range(20)]
    await asyncio.sleep(0.05)
    server.let.set()
    found = await asyncio.gather(*first, *second)

    assert [len(each) for each in server.inputs()] == [REQUESTS_AT_ONCE, 20]
    expected = [f"query: {number}" for number in range(REQUESTS_AT_ONCE)]
    expected += [f"query: x{number}" for number in range(20)]
    assert np.allclose([vector for [vector] in found], vectors_of(*expected), atol=1e-6)


async def test_a_question_that_is_refused_takes_no_other_with_it(
    encoding: RemoteEncoding, server: FakeEmbeddings
) -> None:
    server.refuses = "query: bad"
    good, bad, other = (
        asyncio.create_task(encoding.queries([text])) for text in ("good", "bad", "other")
    )
    with pytest.raises(EncodingFailed, match="answered 400"):
        await bad
    found = [*await good, *await other]
    assert np.allclose(found, vectors_of("query: good", "query: other"), atol=1e-6)


async def test_what_a_server_refuses_of_a_client_is_the_clients_fault(
    encoding: RemoteEncoding, server: FakeEmbeddings
) -> None:
    server.refuses = "bad"
    with pytest.raises(InvalidRequest, match="too long") as refused:
        await encoding.texts(["bad"])

    assert refused.value.param == "input"


async def test_token_ids_go_as_they_are_and_never_with_a_prefix(
    encoding: RemoteEncoding, server: FakeEmbeddings
) -> None:
    embedded = await encoding.arrays([[7, 8], [9]])

    assert server.inputs() == [[[7, 8], [9]]]
    assert np.allclose(embedded.vectors, vectors_of("w7 w8", "w9"), atol=1e-6)
    with pytest.raises(InvalidRequest, match="token ids as they are"):
        await encoding.arrays([[7]], "query: ")
    assert len(server.inputs()) == 1


async def test_vllm_is_told_to_cut_what_is_too_long(server: FakeEmbeddings) -> None:
    server.entry = {"max_model_len": 512}
    async with watching(encoding_at(server.url)) as encoding:
        await until(lambda: is_there(encoding))
        await encoding.queries(["a"])

    assert server.asked[-1][1]["truncate_prompt_tokens"] == -1


def without_last(answer: Said) -> Said:
    return answer | {"data": answer["data"][:-1]}


def twice_the_first(answer: Said) -> Said:
    return answer | {"data": [answer["data"][0]] * 2}


def shortened(answer: Said) -> Said:
    return answer | {"data": [row | {"embedding": [1.0, 2.0]} for row in answer["data"]]}


def with_first(value: Any) -> Callable[[Said], Said]:
    def change(answer: Said) -> Said:
        answer["data"][0]["embedding"] = value
        return answer

    return change


@pytest.mark.parametrize(
    "change",
    [
        without_last,
        twice_the_first,
        shortened,
        with_first([]),
        with_first("AAA"),
        with_first("AAAA"),
        with_first("!" * 24),
        with_first([1e39, 0, 0, 0]),
        with_first(None),
        lambda _: {},
        lambda _: [],
        lambda answer: answer | {"usage": None},
        lambda _: b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
async def test_an_answer_that_is_not_one_vector_for_each_text_is_none(
    encoding: RemoteEncoding, server: FakeEmbeddings, change: Callable[[Said], Any]
) -> None:
    server.change = change
    with pytest.raises(EncodingFailed, match="makes no sense"):
        await encoding.texts(["a", "b"])


async def test_rows_may_come_in_any_order_and_as_numbers(
    encoding: RemoteEncoding, server: FakeEmbeddings
) -> None:
    def turned(answer: Said) -> Said:
        expected = vectors_of("a", "b")
        for row in answer["data"]:
            row["embedding"] = (3 * expected[row["index"]]).tolist()
        return answer | {"data": answer["data"][::-1]}

    server.change = turned

    assert np.allclose((await encoding.texts(["a", "b"])).vectors, vectors_of("a", "b"), atol=1e-6)


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        (429, EncoderUnavailable),
        (503, EncoderUnavailable),
        (401, EncodingFailed),
        (404, EncodingFailed),
    ],
)
async def test_a_server_that_fails_is_named_with_its_words(
    encoding: RemoteEncoding, server: FakeEmbeddings, status: int, failure: type[Exception]
) -> None:
    server.status = status
    with pytest.raises(failure, match="the embeddings server: its words"):
        await encoding.texts(["a"])


async def test_a_server_that_is_away_is_told_and_found_again(
    encoding: RemoteEncoding, server: FakeEmbeddings
) -> None:
    server.status = 503
    with pytest.raises(EncoderUnavailable):
        await encoding.queries(["a"])
    await until(lambda: not is_there(encoding))
    asked = len(server.inputs())
    with pytest.raises(EncoderUnavailable, match="its words"):
        await encoding.queries(["a"])
    assert len(server.inputs()) == asked

    server.status = 200
    await until(lambda: is_there(encoding))
    assert len(await encoding.queries(["a"])) == 1


async def test_a_server_that_nobody_runs_is_unavailable(free_port: Callable[[], int]) -> None:
    async with watching(encoding_at(f"http://127.0.0.1:{free_port()}/v1")) as encoding:

        def trouble() -> str:
            with pytest.raises(EncoderUnavailable) as unavailable:
                encoding.check()
            return str(unavailable.value)

        await until(lambda: "cannot be reached" in trouble())


async def test_a_server_that_says_nothing_is_away_after_its_time_and_found_again(
    server: FakeEmbeddings,
) -> None:
    async with watching(encoding_at(server.url, encoder_timeout_s=0.2)) as encoding:
        await until(lambda: is_there(encoding))
        server.let.clear()
        with pytest.raises(EncoderUnavailable, match=r"did not answer within 0\.2 s"):
            await encoding.queries(["a"])
        await until(lambda: not is_there(encoding))
        with pytest.raises(EncoderUnavailable, match=r"within 0\.2 s|times in a row"):
            encoding.check()

        server.let.set()
        await until(lambda: is_there(encoding))
        assert len(await encoding.queries(["a"])) == 1


async def test_a_server_that_says_nothing_again_and_again_is_left_alone(
    server: FakeEmbeddings,
) -> None:
    settings = GatewaySettings(upstream_attempts=1)
    upstream = Upstream.connect(settings, server.url)
    asked = EmbeddingsServer(upstream, MODEL, Care(1, Breakers(2)))
    server.let.clear()
    for words in [r"within 0\.05 s"] * 2 + ["failed 2 times in a row"]:
        with pytest.raises(EncoderUnavailable, match=words):
            await asked.embedded(TEXTS_PATH, ["a"], None, {}, 0.05)

    assert len(server.asked) == 2
    await asked.close()


async def test_a_server_that_does_not_say_what_it_serves_is_away(
    server: FakeEmbeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.upstream.LIST_TIMEOUT_S", 0.2)
    monkeypatch.setattr("gateway.remote_encoding.LOOK_S", 0.05)
    async with watching(encoding_at(server.url)) as encoding:
        await until(lambda: is_there(encoding))
        server.lists.clear()
        await until(lambda: not is_there(encoding))
        with pytest.raises(EncoderUnavailable, match="does not say what it serves"):
            encoding.check()
        server.lists.set()
        await until(lambda: is_there(encoding))


class Collection:
    """Stored passages that a FakeEncoder made."""

    def __init__(self, *texts: str) -> None:
        self.rows = list(zip(texts, vectors_of(*texts), strict=True)) if texts else []
        self.reads = 0

    async def read(self) -> list[tuple[str, Vector]]:
        self.reads += 1
        return self.rows


async def test_what_a_server_does_not_tell_stored_passages_prove_once(
    encoding: RemoteEncoding, server: FakeEmbeddings
) -> None:
    stored = Collection("llamas", "orbits")
    for _ in range(2):
        assert await encoding.differences("g1", IDENTITY, stored.read) == []

    assert (server.inputs(), stored.reads) == ([["llamas", "orbits"]], 1)


async def test_vectors_of_another_model_are_seen(
    encoding: RemoteEncoding, server: FakeEmbeddings
) -> None:
    server.change = negated
    stored = Collection("llamas", "orbits")
    [difference] = await encoding.differences("g1", IDENTITY, stored.read)

    assert "another vector" in difference
    server.change = lambda answer: answer
    assert await encoding.differences("g1", IDENTITY, stored.read) == []


async def test_a_stored_passage_that_is_refused_is_the_encoders_trouble(
    encoding: RemoteEncoding, server: FakeEmbeddings
) -> None:
    stored = Collection("llamas", "orbits")
    server.refuses = "orbits"
    with pytest.raises(EncodingFailed, match=r"refuses a stored passage: .* answered 400"):
        await encoding.differences("g1", IDENTITY, stored.read)
    server.refuses = None

    assert await encoding.differences("g1", IDENTITY, stored.read) == []


@pytest.mark.parametrize("field", ["dimension", "query_prefix", "passage_prefix"])
async def test_what_is_known_must_be_equal_before_anything_is_asked(
    encoding: RemoteEncoding, server: FakeEmbeddings, field: str
) -> None:
    other = {"dimension": 5, "query_prefix": "q", "passage_prefix": "p"}[field]
    stored = msgspec.structs.replace(IDENTITY, **{field: other})
    [difference] = await encoding.differences("g1", stored, Collection("llamas").read)

    assert difference.startswith(field)
    assert server.inputs() == []


async def test_a_collection_without_rows_is_taken_until_it_has_some(
    encoding: RemoteEncoding, server: FakeEmbeddings
) -> None:
    stored = Collection()
    assert await encoding.differences("g1", IDENTITY, stored.read) == []
    stored.rows = Collection("llamas").rows
    server.change = negated

    assert len(await encoding.differences("g1", IDENTITY, stored.read)) == 1


async def test_an_encoder_that_tells_nothing_is_compared_by_its_dimension_alone(
    encoding: RemoteEncoding,
) -> None:
    unknown, other = EncoderIdentity.unknown(4), EncoderIdentity.unknown(5)

    assert await encoding.differences("g1", unknown, Collection().read) == []
    assert len(await encoding.differences("g1", other, Collection().read)) == 1


async def test_a_server_that_has_become_another_model_has_to_prove_itself_again(
    server: FakeEmbeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.remote_encoding.LOOK_S", 0.05)
    stored = Collection("llamas", "orbits")
    async with watching(encoding_at(server.url)) as encoding:
        await until(lambda: is_there(encoding))
        assert await encoding.differences("g1", IDENTITY, stored.read) == []
        server.change = negated
        assert encoding.swaps == 0
        await until(lambda: encoding.swaps == 1)

        assert len(await encoding.differences("g1", IDENTITY, stored.read)) == 1
