"""The real vLLM is killed, silent, ended or exchanged: what clients see of it."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from stack import models, servers

from tests.faults.asking import Route, Seen, ask, routes
from tests.faults.conftest import KNOWLEDGE_BASE, QUESTION, SILENCE_S, Part, Stack

pytestmark = pytest.mark.long

LONG = routes(QUESTION, KNOWLEDGE_BASE, max_tokens=1500)
SHORT = routes(QUESTION, KNOWLEDGE_BASE)
STREAMS = [route for route in LONG if route.stream]
PLAIN = [route for route in LONG if not route.stream]
ENDLESS = {"ignore_eos": True}
BROKEN = ("model_answer_broken", "api_error")
AWAY = ("model_unavailable", "overloaded_error")
SCHEDULING_S = 4.0
"""On a machine with two busy cores."""


def once(act: Callable[[], object], at: int = 3) -> Callable[[int], None]:
    def told(number: int) -> None:
        if number == at:
            act()

    return told


@pytest.mark.parametrize("route", STREAMS, ids=str)
def test_a_stream_whose_vllm_falls_silent_ends_with_an_error(stack: Stack, route: Route) -> None:
    seen = ask(stack.url, route, on_event=once(stack.vllm.pause), fields=_endless(route))

    assert seen.status == 200
    assert seen.code in BROKEN
    assert not seen.ended_well
    assert seen.seconds < 3 * SILENCE_S + SCHEDULING_S


@pytest.mark.parametrize("route", SHORT, ids=str)
def test_a_vllm_that_takes_a_request_and_says_nothing_is_told(stack: Stack, route: Route) -> None:
    stack.vllm.pause()

    seen = ask(stack.url, route)

    assert (seen.status, seen.ended_well) in [(502, False), (503, False), (504, False)]
    assert seen.code is not None
    assert seen.seconds < 3 * SILENCE_S + SCHEDULING_S


def test_a_vllm_that_goes_on_is_used_again_without_a_restart(stack: Stack) -> None:
    stack.vllm.pause()
    assert ask(stack.url, SHORT[0]).status >= 500
    stack.vllm.go_on()

    stack.until_ready(60)

    assert all(ask(stack.url, route).ended_well for route in SHORT)


def test_streams_of_all_kinds_whose_vllm_is_killed_end_with_an_error(stack: Stack) -> None:
    """One kill for all of them: starting vLLM takes a minute."""
    outcomes = _all_at_once(stack, STREAMS + PLAIN, stack.vllm.kill)

    for name, seen in outcomes.items():
        assert not seen.ended_well, name
        if seen.status == 200:
            assert seen.code in BROKEN, (name, seen.said[-300:])
        else:
            assert seen.status in (502, 503), (name, seen.said[-300:])
            assert seen.code in BROKEN + AWAY
    for route in SHORT:
        refused = ask(stack.url, route)
        assert (refused.status, refused.code in AWAY) == (503, True), route
        assert int(refused.headers["retry-after-ms"]) > 0
    assert list(stack.missing()) == ["vllm"]


def test_another_model_in_its_place_is_what_default_means_then(
    stack: Stack, tmp_path: Path
) -> None:
    stack.vllm.kill()
    before = stack.vllm.server
    other = servers.vllm(
        int(before.command[list(before.command).index("--port") + 1]),
        Path(before.command[list(before.command).index("--config") + 1]),
        str(models.smollm2()),
        tmp_path,
        ["--served-model-name", "another-model"],
    )
    with other:
        other.wait_ready()
        stack.until_ready(30)
        seen = ask(stack.url, SHORT[0])
        gone = ask(stack.url, SHORT[0], fields={"model": "HuggingFaceTB/SmolLM2-135M-Instruct"})
        Part(other).kill()

    assert seen.ended_well
    assert '"model":"another-model"' in seen.said.replace(" ", "")
    assert (gone.status, gone.code) == (404, "model_not_found")


def _endless(route: Route) -> dict[str, Any]:
    # The others have no field for it, and the model goes on long enough by itself.
    return ENDLESS if route.name in ("chat", "completions") else {}


def _all_at_once(
    stack: Stack, asked: Sequence[Route], act: Callable[[], object]
) -> dict[str, Seen]:
    """Ask all of them; when every stream has begun, `act`."""
    begun = [threading.Event() for route in asked if route.stream]
    waiting = iter(begun)
    with ThreadPoolExecutor(len(asked)) as threads:
        answers = {}
        for route in asked:
            event = next(waiting) if route.stream else threading.Event()
            told = once(event.set)
            fields = _endless(route)
            answers[str(route)] = threads.submit(
                partial(ask, stack.url, route, on_event=told, fields=fields)
            )
        for event in begun:
            assert event.wait(60)
        act()
        return {name: answer.result() for name, answer in answers.items()}
