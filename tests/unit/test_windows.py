"""The moving window: what fits into a minute, for how long it counts, and what is given back."""

from fractions import Fraction

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.access.windows import NEVER, WINDOW_S, Window

# Milliseconds between two requests, and what each asks for.
Steps = list[tuple[int, int]]
STEPS = st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 12)), max_size=60)


def most_in_any_window(charged: list[tuple[Fraction, int]]) -> int:
    """The oracle: of every span that begins with a charge, the sum of what it holds."""
    return max(
        (
            sum(amount for at, amount in charged if start <= at < start + WINDOW_S)
            for start, _ in charged
        ),
        default=0,
    )


@given(steps=STEPS, limit=st.integers(1, 30))
@example(steps=[(59_999, 10), (1, 10), (59_998, 10), (1, 10)], limit=10)
def test_no_minute_holds_more_than_the_limit_wherever_it_begins(steps: Steps, limit: int) -> None:
    window, now, charged = Window(), Fraction(1000), []
    for milliseconds, amount in steps:
        now += Fraction(milliseconds, 1000)
        if window.wait_s(float(now), limit, amount) == 0:
            window.charge(float(now), amount)
            charged.append((now, amount))

    assert most_in_any_window(charged) <= limit


@given(steps=STEPS, limit=st.integers(1, 30), wanted=st.integers(1, 30))
def test_who_waits_as_long_as_told_is_let_in_and_not_much_sooner(
    steps: Steps, limit: int, wanted: int
) -> None:
    window, now = Window(), 1000.0
    for milliseconds, amount in steps:
        now += milliseconds / 1000
        if window.wait_s(now, limit, amount) == 0:
            window.charge(now, amount)
    wait_s = window.wait_s(now, limit, wanted)

    if wanted > limit:
        assert wait_s == NEVER
        return
    assert wait_s <= WINDOW_S + 1
    if wait_s > 1e-6:
        assert window.wait_s(now + wait_s - 1e-6, limit, wanted) > 0
    assert window.wait_s(now + wait_s + 1e-6, limit, wanted) == 0


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 20_000), st.integers(1, 12), st.integers(-12, 12)), max_size=60
    ),
    limit=st.integers(1, 30),
)
def test_what_is_settled_later_never_lets_in_more(
    steps: list[tuple[int, int, int]], limit: int
) -> None:
    """Each request is settled when the next one comes: it used less, or more than was charged."""
    window, now = Window(), Fraction(1000)
    used: list[tuple[Fraction, int]] = []
    before: tuple[Fraction, int, int] | None = None
    for milliseconds, amount, difference in steps:
        now += Fraction(milliseconds, 1000)
        if before is not None:
            at, charged, more = before
            if more < 0:
                less = min(-more, charged)
                window.give_back(float(now), int(at), less)
                used[-1] = (at, charged - less)
            else:
                window.charge(float(now), more)
                used.append((now, more))
            before = None
        if window.wait_s(float(now), limit, amount) == 0:
            window.charge(float(now), amount)
            used.append((now, amount))
            before = (now, amount, difference)
            held = sum(each for at, each in used if at > now - WINDOW_S)
            assert held <= limit


def test_the_standing_tells_what_is_left_and_when_all_of_it_is_there_again() -> None:
    window = Window()
    assert window.standing(1000.5, 10) == (10, 0.0)

    window.charge(1000.5, 3)
    window.charge(1002.0, 4)

    assert window.standing(1002.0, 10) == (3, 61.0)
    assert window.standing(1061.0, 10) == (6, 2.0)
    assert window.standing(1063.0, 10) == (10, 0.0)


def test_what_used_more_than_the_limit_leaves_nothing_and_no_less() -> None:
    window = Window()
    window.charge(1000.0, 25)

    assert window.standing(1000.0, 10) == (0, 61.0)
    assert window.wait_s(1000.0, 10, 1) == 61.0


def test_nothing_is_given_back_that_counts_no_more_or_was_never_charged() -> None:
    window = Window()
    window.charge(1000.0, 5)
    window.charge(1001.0, 5)

    window.give_back(1001.0, 999, 5)
    window.give_back(1001.0, 1002, 5)
    assert window.standing(1001.0, 10) == (0, 61.0)
    window.give_back(1001.0, 1000, 50)
    assert window.standing(1001.0, 10)[0] == 5
    window.give_back(1070.0, 1001, 5)
    assert window.standing(1070.0, 10) == (10, 0.0)


def test_memory_does_not_grow_with_what_is_counted() -> None:
    window = Window()
    for at in range(100_000):
        window.charge(at / 100, 1000)

    assert len(window._charged) == WINDOW_S + 1
