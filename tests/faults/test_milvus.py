"""The real Milvus Lite server is away, silent, or back: what clients see of it."""

import time

import httpx
import pytest

from tests.faults.asking import Route, ask, routes
from tests.faults.conftest import (
    FACT,
    KNOWLEDGE_BASE,
    MILVUS_TIMEOUT_S,
    QUESTION,
    Stack,
)
from tests.servers import wait_until

pytestmark = pytest.mark.long

ROUTES = routes(QUESTION, KNOWLEDGE_BASE)
PLAIN_CHAT, CHAT_STREAM = ROUTES[0], ROUTES[1]
RECOVERED_S = 5.0
UNGROUNDED = {"retrieval": {"enabled": False}}
FAILS = {"retrieval": {"enabled": True, "when_unavailable": "fail"}}
DEGRADES = {"retrieval": {"enabled": True, "when_unavailable": "degrade"}}


def test_what_is_asked_when_nothing_is_wrong_is_answered(stack: Stack) -> None:
    for route in ROUTES:
        seen = ask(stack.url, route)
        assert seen.ended_well, (str(route), seen.said[-500:])
    assert FACT in ask(stack.url, PLAIN_CHAT).said


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_with_milvus_killed_every_answer_from_documents_is_a_503(
    stack: Stack, route: Route
) -> None:
    stack.milvus.kill()

    seen = ask(stack.url, route, fields=FAILS)

    assert seen.status == 503
    assert seen.code in ("index_unavailable", "overloaded_error")
    assert int(seen.headers["retry-after-ms"]) > 0
    assert "milvus" in stack.missing()


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_with_milvus_killed_a_request_that_wants_it_is_answered_without_and_says_so(
    stack: Stack, route: Route
) -> None:
    stack.milvus.kill()
    before = stack.metric("groundserve_degraded_total")

    seen = ask(stack.url, route, fields=DEGRADES)

    assert seen.ended_well
    assert seen.headers["x-groundserve-degraded"] == "milvus"
    assert FACT not in seen.said
    assert "degraded" in seen.said
    assert stack.metric("groundserve_degraded_total") == before + 1


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_a_milvus_that_says_nothing_costs_a_request_no_more_than_its_timeout(
    stack: Stack, route: Route
) -> None:
    stack.milvus.pause()

    seen = ask(stack.url, route)

    assert seen.status == 503
    assert seen.seconds < 3 * MILVUS_TIMEOUT_S


def test_while_milvus_says_nothing_everything_else_goes_on(stack: Stack) -> None:
    stack.milvus.pause()

    seen = ask(stack.url, PLAIN_CHAT, fields=UNGROUNDED)
    began = time.monotonic()
    live = httpx.get(f"{stack.url}/health/live", timeout=5)

    assert seen.ended_well
    assert live.status_code == 200
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("act", ["killed", "silent"])
def test_milvus_comes_back_and_is_searched_within_five_seconds(stack: Stack, act: str) -> None:
    if act == "killed":
        stack.milvus.kill()
        assert ask(stack.url, PLAIN_CHAT).status == 503
        time.sleep(5)  # long enough for any patience to have grown
        back = stack.milvus.start()
    else:
        stack.milvus.pause()
        assert ask(stack.url, PLAIN_CHAT).status == 503
        time.sleep(5)
        stack.milvus.go_on()
        back = time.monotonic()

    wait_until(lambda: ask(stack.url, PLAIN_CHAT).status == 200, 30)

    took = time.monotonic() - back
    seen = ask(stack.url, PLAIN_CHAT)
    assert FACT in seen.said
    # The answer itself takes vLLM a moment; it is not what is waited for.
    assert took - seen.seconds < RECOVERED_S


def test_a_gateway_that_starts_without_milvus_finds_it_later(stack: Stack) -> None:
    stack.milvus.kill()
    stack.gateway.kill()
    stack.gateway.server.start()
    wait_until(lambda: _is_live(stack.url))

    assert ask(stack.url, PLAIN_CHAT).status == 503
    assert "milvus" in stack.missing()

    stack.milvus.start()
    stack.until_ready(30)
    assert FACT in ask(stack.url, PLAIN_CHAT).said


def test_a_stream_that_has_begun_does_not_need_milvus_any_more(stack: Stack) -> None:
    route = routes(QUESTION, KNOWLEDGE_BASE, max_tokens=60)[1]

    def kill_once(number: int) -> None:
        if number == 2:
            stack.milvus.kill()

    seen = ask(stack.url, route, on_event=kill_once)

    assert seen.ended_well
    assert FACT in seen.said


def _is_live(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/live", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
