"""Limits that hold over several real gateways, and over workers, whatever dies in between.

Each test has keys of its own, so that few gateways need to be started.
"""

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis as redis_client
from openai import APIStatusError, OpenAI, RateLimitError
from stack import servers

from gateway.access.callers import Limits
from gateway.access.keys import Key, digest, written
from gateway.access.ledger import LEASE_S
from tests.integration import fake_vllm
from tests.integration.redis_server import RedisServer

CHAT = {"model": "default", "messages": [{"role": "user", "content": "Llamas?"}], "max_tokens": 9}
SLOTS = "{groundserve-limits}:concurrent_requests:key:"
START_S = 120.0
PATIENT = {"limits_timeout_s": "5"}
"""A machine that has other work is not taken for a ledger that is away."""
HELD: list[threading.Event] = []
"""Requests at the model server that say `is_held`; each is answered when its event is set."""

LIMITS = {
    "requests": Limits(requests_per_minute=30),
    "tokens": Limits(tokens_per_minute=400),
    "slots": Limits(concurrent_requests=6),
    "killed": Limits(concurrent_requests=2),
    "long": Limits(concurrent_requests=1),
    "leaves": Limits(concurrent_requests=1),
    "sdk": Limits(requests_per_minute=2, answer_tokens=50),
    "hangs": Limits(requests_per_minute=1000),
    "away": Limits(requests_per_minute=20),
}


def keys() -> str:
    """The keys of the tests; each is called what it is."""
    return written(
        [
            Key(
                name=name,
                tenant="t",
                sha256=digest(name.encode()).hex(),
                created_at=0,
                limits=limits,
            )
            for name, limits in LIMITS.items()
        ]
    ).decode()


class Gateway:
    """One that runs."""

    def __init__(self, server: servers.Server, port: int) -> None:
        self.server = server
        self.url = f"http://127.0.0.1:{port}"

    @property
    def pid(self) -> int:
        assert self.server.process is not None
        return self.server.process.pid

    @property
    def log(self) -> str:
        return self.server.log.read_text()

    def workers(self) -> list[int]:
        """Ids of the processes that answer."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(pid) for pid in children if "grpc" in Path(f"/proc/{pid}/maps").read_text()]

    def metric(self, name: str) -> float:
        """The sum of all that begin so."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    def status(self, key: str) -> int:
        """Of a chat; 0 where nobody listens."""
        try:
            return httpx.post(
                f"{self.url}/v1/chat/completions", json=CHAT, headers=bearer(key), timeout=60
            ).status_code
        except httpx.HTTPError:
            return 0

    def left(self, key: str, kind: str) -> int:
        """What is left of a limit, as a request that costs no tokens is told."""
        headers = httpx.get(f"{self.url}/v1/models", headers=bearer(key), timeout=60).headers
        return int(headers[f"x-ratelimit-remaining-{kind}"])


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


class Handler(fake_vllm.Handler):
    """Answers each request at once, or when the test lets it."""

    def pause(self, said: fake_vllm.Said) -> None:
        super().pause(said)
        if said.get("is_held"):
            let = threading.Event()
            HELD.append(let)
            let.wait(100)


def let_go() -> None:
    """Have all that is held answered."""
    while HELD:
        HELD.pop().set()


@pytest.fixture(autouse=True)
def _nothing_is_held() -> Iterator[None]:
    yield
    let_go()


