"""What a client sees when vLLM goes wrong: each fault, in each API, whole and as a stream.

Real sockets all the way: the openai SDK, uvicorn with the gateway, and a server that misbehaves. A
case is named `fault-API-kind`; what the client sees is the status and the code of the error, or
`event` and its code where an answer had begun. Each is asked twice at the same time, with documents
and without, which makes no difference to that.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import httpx2
import msgspec
import openai
import pytest
import uvicorn
from prometheus_client import REGISTRY

from gateway.app import create_app
from gateway.settings import GatewaySettings
from indexer.index.records import Hit
from tests.integration.fake_vllm import MODEL
from tests.integration.faulty_vllm import (
    JSON,
    Call,
    Fault,
    FaultyVLLM,
    answers,
    faulty_vllm,
    head,
    streamed,
    whole,
)
from tests.unit.conftest import FakeReader
from tests.unit.index_fakes import FakeEncoder

pytestmark = pytest.mark.anyio

SILENCE_S = 0.4
MUCH = 4 * 1024 * 1024
"""More of one thing than the gateway reads in these tests."""
QUESTION = "What do llamas eat?"
ERROR = b'{"error":{"message":"CUDA died","type":"InternalServerError","param":null,"code":500}}'
PAGE = b"<html>\n\n<body>Bad gateway</body>\n\n</html>\n\n"
BROKEN = "model_answer_broken"
FAILED = "model_server_failed"
APIS = ("chat", "completions", "responses", "messages")
CHUNKED = "transfer-encoding: chunked"


def unfinished(call: Call, reason: bytes) -> list[bytes]:
    """The right answer, but for why it ends."""
    said = answers(call)
    if call.path == "/v1/responses":
        status = b'"cancelled"' if reason != b"null" else b'"in_progress"'
        if call.is_stream and reason == b"null":
            return streamed(*call.pieces[:-1])
        pieces = [piece.replace(b'"completed"', status) for piece in call.pieces]
        return streamed(*pieces, kind=call.kind)
    reason = b"null" if call.path == "/v1/messages" else reason
    ends = (b'"finish_reason": "stop"', b'"stop_reason": "end_turn"')
    pieces = call.pieces
    for end in ends:
        pieces = [piece.replace(end, end.split(b" ")[0] + b" " + reason) for piece in pieces]
    assert pieces != call.pieces
    return [said[0], *streamed(*pieces, kind=call.kind)[1:]]


def sized(call: Call, difference: int) -> list[bytes]:
    body = b"".join(call.pieces)
    return [head(200, call.kind, f"content-length: {len(body) + difference}"), body]


def first(call: Call) -> list[bytes]:
    """The beginning of the right answer."""
    return streamed(call.pieces[0], kind=call.kind, ends=False)


def endless(kind: bytes) -> Callable[[Call], list[bytes]]:
    return lambda call: streamed(kind, *[b"x" * 65536] * (MUCH // 65536), kind=call.kind)


def garbled(event: bytes) -> Callable[[Call], list[bytes]]:
    """`event` in the middle of a stream, or for a whole answer."""

    def said(call: Call) -> list[bytes]:
        if call.is_stream:
            return streamed(call.pieces[0], b"data: " + event + b"\n\n", *call.pieces[1:])
        return [whole(200, event)]

    return said


class Row(NamedTuple):
    """A fault, and what clients see: of a whole answer, and of a stream."""

    fault: Fault
    whole: str | None
    stream: str | None
    asked: tuple[int, int] = (1, 1)
    """How often the server is asked, at least and at most."""


def same(fault: Fault, seen: str, asked: tuple[int, int] = (1, 1)) -> Row:
    return Row(fault, seen, seen, asked)


AWAY = "503 model_unavailable"
TWICE = (2, 2)
IF_KEPT = (1, 2)
"""Once more where the connection had been kept: the server may have closed it as idle."""
BEFORE = f"502 {BROKEN}"
WITHIN = f"event {BROKEN}"
FAULTS: dict[str, Row] = {
    "none": same(Fault(answers, "keep"), "200 whole"),
    "closes without a word": same(Fault(lambda _: []), AWAY, IF_KEPT),
    "resets without a word": same(Fault(lambda _: [], "reset"), AWAY, IF_KEPT),
    "hangs without a word": same(Fault(lambda _: [], "hang"), BEFORE),
    "half of its headers": same(Fault(lambda _: [b"HTTP/1.1 200 OK\r\nconten"]), AWAY),
    "headers without an end": same(
        Fault(lambda _: [head()[:-2], *[b"x-more: %b\r\n" % (b"x" * 8000)] * 600], "hang"), BEFORE
    ),
    "no HTTP": same(Fault(lambda _: [b"SSH-2.0-OpenSSH\r\n"]), BEFORE),
    "hangs behind its headers": same(Fault(lambda c: [head(200, c.kind, CHUNKED)], "hang"), BEFORE),
    "400": same(Fault(lambda _: [whole(400, ERROR)], "keep"), "400 None"),
    "429": same(Fault(lambda _: [whole(429, ERROR)], "keep"), "429 rate_limit_exceeded"),
    "302": same(Fault(lambda _: [whole(302, b"", JSON, "location: /")], "keep"), f"502 {FAILED}"),
    "500": same(Fault(lambda _: [whole(500, ERROR)], "keep"), f"502 {FAILED}"),
    "500 with a page": same(Fault(lambda _: [whole(500, PAGE, "text/html")]), f"502 {FAILED}"),
    "500 that hangs": same(Fault(lambda _: [sized_error(99)], "hang"), f"502 {FAILED}"),
    "500 that is reset": same(Fault(lambda _: [sized_error(99)], "reset"), f"502 {FAILED}"),
    "503": same(Fault(lambda _: [whole(503, ERROR)], "keep"), AWAY, TWICE),
    "200 with an error inside": same(Fault(lambda _: [whole(200, ERROR)], "keep"), f"502 {FAILED}"),
    "an error event": Row(Fault(garbled(ERROR), "keep"), f"502 {FAILED}", f"event {FAILED}"),
    "an error event at once": Row(
        Fault(lambda _: streamed(b"data: " + ERROR + b"\n\n"), "keep"), None, f"event {FAILED}"
    ),
    "a page": same(Fault(lambda _: [whole(200, PAGE, "text/html")], "keep"), BEFORE),
    "a page that is called right": Row(
        Fault(lambda c: [whole(200, PAGE, c.kind)], "keep"), BEFORE, WITHIN
    ),
    "no JSON": Row(Fault(garbled(b"{nonsense}"), "keep"), BEFORE, WITHIN),
    "JSON of something else": Row(Fault(garbled(b"[1, 2]"), "keep"), BEFORE, WITHIN),
    "half of the JSON": Row(Fault(garbled(b'{"id": "x", "choi'), "keep"), BEFORE, WITHIN),
    "no UTF-8": Row(Fault(garbled(b'{"type":"ping","id":"\xff"}'), "keep"), BEFORE, WITHIN),
    "without an end": Row(Fault(endless(b"data: {")), BEFORE, WITHIN),
    "no reason to end": Row(Fault(lambda c: unfinished(c, b"null"), "keep"), BEFORE, WITHIN),
    "gives up": Row(Fault(lambda c: unfinished(c, b'"abort"'), "keep"), BEFORE, WITHIN),
    "no last event": Row(Fault(lambda c: streamed(*c.pieces[:-1]), "keep"), None, WITHIN),
    "closes in the middle": Row(Fault(first), BEFORE, WITHIN),
    "half-closes in the middle": Row(Fault(first, "half-close"), BEFORE, WITHIN),
    "is reset in the middle": Row(Fault(first, "reset"), BEFORE, WITHIN),
    "stalls in the middle": Row(Fault(first, "hang"), BEFORE, WITHIN),
    "no chunks": same(Fault(lambda c: [head(200, c.kind, CHUNKED), b"nonsense\r\n"]), BEFORE),
    "no chunk in the middle": Row(Fault(lambda c: [*first(c), b"nonsense\r\n"]), BEFORE, WITHIN),
    "a length that is too short": Row(Fault(lambda c: sized(c, -5)), BEFORE, WITHIN),
    "a length that is too long": Row(Fault(lambda c: sized(c, 5)), BEFORE, "200 whole"),
}
CASES = [
    pytest.param(row, api, seen, kind == "stream", id=f"{name}-{api}-{kind}")
    for name, row in FAULTS.items()
    for kind, seen in (("whole", row.whole), ("stream", row.stream))
    if seen is not None
    for api in APIS
]


def sized_error(more: int) -> bytes:
    return head(500, JSON, f"content-length: {len(ERROR) + more}") + ERROR


Headers = Mapping[str, str]
ENDLESS: Headers = {}


class Asking:
    """A gateway that is running, and the clients that ask it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sdk = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        self.http = httpx2.AsyncClient(base_url=url)

    async def ask(
        self, api: str, stream: bool, *, grounded: bool = False, patience: Headers = ENDLESS
    ) -> str:
        """What the client sees; `patience` is a header that says how long it waits."""
        headers = dict(patience)
        more = {"retrieval": grounded}
        try:
            if api == "messages":
                return await self._message(stream, more, headers)
            answer = await self._asked(api, stream, more, headers)
        except openai.APIStatusError as exc:
            return f"{exc.status_code} {exc.code}"
        if not stream:
            return "200 whole"
        try:
            async for event in answer:
                if getattr(event, "type", "") == "error":
                    return f"event {event.code}"
        except openai.APIError as exc:
            return f"event {exc.code}"
        return "200 whole"

    async def _asked(self, api: str, stream: bool, more: Any, headers: Any) -> Any:
        said: dict[str, Any] = {"model": "default", "stream": stream}
        said |= {"extra_body": more, "extra_headers": headers}
        if api == "chat":
            said["messages"] = [{"role": "user", "content": QUESTION}]
            return await self.sdk.chat.completions.create(**said)
        if api == "completions":
            return await self.sdk.completions.create(prompt=QUESTION, **said)
        return await self.sdk.responses.create(input=QUESTION, **said)

    async def _message(self, stream: bool, more: Any, headers: Any) -> str:
        said = {"model": "default", "max_tokens": 9, "stream": stream, **more}
        said["messages"] = [{"role": "user", "content": QUESTION}]
        answer = await self.http.post("/v1/messages", json=said, headers=headers)
        if answer.status_code != 200:
            return f"{answer.status_code} {answer.json()['error'].get('code')}"
        if not stream:
            return "200 whole"
        last = answer.text.strip().split("\n\n")[-1]
        data = msgspec.json.decode(last.partition("data: ")[2])
        return "200 whole" if data["type"] == "message_stop" else f"event {data['error']['code']}"

    async def is_ready(self) -> bool:
        return (await self.http.get("/health/ready")).status_code == 200

    async def sees(self, api: str, seen: str) -> bool:
        return await self.ask(api, stream=False) == seen

    async def close(self) -> None:
        await self.sdk.close()
        await self.http.aclose()


