"""What a client sees when vLLM goes wrong: each fault, in each API, whole and as a stream.

Real sockets all the way: the openai SDK, uvicorn with the gateway, and a server that misbehaves. A
case is named `fault-API-kind`. Each is asked twice at the same time, with documents and without,
which makes no difference to what is seen.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import openai
import pytest

from tests.integration.fake_vllm import MODEL
from tests.integration.faulty_vllm import Fault, FaultyVLLM, answers, faulty_vllm, whole
from tests.integration.gateway_in_process import (
    APIS,
    QUESTION,
    Asking,
    gateway,
    in_progress,
    until,
    until_true,
)
from tests.integration.upstream_faults import AWAY, ERROR, FAULTS, IF_KEPT, MUCH, Row

pytestmark = pytest.mark.anyio

SILENCE_S = 0.4
CASES = [
    pytest.param(row, api, seen, kind == "stream", id=f"{name}-{api}-{kind}")
    for name, row in FAULTS.items()
    for kind, seen in (("whole", row.whole), ("stream", row.stream))
    if seen is not None
    for api in APIS
]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


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
            gateway(vllm.url) as patient,
            gateway(vllm.url, **hasty) as impatient,
        ):
            yield Served(vllm, patient, impatient)
        await until(lambda: len(asyncio.all_tasks()) <= tasks and descriptors() <= opened)


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
    async with faulty_vllm() as vllm, gateway(vllm.url, poll_interval_s=60) as asking:
        assert await asking.ask("chat", stream=True) == "200 whole"
        await vllm.stop()
        for api, stream in product(APIS, (True, False)):
            assert await asking.ask(api, stream) == AWAY


async def test_what_only_says_that_it_is_not_ready_is_asked_once_more_and_may_be_by_then() -> None:
    async with faulty_vllm() as vllm, gateway(vllm.url) as asking:
        refuses = FAULTS["503"].fault.said
        vllm.fault = Fault(lambda c: refuses(c) if len(vllm.asked) == 1 else answers(c), "keep")

        assert await asking.ask("chat", stream=True) == "200 whole"
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
        gateway(one.url, two.url) as asking,
    ):
        yield Pair((one, two), asking)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("name", ["500", "closes without a word", "no chunks"])
async def test_what_may_have_been_taken_is_asked_of_another_server_unless_it_is_kept_there(
    pair: Pair, name: str, api: str
) -> None:
    for each in pair.servers:
        each.fault, each.asked = None, []
    await until_true(pair.gateway.is_well)
    assert await pair.gateway.ask(api, stream=False) == "200 whole"
    ours, other = sorted(pair.servers, key=lambda each: not each.asked)
    row = FAULTS[name]
    ours.fault, ours.asked = row.fault, []

    is_kept = api == "responses"
    assert await pair.gateway.ask(api, stream=False) == (row.whole if is_kept else "200 whole")
    assert (len(ours.asked), len(other.asked)) == (1, not is_kept)


async def test_a_model_that_is_exchanged_under_a_request_answers_it() -> None:
    """`default` is whatever is served: what vLLM does not know any more is looked up again."""
    async with faulty_vllm() as vllm, gateway(vllm.url, poll_interval_s=60) as asking:
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
    async with faulty_vllm() as vllm, gateway(vllm.url, model_wait_s=0.2) as asking:
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
        assert 0.2 < time.monotonic() - began < 15
        await until(lambda: not vllm.busy and not in_progress())

    async def test_of_the_client_ends_a_whole_stream_with_an_event(self, served: Served) -> None:
        vllm, asking, _ = served
        vllm.fault = FAULTS["stalls in the middle"].fault
        patience = {"x-groundserve-timeout": "2"}

        asked = [asking.ask(api, stream=True, patience=patience) for api in APIS]
        assert await asyncio.gather(*asked) == ["event request_timeout"] * len(APIS)
        await until(lambda: not vllm.busy and not in_progress())

    async def test_of_the_gateway_ends_a_whole_stream_with_an_event(self) -> None:
        async with faulty_vllm() as vllm, gateway(vllm.url, stream_timeout_s=2) as asking:
            vllm.fault = FAULTS["stalls in the middle"].fault

            assert await asking.ask("chat", stream=True) == "event request_timeout"

    async def test_says_what_the_request_was_at(self) -> None:
        async with faulty_vllm() as vllm, gateway(vllm.url, request_timeout_s=2) as asking:
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