@contextmanager
def started(count: int, folder: Path, **settings: str) -> Iterator[list[Gateway]]:
    """Gateways that need neither Milvus nor an embedding model."""
    with fake_vllm.serving(Handler) as upstream_url, ExitStack() as stack:
        gateways = []
        for number in range(count):
            port = servers.free_port()
            environment = {
                "GROUNDSERVE_OPEN_ACCESS": "false",
                "GROUNDSERVE_API_KEYS": keys(),
                "GROUNDSERVE_RETRIEVAL": "false",
                "GROUNDSERVE_UPSTREAM_URL": upstream_url,
                "GROUNDSERVE_ENCODER_URL": upstream_url,
                "GROUNDSERVE_MILVUS_URI": "http://127.0.0.1:9",
                **{f"GROUNDSERVE_{name}".upper(): said for name, said in settings.items()},
            }
            server = servers.gateway(port, environment, folder / f"logs{number}")
            server.probe = servers.http_probe(f"http://127.0.0.1:{port}/health/live")
            gateways.append(Gateway(stack.enter_context(server), port))
        for gateway in gateways:
            gateway.server.wait_ready()
        yield gateways


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(servers.free_port(), tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def pair(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Gateway]]:
    """Two that share a Redis."""
    folder = tmp_path_factory.mktemp("pair")
    with started(2, folder, limits_url=redis.url, **PATIENT) as gateways:
        yield gateways


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One with two workers, and no Redis."""
    with started(1, tmp_path_factory.mktemp("workers"), workers="2", **PATIENT) as [gateway]:
        waited(lambda: len(gateway.workers()) == 2, START_S)
        yield gateway


Ask = Callable[..., Any]


@asynccontextmanager
async def asking(key: str) -> AsyncIterator[Ask]:
    """Asks gateways with a key."""
    async with httpx.AsyncClient(timeout=60, headers=bearer(key)) as client:

        async def ask(gateway: Gateway, **more: Any) -> int:
            answer = await client.post(f"{gateway.url}/v1/chat/completions", json=CHAT | more)
            return answer.status_code

        yield ask


def flood(
    gateways: Sequence[Gateway], key: str, count: int, *, is_held: bool = False
) -> Counter[int]:
    """How often each status is answered when each gateway is asked `count` times at once.

    What is held is answered when all the rest was refused.
    """

    async def asked() -> list[int]:
        async with asking(key) as ask:
            wanted = [ask(each, is_held=is_held) for _ in range(count) for each in gateways]
            tasks = [asyncio.ensure_future(each) for each in wanted]
            if is_held:
                await until(lambda: sum(task.done() for task in tasks) + len(HELD) >= len(tasks))
                let_go()
            return [*await asyncio.gather(*tasks)]

    return Counter(asyncio.run(asked()))


def waited(condition: Callable[[], bool], seconds: float = 20) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - it is in another process
            await asyncio.sleep(0.05)


def test_two_gateways_hold_requests_together_over_redis(pair: list[Gateway]) -> None:
    assert flood(pair, "requests", 40) == {200: 30, 429: 50}
    refused = 'groundserve_limited_total{limit="requests",whose="key"}'
    assert sum(each.metric(refused) for each in pair) == 50
    assert not any(each.metric("groundserve_limits_counted_alone_total") for each in pair)


def test_tokens_that_one_gateway_used_count_at_the_other(pair: list[Gateway]) -> None:
    for number in range(10):
        client = OpenAI(base_url=f"{pair[number % 2].url}/v1", api_key="tokens")
        stream = client.chat.completions.create(**CHAT, stream=True)  # type: ignore[call-overload]
        assert all(chunk.choices and chunk.usage is None for chunk in stream)

    expected = 400 - 10 * fake_vllm.USAGE["total_tokens"]
    waited(lambda: [each.left("tokens", "tokens") for each in pair] == [expected] * 2)


def test_no_more_are_answered_at_a_time_than_both_may_together(
    pair: list[Gateway], redis: RedisServer
) -> None:
    assert flood(pair, "slots", 10, is_held=True) == {200: 6, 429: 14}
    with redis_client.Redis.from_url(redis.url) as client:
        waited(lambda: not client.zcard(SLOTS + "slots"))
    assert flood(pair, "slots", 3, is_held=True) == {200: 6}


def test_a_long_answer_keeps_its_slot(pair: list[Gateway], redis: RedisServer) -> None:
    key = SLOTS + "long"

    async def renewed(client: Any) -> None:
        async with asking("long") as ask:
            running = asyncio.create_task(ask(pair[0], is_held=True))
            await until(lambda: client.zcard(key))
            [(lease, first)] = client.zrange(key, 0, -1, withscores=True)
            await until(lambda: client.zscore(key, lease) != first)
            assert client.zscore(key, lease) >= first + LEASE_S / 3 - 1
            assert await ask(pair[1]) == 429
            let_go()
            assert await running == 200
        await until(lambda: not client.zcard(key))

    with redis_client.Redis.from_url(redis.url) as client:
        asyncio.run(renewed(client))


def test_the_slot_of_a_client_that_leaves_is_free_at_once(pair: list[Gateway]) -> None:
    for stream in (False, True):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{pair[0].url}/v1/chat/completions",
                json=CHAT | {"stream": stream, "pause_s": 20},
                headers=bearer("leaves"),
                timeout=2,
            )
        waited(lambda: pair[1].status("leaves") == 200, 10)


def test_the_sdk_reads_refusals_as_those_of_openai(pair: list[Gateway]) -> None:
    client = OpenAI(base_url=f"{pair[0].url}/v1", api_key="sdk", max_retries=0)
    create: Any = client.chat.completions.create
    with pytest.raises(APIStatusError) as too_long:
        create(**CHAT | {"max_tokens": 51})
    answer = client.chat.completions.with_raw_response.create(**CHAT)  # type: ignore[call-overload]
    with pytest.raises(RateLimitError) as refused:
        create(**CHAT)

    assert (too_long.value.status_code, too_long.value.param) == (400, "max_tokens")
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"
    assert (refused.value.type, refused.value.code) == ("requests", "rate_limit_exceeded")


def test_the_slots_of_a_gateway_that_was_killed_come_free(
    pair: list[Gateway], redis: RedisServer, tmp_path: Path
) -> None:
    key = SLOTS + "killed"

    async def killed(gateway: Gateway, client: Any) -> None:
        async with asking("killed") as ask:
            running = [asyncio.create_task(ask(gateway, is_held=True)) for _ in range(2)]
            await until(lambda: client.zcard(key) == 2)
            os.kill(gateway.pid, signal.SIGKILL)
            await asyncio.gather(*running, return_exceptions=True)
            assert await ask(pair[0]) == 429

    with (
        redis_client.Redis.from_url(redis.url) as client,
        started(1, tmp_path, limits_url=redis.url, **PATIENT) as [gateway],
    ):
        asyncio.run(killed(gateway, client))
        held = dict(client.zrange(key, 0, -1, withscores=True))
        assert all(0 < until_s - time.time() <= LEASE_S for until_s in held.values())
        # As if so much time had gone by.
        client.zadd(key, {lease: until_s - LEASE_S for lease, until_s in held.items()})
        assert flood(pair, "killed", 1) == {200: 2}


def test_workers_of_one_machine_hold_limits_without_redis(workers: Gateway) -> None:
    assert flood([workers], "slots", 20, is_held=True) == {200: 6, 429: 14}
    assert flood([workers], "requests", 60) == {200: 30, 429: 30}
    assert workers.metric("groundserve_limits_counted_alone_total") == 0


def test_the_slots_of_workers_that_were_killed_are_free_at_once(workers: Gateway) -> None:
    async def killed() -> None:
        async with asking("killed") as ask:
            running = [asyncio.create_task(ask(workers, is_held=True)) for _ in range(2)]
            await until(lambda: len(HELD) == 2)
            assert await ask(workers) == 429
            for pid in workers.workers():
                os.kill(pid, signal.SIGKILL)
            await asyncio.gather(*running, return_exceptions=True)

    asyncio.run(killed())
    waited(lambda: workers.status("killed") == 200, START_S)


def test_a_redis_that_hangs_holds_nobody_up(pair: list[Gateway], redis: RedisServer) -> None:
    redis.pause()
    try:
        started_at = time.monotonic()
        assert flood(pair, "hangs", 10) == {200: 20}
        assert time.monotonic() - started_at < 30
        assert all(each.metric("groundserve_limits_counted_alone_total") for each in pair)
    finally:
        redis.go_on()
    waited(lambda: all("limits are counted together again" in each.log for each in pair))


def test_limits_hold_in_each_gateway_while_redis_is_away(
    pair: list[Gateway], redis: RedisServer
) -> None:
    assert flood(pair, "away", 4) == {200: 8}
    back = [each.log.count("limits are counted together again") for each in pair]
    redis.kill()
    # Each has let in four; what the other has done is lost, and nothing else.
    assert flood(pair, "away", 30) == {200: 32, 429: 28}

    redis.start()
    waited(
        lambda: (
            [each.log.count("limits are counted together again") for each in pair]
            == [before + 1 for before in back]
        )
    )
    alone = pair[0].metric("groundserve_limits_counted_alone_total")
    # It comes back empty: what it has lost is all that there may be more.
    assert flood(pair, "away", 30) == {200: 20, 429: 40}
    assert pair[0].metric("groundserve_limits_counted_alone_total") == alone
