"""When a server is left alone, and when it is asked again."""

import logging

import pytest
from prometheus_client import REGISTRY

from gateway.access.callers import Caller, acting_as
from gateway.breaker import RECENT_S, Breaker, Breakers
from gateway.errors import UpstreamBroken, UpstreamFailure, UpstreamRejected, UpstreamUnavailable
from tests.unit.conftest import Clock, FakeUpstream

OPEN_S = 10.0
BROKEN = UpstreamBroken("broke off")
REFUSED = UpstreamUnavailable("refused")


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("http://vllm.test/v1/", 3, OPEN_S, clock)


def fail(breaker: Breaker, times: int, failure: UpstreamFailure | None = BROKEN) -> None:
    for _ in range(times):
        breaker.asked()
        breaker.failed(failure)


def state() -> float | None:
    labels = {"server": "http://vllm.test/v1/"}
    return REGISTRY.get_sample_value("groundserve_upstream_breaker_state", labels)


def opened(breaker: Breaker, clock: Clock) -> None:
    """Open it, and let its time go by."""
    fail(breaker, 3)
    clock.now += 1.25 * OPEN_S


@pytest.mark.parametrize(
    "failure",
    [
        BROKEN,
        REFUSED,
        UpstreamUnavailable("not ready", is_connected=True),
        UpstreamRejected("died", 500),
        UpstreamRejected("gateway", 504),
        None,
    ],
)
def test_failures_in_a_row_open_it(breaker: Breaker, failure: UpstreamFailure | None) -> None:
    fail(breaker, 2, failure)
    assert (breaker.may_be_asked, state()) == (True, 0)

    fail(breaker, 1, failure)
    assert (breaker.may_be_asked, state()) == (False, 2)
    assert "3 times in a row" in breaker.trouble


@pytest.mark.parametrize("status", [400, 404, 422, 429, 501])
def test_what_a_server_says_about_a_request_is_no_failure(breaker: Breaker, status: int) -> None:
    fail(breaker, 2)
    fail(breaker, 1, UpstreamRejected("no", status))
    fail(breaker, 2)

    assert breaker.may_be_asked


def test_an_answer_in_between_begins_the_row_anew(breaker: Breaker) -> None:
    for _ in range(5):
        fail(breaker, 2)
        breaker.asked()
        breaker.answers()
        breaker.succeeded()

    assert breaker.may_be_asked


def test_answers_that_begin_and_then_break_off_are_a_row(breaker: Breaker) -> None:
    for _ in range(3):
        breaker.asked()
        breaker.answers()
        breaker.failed(BROKEN)

    assert not breaker.may_be_asked


def test_it_stays_open_for_about_as_long_as_it_should(clock: Clock) -> None:
    waits = set()
    for _ in range(50):
        breaker = Breaker("http://vllm.test/v1/", 1, OPEN_S, clock)
        fail(breaker, 1)
        waits.add(round(breaker.waits_s, 3))

    assert 0.75 * OPEN_S <= min(waits) < max(waits) <= 1.25 * OPEN_S
    assert len(waits) > 40, "several gateways must not come back at the same moment"


def test_then_one_request_tries_it(breaker: Breaker, clock: Clock) -> None:
    opened(breaker, clock)
    assert (breaker.may_be_asked, state()) == (True, 2)
    breaker.asked()

    assert (breaker.may_be_asked, state()) == (False, 1)


def test_which_closes_it_when_its_answer_begins(breaker: Breaker, clock: Clock) -> None:
    opened(breaker, clock)
    breaker.asked()
    breaker.answers()

    assert (breaker.may_be_asked, state(), breaker.trouble) == (True, 0, "")
    fail(breaker, 1)
    assert (breaker.may_be_asked, state()) == (False, 2), "it had not come to its end"


def test_which_opens_it_again_when_it_fails(breaker: Breaker, clock: Clock) -> None:
    opened(breaker, clock)
    fail(breaker, 1)

    assert not breaker.may_be_asked
    assert breaker.waits_s >= 0.75 * OPEN_S


