"""A gateway in this process, over real sockets, in front of servers that misbehave."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import msgspec
import openai
import uvicorn
from prometheus_client import REGISTRY

from gateway.app import create_app
from gateway.settings import GatewaySettings
from indexer.index.records import Hit
from tests.unit.conftest import FakeReader
from tests.unit.index_fakes import FakeEncoder

QUESTION = "What do llamas eat?"
APIS = ("chat", "completions", "responses", "messages")
Headers = Mapping[str, str]
ENDLESS: Headers = {}
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

    async def is_well(self) -> bool:
        """Whether no server is left out either."""
        return bool((await self.http.get("/health/ready")).json() == {"status": "ready"})

    async def sees(self, api: str, seen: str) -> bool:
        return await self.ask(api, stream=False) == seen

    async def close(self) -> None:
        await self.sdk.close()
        await self.http.aclose()


@asynccontextmanager
async def gateway(*urls: str, **stated: Any) -> AsyncIterator[Asking]:
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
        reader=FakeReader(HITS),
        load_encoder=FakeEncoder,
    )
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="on"))
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    asking = Asking(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")
    try:
        await until_true(asking.is_ready)
        yield asking
    finally:
        await asking.close()
        server.should_exit = True
        await serving


async def until_true(ask: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while True:
            if await ask():
                return
            await asyncio.sleep(0.02)


async def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    ends = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < ends
        await asyncio.sleep(0.01)


def in_progress() -> float:
    return REGISTRY.get_sample_value("groundserve_requests_in_progress") or 0
