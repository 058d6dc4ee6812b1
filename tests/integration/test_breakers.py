"""What a breaker and the budget of retries keep from vLLM, and when it is asked again."""

import asyncio
from functools import partial
from typing import Any, ClassVar

import pytest
from prometheus_client import REGISTRY

from gateway.breaker import Breaker
from tests.integration.faulty_vllm import FaultyVLLM, faulty_vllm
from tests.integration.gateway_in_process import gateway, until, until_true
from tests.integration.upstream_faults import AWAY, BEFORE, FAULTS
from tests.unit.conftest import Clock

pytestmark = pytest.mark.anyio

OPEN_S = 60
SPREAD = 1.25
"""So many times as long it may be until a server is asked again."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """That of all breakers."""
    clock = Clock()
    monkeypatch.setattr("gateway.breaker.Breaker", partial(Breaker, now=clock))
    return clock


class TestABreaker:
    OPENS: ClassVar[dict[str, Any]] = {"breaker_failures": 3, "breaker_open_s": OPEN_S}
    HASTY: ClassVar[dict[str, Any]] = {**OPENS, "upstream_read_timeout_s": 0.4}
    PATIENT: ClassVar[dict[str, Any]] = {**OPENS, "upstream_read_timeout_s": 2}

    @pytest.mark.parametrize(
        "name", ["500", "hangs behind its headers", "closes in the middle", "no HTTP", "503"]
    )
    async def test_opens_although_the_server_still_lists_its_models(self, name: str) -> None:
        async with faulty_vllm() as vllm, gateway(vllm.url, **self.HASTY) as asking:
            vllm.fault = FAULTS[name].fault
            for _ in range(3):
                await asking.ask("chat", stream=True)
            asked = len(vllm.asked)
            ready = await asking.http.get("/health/ready")

            assert await asking.ask("chat", stream=True) == AWAY
            assert len(vllm.asked) == asked
            assert ready.status_code == 503
            assert "times in a row" in ready.json()["missing"]["vllm"]
            assert state_of(vllm) == 2

    async def test_lets_one_request_through_after_a_while_and_closes_when_that_is_answered(
        self, clock: Clock
    ) -> None:
        async with faulty_vllm() as vllm, gateway(vllm.url, **self.PATIENT) as asking:
            vllm.fault = FAULTS["500"].fault
            for _ in range(3):
                await asking.ask("chat", stream=False)
            vllm.fault, vllm.asked = FAULTS["hangs without a word"].fault, []
            clock.now += SPREAD * OPEN_S
            both = await asyncio.gather(*(asking.ask("chat", stream=False) for _ in range(5)))

            assert sorted(both) == [BEFORE, *[AWAY] * 4]
            assert len(vllm.asked) == 1
            vllm.fault = None
            assert await asking.ask("chat", stream=False) == AWAY
            clock.now += SPREAD * OPEN_S
            assert await asking.ask("chat", stream=False) == "200 whole"
            assert state_of(vllm) == 0
            assert (await asking.http.get("/health/ready")).json() == {"status": "ready"}

    async def test_leaves_requests_to_the_other_server(self) -> None:
        async with (
            faulty_vllm() as one,
            faulty_vllm() as two,
            gateway(one.url, two.url, **self.OPENS) as asking,
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

    async def test_is_not_opened_by_clients_that_do_not_wait(self) -> None:
        async with faulty_vllm() as vllm, gateway(vllm.url, **self.OPENS) as asking:
            vllm.fault = FAULTS["hangs without a word"].fault
            for patience in ("x-groundserve-timeout", "x-stainless-read-timeout"):
                for _ in range(4):
                    seen = await asking.ask("chat", stream=True, patience={patience: "0.1"})
                    assert seen == "504 request_timeout"
            vllm.fault = None

            assert await asking.ask("chat", stream=True) == "200 whole"

    async def test_of_a_server_that_was_away_closes_when_it_lists_its_models_again(self) -> None:
        async with faulty_vllm() as vllm, gateway(vllm.url, **self.OPENS) as asking:
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
    async with faulty_vllm() as vllm, gateway(vllm.url, upstream_attempts=5) as asking:
        vllm.fault = FAULTS["503"].fault
        seen = await asyncio.gather(*(asking.ask("chat", stream=False) for _ in range(100)))

        assert set(seen) == {AWAY}
        assert len(vllm.asked) <= 100 + 10 + 20