def test_which_leaves_it_to_another_when_its_client_goes(breaker: Breaker, clock: Clock) -> None:
    opened(breaker, clock)
    breaker.asked()
    breaker.given_up()

    assert breaker.may_be_asked
    assert state() == 1


def test_which_is_not_waited_for_for_ever(breaker: Breaker, clock: Clock) -> None:
    opened(breaker, clock)
    breaker.asked()
    clock.now += OPEN_S

    assert breaker.may_be_asked


def test_that_it_lists_its_models_proves_that_it_can_be_reached(breaker: Breaker) -> None:
    fail(breaker, 3, REFUSED)
    breaker.was_reached()
    assert breaker.may_be_asked


@pytest.mark.parametrize("others", [[BROKEN] * 3, [REFUSED, REFUSED, BROKEN]])
def test_and_proves_nothing_else(breaker: Breaker, others: list[UpstreamFailure]) -> None:
    for failure in others:
        fail(breaker, 1, failure)
    breaker.was_reached()

    assert not breaker.may_be_asked


def test_what_began_before_it_opened_decides_nothing(breaker: Breaker) -> None:
    fail(breaker, 3)
    waits_s = breaker.waits_s
    breaker.answers()
    breaker.succeeded()
    breaker.failed(BROKEN)

    assert breaker.waits_s == waits_s


def test_changes_are_logged_and_nothing_else(
    breaker: Breaker, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "gateway.breaker"):
        opened(breaker, clock)
        breaker.asked()
        breaker.answers()
        breaker.succeeded()
        breaker.succeeded()

    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "INFO"]
    assert "broke off" in caplog.messages[0]


def test_of_several_servers_each_has_its_own_and_all_reasons_are_told() -> None:
    breakers = Breakers(1, OPEN_S)
    one, two = FakeUpstream(), FakeUpstream()
    one.url, two.url = "http://one/", "http://two/"
    fail(breakers.of(one), 1)

    assert breakers.of(two).may_be_asked
    fail(breakers.of(two), 1, REFUSED)
    refusal = breakers.refusal([one, two])
    assert str(refusal) == (
        "the model server failed 1 times in a row: broke off; "
        "the model server failed 1 times in a row: refused"
    )
    assert refusal.retry_after_s == pytest.approx(
        min(breakers.of(one).waits_s, breakers.of(two).waits_s), abs=0.1
    )


def fail_of(tenant: str, breaker: Breaker, times: int) -> None:
    with acting_as(Caller(name="k", tenant=tenant)):
        fail(breaker, times, UpstreamRejected("died", 500))


def test_what_one_tenant_makes_fail_closes_it_to_nobody_where_others_ask(
    breaker: Breaker,
) -> None:
    with acting_as(Caller(name="k", tenant="b")):
        breaker.asked()
        breaker.succeeded()
    fail_of("a", breaker, 10)
    assert breaker.may_be_asked

    fail_of("b", breaker, 1)
    assert not breaker.may_be_asked, "now it fails for everybody"


def test_a_tenant_that_is_alone_closes_it_until_another_has_asked(
    breaker: Breaker, clock: Clock
) -> None:
    with acting_as(Caller(name="k", tenant="b")):
        breaker.asked()
        breaker.succeeded()
    clock.now += RECENT_S + 1
    fail_of("a", breaker, 3)
    assert not breaker.may_be_asked
    with acting_as(Caller(name="k", tenant="b")):
        breaker.wanted()
    clock.now += 1.25 * OPEN_S
    fail_of("a", breaker, 1)

    assert breaker.may_be_asked, "its probe leaves it to the next one"


def test_a_server_that_cannot_be_reached_is_away_for_all(breaker: Breaker) -> None:
    with acting_as(Caller(name="k", tenant="b")):
        breaker.asked()
        breaker.succeeded()
    with acting_as(Caller(name="k", tenant="a")):
        fail(breaker, 3, REFUSED)

    assert not breaker.may_be_asked
