"""What goes on beside the requests outlives what nobody expected, and ends when it is told."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from litestar.testing import TestClient

from gateway import loading, watching
from gateway.access import keyring, shared_ledger
from gateway.access.key_file import KeyFile
from gateway.access.keyring import Keyring
from gateway.access.ledger import Entry
from gateway.access.shared_ledger import SharedLedger
from gateway.app import create_app
from gateway.encoding import LocalEncoding
from gateway.models import Models
from gateway.retrieval.published import Published
from gateway.retrieval.reranking import LocalReranker
from gateway.settings import GatewaySettings
from gateway.upstream import ServedModel
from gateway.watching import Surviving, kept_going
from indexer.index.collection import Generation
from indexer.index.errors import EncoderUnavailable
from tests.unit.conftest import FakeReader, FakeUpstream
from tests.unit.index_fakes import FakeEncoder
from tests.unit.test_reranking import Scorer

pytestmark = pytest.mark.anyio
UNEXPECTED: list[BaseException] = [RecursionError("too deep"), asyncio.CancelledError()]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in [
        (watching, "AGAIN_S"),
        (loading, "AGAIN_S"),
        (shared_ledger, "LOOK_S"),
        (keyring, "RELOAD_S"),
    ]:
        monkeypatch.setattr(module, name, 0.01)


@asynccontextmanager
async def going(work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """What the gateway does with it."""
    task = asyncio.create_task(kept_going("it", work))
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)


class Failing:
    """Something that is asked again and again, and fails at first."""

    def __init__(self, failure: BaseException, times: int = 2) -> None:
        self.failure = failure
        self.times = times
        self.asked = 0

    def ask(self) -> None:
        self.asked += 1
        if self.asked <= self.times:
            raise self.failure


@pytest.mark.parametrize("failure", UNEXPECTED, ids=repr)
async def test_what_ends_with_an_error_is_begun_again_and_told(
    failure: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    failing = Failing(failure)

    async def work() -> None:
        await asyncio.sleep(0)
        failing.ask()

    await kept_going("the watch", work)

    assert failing.asked == 3
    told = [(record.levelno, record.message) for record in caplog.records]
    assert told == [(logging.ERROR, "the watch goes on after an error that nobody expected")] * 2


async def test_what_is_cancelled_ends() -> None:
    async def work() -> None:
        with Surviving("it"):
            await asyncio.Event().wait()
        raise AssertionError("it must not go on")

    async with going(work):
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("failure", UNEXPECTED, ids=repr)
async def test_the_watch_of_vllm_goes_on(failure: BaseException) -> None:
    class Odd(FakeUpstream):
        async def models(self) -> list[ServedModel]:
            failing.ask()
            return await super().models()

    failing = Failing(failure)
    models = Models([Odd("org/model-a")], poll_interval_s=0.01)
    async with going(models.watch):
        await until(lambda: bool(models.served))


@pytest.mark.parametrize("failure", UNEXPECTED, ids=repr)
async def test_the_watch_of_milvus_goes_on_with_every_knowledge_base(
    failure: BaseException, encoder: FakeEncoder
) -> None:
    class Odd(FakeReader):
        async def published(self, name: str) -> Generation:
            generation = await super().published(name)
            if name == "documents" and self.resolved.count(name) > 1:
                raise failure
            return generation

    reader, encoding = Odd([]), LocalEncoding(lambda: encoder)
    await encoding.start()
    published = Published(reader, encoding, 0.01, "documents")
    for name in ("documents", "other"):
        await published.refresh(name)
    async with going(published.watch):
        await until(lambda: min(map(reader.resolved.count, ("documents", "other"))) > 3)
    await encoding.close()


def test_the_gateway_keeps_it_going(upstream: FakeUpstream, reader: FakeReader) -> None:
    upstream.failure = RecursionError("too deep")
    settings = GatewaySettings(poll_interval_s=0.01)
    app = create_app(settings, servers=[upstream], reader=reader, load_encoder=FakeEncoder)
    with TestClient(app):
        ends = time.monotonic() + 20
        while upstream.asked < 4:
            assert time.monotonic() < ends
            time.sleep(0.01)


async def test_the_watch_of_the_keys_goes_on(tmp_path: Path) -> None:
    class Odd(KeyFile):
        def read_if_changed(self) -> None:
            failing.ask()

    failing = Failing(RecursionError("too deep"))
    async with going(Keyring([], Odd(tmp_path / "keys.json")).watch):
        await until(lambda: failing.asked > 3)


async def test_counting_limits_goes_on() -> None:
    async def ask(_: list[Entry]) -> list[None]:
        failing.ask()
        return []

    async def close() -> None:
        """There is nothing to close."""

    failing = Failing(RecursionError("too deep"))
    async with going(SharedLedger(ask, close, 1).run):
        await until(lambda: failing.asked > 2)


@pytest.mark.parametrize("kind", ["encoder", "reranker"])
async def test_a_model_is_tried_again_until_it_is_there_and_each_reason_is_told_once(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    reasons = ["no such folder"] * 3 + ["the hub is away", "no such folder"]
    seen: list[str] = []

    def load() -> None:
        seen.append(trouble())
        if reasons:
            raise EncoderUnavailable(reasons.pop(0))

    def trouble() -> str:
        try:
            model.check()
        except EncoderUnavailable as exc:
            return str(exc)
        return ""

    model = make(kind, load)
    await model.start()

    assert trouble() == ""
    assert seen[1:] == ["no such folder"] * 3 + ["the hub is away", "no such folder"]
    told = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    again = "; it is tried again every 0.01 s"
    assert told == [f"{each}{again}" for each in (seen[1], seen[4], seen[5])]
    await model.close()


def make(kind: str, load: Callable[[], None]) -> LocalEncoding | LocalReranker:
    def encoder() -> FakeEncoder:
        load()
        return FakeEncoder()

    def scorer() -> Scorer:
        load()
        return Scorer()

    return LocalEncoding(encoder) if kind == "encoder" else LocalReranker(scorer)
