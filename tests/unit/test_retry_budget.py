"""How many requests are sent once more."""

import pytest
from prometheus_client import REGISTRY

from gateway.retry_budget import FLOOR, WINDOW_S, RetryBudget
from tests.unit.conftest import Clock


@pytest.fixture
def budget(clock: Clock) -> RetryBudget:
    return RetryBudget("test", clock)


def ask(budget: RetryBudget, times: int) -> None:
    for _ in range(times):
        budget.deposit()


def granted(budget: RetryBudget, wanted: int = 10_000) -> int:
    return sum(budget.withdraw() for _ in range(wanted))


def counted(outcome: str) -> float:
    labels = {"upstream": "test", "outcome": outcome}
    return REGISTRY.get_sample_value("groundserve_upstream_retries_total", labels) or 0


def test_a_quiet_gateway_may_try_a_few_times(budget: RetryBudget) -> None:
    assert granted(budget) == FLOOR


def test_a_busy_one_a_fifth_more_than_it_was_asked(budget: RetryBudget) -> None:
    ask(budget, 1000)
    assert granted(budget) == FLOOR + 200


def test_retries_are_no_requests_that_allow_more(budget: RetryBudget) -> None:
    ask(budget, 100)
    assert granted(budget) == FLOOR + 20
    assert granted(budget) == 0
    ask(budget, 10)
    assert granted(budget) == 2


@pytest.mark.parametrize("seconds", [WINDOW_S / 2, WINDOW_S * 0.99])
def test_what_was_asked_a_moment_ago_counts(
    budget: RetryBudget, clock: Clock, seconds: float
) -> None:
    ask(budget, 100)
    clock.now += seconds
    assert granted(budget) == FLOOR + 20


def test_what_was_asked_long_ago_does_not(budget: RetryBudget, clock: Clock) -> None:
    ask(budget, 100)
    clock.now += 1.5 * WINDOW_S
    assert granted(budget) == FLOOR


def test_what_was_spent_is_there_again_after_a_while(budget: RetryBudget, clock: Clock) -> None:
    assert granted(budget) == FLOOR
    clock.now += WINDOW_S / 2
    assert granted(budget) == 0
    clock.now += WINDOW_S / 2
    assert granted(budget) == FLOOR


def test_over_any_window_it_holds(budget: RetryBudget, clock: Clock) -> None:
    """With a request and five wishes each tenth of a second, over ten minutes."""
    spent: list[float] = []
    for _ in range(6000):
        clock.now += 0.1
        ask(budget, 1)
        spent += [clock.now] * granted(budget, 5)

    for start in range(100, 700, 7):
        within = [each for each in spent if start <= each < start + WINDOW_S]
        assert len(within) <= 2 * (FLOOR + 0.2 * WINDOW_S * 10)
    assert len(spent) <= 6000 * 0.2 + FLOOR * 600 / WINDOW_S * 2


def test_both_outcomes_are_counted(budget: RetryBudget) -> None:
    sent, refused = counted("sent"), counted("refused")
    granted(budget, FLOOR + 3)

    assert counted("sent") - sent == FLOOR
    assert counted("refused") - refused == 3