@asynccontextmanager
async def gateway(hits: list[Hit], *urls: str, **stated: Any) -> AsyncIterator[Asking]:
    defaults: dict[str, Any] = {
        "upstream_url": ",".join(urls),
        "upstream_attempts": 2,
        "breaker_failures": 1000,
        "poll_interval_s": 0.1,
        "model_wait_s": 0,
        "open_access": True,
    }
    app = create_app(
        GatewaySettings(**defaults | stated),
        reader=FakeReader(hits),
        load_encoder=FakeEncoder,
    )
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="on"))
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started, within_s=20)
    asking = Asking(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")
    try:
        await until_true(asking.is_ready)
        yield asking
    finally:
        await asking.close()
        server.should_exit = True
        await serving


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def until_true(ask: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while True:
            if await ask():
                return
            await asyncio.sleep(0.02)


async def until(condition: Callable[[], bool], within_s: float = 2.0) -> None:
    ends = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < ends
        await asyncio.sleep(0.01)


HITS = [
    Hit(
        chunk_id=f"c{number}",
        document_id="d1",
        source="docs/llama.md",
        title="Llamas",
        heading_path="",
        start=0,
        end=9,
        text="Llamas eat grass and hay.",
        score=0.9,
    )
    for number in range(2)
]


class Served(NamedTuple):
    vllm: FaultyVLLM
    gateway: Asking
    impatient: Asking
    """One that waits for no more than a moment, for servers that hang."""


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[Served]:
    """One of each for all cases; in the end nothing of them is left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.client._FAILURE_S", SILENCE_S)
        patch.setattr("gateway.events.MOST_OF_AN_EVENT", MUCH // 2)
        patch.setattr("gateway.upstream_answer.MOST_READ", MUCH // 2)
        silences = ("upstream_read_timeout_s", "upstream_stall_timeout_s")
        hasty = dict.fromkeys(silences, SILENCE_S)
        tasks, opened = len(asyncio.all_tasks()), descriptors()
        async with (
            faulty_vllm() as vllm,
            gateway(HITS, vllm.url) as patient,
            gateway(HITS, vllm.url, **hasty) as impatient,
        ):
            yield Served(vllm, patient, impatient)
        await until(lambda: len(asyncio.all_tasks()) <= tasks and descriptors() <= opened)


def in_progress() -> float:
    return REGISTRY.get_sample_value("groundserve_requests_in_progress") or 0


@pytest.mark.parametrize(("row", "api", "seen", "stream"), CASES)
async def test_a_client_sees(served: Served, row: Row, api: str, seen: str, stream: bool) -> None:
    vllm, *gateways = served
    asking = gateways[row.fault.ending == "hang"]
    vllm.fault, vllm.asked = row.fault, []

    async with asyncio.timeout(20):
        both = await asyncio.gather(
            *(asking.ask(api, stream, grounded=grounded) for grounded in (False, True))
        )
    assert both == [seen, seen]
    least, most = row.asked
    if api == "responses" and row.asked == IF_KEPT:
        most = 1  # vLLM may keep it
    assert 2 * least <= len(vllm.asked) <= 2 * most
    await until(lambda: not vllm.busy and not in_progress())


async def test_where_nobody_listens_a_client_sees_503() -> None:
    async with faulty_vllm() as vllm, gateway(HITS, vllm.url, poll_interval_s=60) as asking:
        assert await asking.ask("chat", stream=True) == "200 whole"
        await vllm.stop()
        for api, stream in product(APIS, (True, False)):
            assert await asking.ask(api, stream) == AWAY


async def test_what_only_says_that_it_is_not_ready_is_asked_once_more_and_may_be_by_then() -> None:
    async with faulty_vllm() as vllm, gateway(HITS, vllm.url) as asking:
        vllm.fault = FAULTS["503"].fault
        asked = asyncio.create_task(asking.ask("chat", stream=True))
        await until(lambda: bool(vllm.asked))
        vllm.fault = None

        assert await asked == "200 whole"
        assert len(vllm.asked) == 2


class Pair(NamedTuple):
    servers: tuple[FaultyVLLM, FaultyVLLM]
    gateway: Asking


@pytest.fixture(scope="module")
async def pair() -> AsyncIterator[Pair]:
    """Two servers of the same model."""
    async with (
        faulty_vllm() as one,
        faulty_vllm() as two,
        gateway(HITS, one.url, two.url) as asking,
    ):
        yield Pair((one, two), asking)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("name", ["500", "closes without a word", "no chunks"])
async def test_what_may_have_been_taken_is_asked_of_another_server_unless_it_is_kept_there(
    pair: Pair, name: str, api: str
) -> None:
    for each in pair.servers:
        each.fault, each.asked = None, []
    await pair.gateway.is_ready()  # which looks at both
    assert await pair.gateway.ask(api, stream=False) == "200 whole"
    ours, other = sorted(pair.servers, key=lambda each: not each.asked)
    row = FAULTS[name]
    ours.fault, ours.asked = row.fault, []

    is_kept = api == "responses"
    assert await pair.gateway.ask(api, stream=False) == (row.whole if is_kept else "200 whole")
    assert (len(ours.asked), len(other.asked)) == (1, not is_kept)


async def test_a_model_that_is_exchanged_under_a_request_answers_it() -> None:
    """`default` is whatever is served: what vLLM does not know any more is looked up again."""
    async with faulty_vllm() as vllm, gateway(HITS, vllm.url, poll_interval_s=60) as asking:
        assert await asking.ask("chat", stream=False) == "200 whole"
        vllm.model = "org/another"
        gone = Fault(
            lambda c: [whole(404, ERROR)] if c.said["model"] == MODEL else answers(c), "keep"
        )
        vllm.fault = gone

        for api in APIS:
            assert await asking.ask(api, stream=True, grounded=True) == "200 whole"
        assert [path for path in vllm.asked if path == "/v1/chat/completions"] == [
            vllm.asked[0]
        ] * 3


@pytest.mark.parametrize("api", APIS)
async def test_a_server_that_lists_nothing_any_more_is_away(api: str) -> None:
    async with faulty_vllm() as vllm, gateway(HITS, vllm.url, model_wait_s=0.2) as asking:
        vllm.lists_models = False
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("gateway.upstream.LIST_TIMEOUT_S", 0.2)
            await until_true(lambda: asking.sees(api, AWAY))
        ready = await asking.http.get("/health/ready")
        assert ready.status_code == 503
        assert "vllm" in ready.json()["missing"]


class TestADeadline:
    """The time that a request has, by the gateway's setting or by what the client says."""

    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
    @pytest.mark.parametrize("api", APIS)
    @pytest.mark.parametrize("header", ["x-groundserve-timeout", "x-stainless-read-timeout"])
    async def test_ends_what_has_not_begun(
        self, served: Served, api: str, stream: bool, header: str
    ) -> None:
        vllm, asking, _ = served
        vllm.fault = FAULTS["hangs without a word"].fault
        began = time.monotonic()

        assert await asking.ask(api, stream, patience={header: "0.3"}) == "504 request_timeout"
        assert 0.2 < time.monotonic() - began < 3
        await until(lambda: not vllm.busy and not in_progress())

    @pytest.mark.parametrize("api", APIS)
    async def test_of_the_client_ends_a_whole_stream_with_an_event(
        self, served: Served, api: str
    ) -> None:
        vllm, asking, _ = served
        vllm.fault = FAULTS["stalls in the middle"].fault
        patience = {"x-groundserve-timeout": "0.5"}

        assert await asking.ask(api, stream=True, patience=patience) == "event request_timeout"
        await until(lambda: not vllm.busy and not in_progress())

    async def test_of_the_gateway_ends_a_whole_stream_with_an_event(self) -> None:
        async with faulty_vllm() as vllm, gateway(HITS, vllm.url, stream_timeout_s=0.5) as asking:
            vllm.fault = FAULTS["stalls in the middle"].fault

            assert await asking.ask("chat", stream=True) == "event request_timeout"

    async def test_says_what_the_request_was_at(self) -> None:
        async with faulty_vllm() as vllm, gateway(HITS, vllm.url, request_timeout_s=0.3) as asking:
            vllm.fault = FAULTS["hangs without a word"].fault
            with pytest.raises(openai.InternalServerError, match="'first_token'"):
                await asking.sdk.completions.create(model="default", prompt=QUESTION)

    @pytest.mark.parametrize("said", ["0", "-1", "soon", "inf", "nan"])
    async def test_that_makes_no_sense_is_refused(self, served: Served, said: str) -> None:
        vllm, asking, _ = served
        vllm.asked = []

        patience = {"x-groundserve-timeout": said}
        assert await asking.ask("chat", True, patience=patience) == "400 None"
        assert vllm.asked == []


class TestABreaker:
    OPENS: ClassVar[dict[str, Any]] = {"breaker_failures": 3, "breaker_open_s": 0.8}
    HASTY: ClassVar[dict[str, Any]] = {**OPENS, "upstream_read_timeout_s": SILENCE_S}

    @pytest.mark.parametrize(
        "name", ["500", "hangs behind its headers", "closes in the middle", "no HTTP", "503"]
    )
    async def test_opens_although_the_server_still_lists_its_models(self, name: str) -> None:
        async with faulty_vllm() as vllm, gateway(HITS, vllm.url, **self.HASTY) as asking:
            vllm.fault = FAULTS[name].fault
            for _ in range(3):
                await asking.ask("chat", stream=True)
            asked, began = len(vllm.asked), time.monotonic()
            ready = await asking.http.get("/health/ready")

            assert await asking.ask("chat", stream=True) == AWAY
            assert time.monotonic() - began < 0.5
            assert len(vllm.asked) == asked
            assert ready.status_code == 503
            assert "times in a row" in ready.json()["missing"]["vllm"]
            assert state_of(vllm) == 2

    async def test_lets_one_request_through_after_a_while_and_closes_when_that_is_answered(
        self,
    ) -> None:
        async with faulty_vllm() as vllm, gateway(HITS, vllm.url, **self.HASTY) as asking:
            vllm.fault = FAULTS["500"].fault
            for _ in range(3):
                await asking.ask("chat", stream=False)
            vllm.fault, vllm.asked = FAULTS["hangs without a word"].fault, []
            await asyncio.sleep(1.1)
            both = await asyncio.gather(*(asking.ask("chat", stream=False) for _ in range(5)))

            assert sorted(both) == [BEFORE, *[AWAY] * 4]
            assert len(vllm.asked) == 1
            vllm.fault = None
            assert await asking.ask("chat", stream=False) == AWAY
            await asyncio.sleep(1.1)
            assert await asking.ask("chat", stream=False) == "200 whole"
            assert state_of(vllm) == 0
            assert (await asking.http.get("/health/ready")).json() == {"status": "ready"}

    async def test_leaves_requests_to_the_other_server(self) -> None:
        async with (
            faulty_vllm() as one,
            faulty_vllm() as two,
            gateway(HITS, one.url, two.url, **self.OPENS) as asking,
        ):
            await asking.ask("chat", stream=True)
            ours = one if one.asked else two
            ours.fault = FAULTS["500"].fault
            seen = [await asking.ask("chat", stream=True) for _ in range(6)]

            assert seen == ["200 whole"] * 6
            assert len(ours.asked) == 1 + 3
            ready = await asking.http.get("/health/ready")
            assert ready.status_code == 200
            assert list(ready.json()["troubles"]) == [f"{ours.url}/"]

    async def test_of_a_server_that_was_away_closes_when_it_lists_its_models_again(self) -> None:
        async with faulty_vllm() as vllm, gateway(HITS, vllm.url, **self.OPENS) as asking:
            port = vllm.port
            await vllm.stop()
            for _ in range(5):
                assert await asking.ask("chat", stream=False) == AWAY
            await vllm.start(port)
            await until(lambda: state_of(vllm) == 0)

            await until_true(lambda: asking.sees("chat", "200 whole"))


def state_of(vllm: FaultyVLLM) -> float | None:
    labels = {"server": f"{vllm.url}/"}
    return REGISTRY.get_sample_value("groundserve_upstream_breaker_state", labels)


async def test_retries_add_a_fifth_at_most_to_many_requests() -> None:
    async with faulty_vllm() as vllm, gateway(HITS, vllm.url, upstream_attempts=5) as asking:
        vllm.fault = FAULTS["503"].fault
        seen = await asyncio.gather(*(asking.ask("chat", stream=False) for _ in range(100)))

        assert set(seen) == {AWAY}
        assert len(vllm.asked) <= 100 + 10 + 20
