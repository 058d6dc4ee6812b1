"""How long a request may take, and who says so."""

import asyncio
import math

import pytest

from gateway.deadline import (
    Deadline,
    Deadlines,
    ending_by,
    entered,
    had_its_time,
    left_s,
    within,
)
from gateway.errors import DeadlineExceeded, GatewayFailure, InvalidRequest
from gateway.stages import Stages
from tests.unit.conftest import LoopClock

pytestmark = pytest.mark.anyio

OURS = b"x-groundserve-timeout"
SDK = b"x-stainless-read-timeout"


class Answer:
    """Remembers how it was ended."""

    def __init__(self, *, has_begun: bool = False) -> None:
        self.has_begun = has_begun
        self.ended_by: GatewayFailure | None = None

    def end(self, failure: GatewayFailure) -> None:
        self.ended_by = failure


def seconds(deadline: Deadline) -> tuple[float, float]:
    """Until the answer must begin, and until it must have ended."""
    begins, ends = deadline.begins_by - deadline.started, deadline.ends_by - deadline.started
    return round(begins, 3), round(ends, 3)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], (600, 3600)),
        ([(b"accept", b"*/*")], (600, 3600)),
        ([(OURS, b"30")], (30, 30)),
        ([(OURS, b"0.5")], (0.5, 0.5)),
        ([(OURS, b"1000")], (600, 1000)),
        ([(OURS, b"100000")], (600, 3600)),
        ([(SDK, b"600")], (599, 3600)),
        ([(SDK, b"600.0")], (599, 3600)),
        ([(SDK, b"20")], (19, 3600)),
        ([(SDK, b"5")], (4.5, 3600)),
        ([(SDK, b"5"), (OURS, b"30")], (4.5, 30)),
        ([(SDK, b"7200")], (600, 3600)),
        ([(SDK, b"None")], (600, 3600)),
        ([(SDK, b"-1")], (600, 3600)),
        ([(SDK, b"nan")], (600, 3600)),
    ],
)
async def test_the_least_of_what_gateway_and_client_say_counts(
    headers: list[tuple[bytes, bytes]], expected: tuple[float, float]
) -> None:
    assert seconds(Deadlines(600, 3600).of(headers)) == expected


@pytest.mark.parametrize(
    ("headers", "is_its_time"),
    [
        ([], True),
        ([(OURS, b"700")], True),
        ([(SDK, b"100")], True),
        ([(SDK, b"90")], False),
        ([(OURS, b"50")], False),
        ([(SDK, b"900"), (OURS, b"50")], False),
    ],
)
async def test_a_client_that_gives_up_sooner_is_told_from_a_server_that_is_late(
    headers: list[tuple[bytes, bytes]], is_its_time: bool, loop_clock: LoopClock
) -> None:
    assert not had_its_time()
    with ending_by(Deadlines(100, 3600).of(headers), Answer()):
        assert not had_its_time()
        loop_clock.ahead_s += 100
        assert left_s() == 0
        assert had_its_time() is is_its_time


@pytest.mark.parametrize("said", [b"", b"0", b"-3", b"soon", b"inf", b"nan", b"\xff", b"1e999"])
async def test_a_header_of_ours_that_makes_no_sense_is_refused(said: bytes) -> None:
    with pytest.raises(InvalidRequest, match="no number of seconds") as refused:
        Deadlines(600, 3600).of([(OURS, said)])
    assert refused.value.param == OURS.decode()


async def test_what_has_not_begun_is_ended_and_told_what_it_was_at() -> None:
    answer = Answer()
    with ending_by(Deadlines(0.05, 3600).of([]), answer), Stages().measure("search"):
        await asyncio.sleep(0.1)

    assert isinstance(answer.ended_by, DeadlineExceeded)
    assert answer.ended_by.stage == "search"
    assert "'search'" in str(answer.ended_by)


async def test_what_has_begun_goes_on_until_its_end_is_due() -> None:
    early, due = Answer(has_begun=True), Answer(has_begun=True)
    with ending_by(Deadlines(0.05, 3600).of([]), early):
        await asyncio.sleep(0.1)
    with ending_by(Deadlines(0.05, 0.1).of([]), due):
        await asyncio.sleep(0.15)

    assert early.ended_by is None
    assert due.ended_by is not None


async def test_a_stream_that_may_take_less_than_a_whole_answer_is_ended_as_well() -> None:
    stream, whole = Answer(has_begun=True), Answer()
    with ending_by(Deadlines(600, 0.05).of([]), stream):
        await asyncio.sleep(0.1)
    with ending_by(Deadlines(600, 0.05).of([]), whole):
        await asyncio.sleep(0.1)

    assert stream.ended_by is not None
    assert whole.ended_by is None


async def test_what_is_answered_in_time_is_left_alone() -> None:
    answer = Answer()
    with ending_by(Deadlines(0.05, 0.05).of([]), answer):
        pass
    await asyncio.sleep(0.1)

    assert answer.ended_by is None


async def test_a_step_gets_its_own_limit_or_what_is_left() -> None:
    with ending_by(Deadlines(8000, 36000).of([]), Answer()):
        assert 7900 < left_s() <= 8000
        assert within(5) == 5
        assert 7900 < within(30000) <= 8000
        assert 1900 < within(5000, share=0.25) <= 2000
    assert left_s() == math.inf
    assert within(5, share=0.25) == 5


async def test_nothing_is_left_when_it_is_over() -> None:
    with ending_by(Deadlines(0.01, 3600).of([]), Answer()):
        await asyncio.sleep(0.05)
        assert left_s() == 0
        assert within(5) == 0


async def test_the_tasks_of_a_request_have_its_deadline_and_other_requests_theirs() -> None:
    async def left() -> float:
        await asyncio.sleep(0)
        return left_s()

    async def request(begin_s: float) -> float:
        with ending_by(Deadlines(begin_s, 3600).of([]), Answer()):
            return await asyncio.create_task(left())

    few, many = await asyncio.gather(request(500), request(3000))
    assert 400 < few <= 500
    assert 2900 < many <= 3000


def test_a_stage_outside_of_a_request_is_nobodys() -> None:
    entered("search")
    with Stages().measure("search"):
        pass
