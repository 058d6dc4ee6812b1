"""When a request is over: one deadline, of which each of its steps has what the others left.

A step that is waited for in the middle of a request takes no more than its own time limit and what
is left; `within` tells how much that is. Whatever it was at, the request ends with its deadline.
"""

import asyncio
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from gateway.errors import DeadlineExceeded, GatewayFailure, InvalidRequest

HEADER = "x-groundserve-timeout"
"""What a client says it has: seconds for the whole answer, a stream's too."""
_HEADER = HEADER.encode()
_SDK = b"x-stainless-read-timeout"
"""OpenAI's SDK says in it how long it waits for the next byte."""
_AHEAD_S = 1.0
_AHEAD_SHARE = 0.1
"""How much earlier than such a client gives up it is told why: this long, and no larger share."""


class Ended(Protocol):
    """What is ended when its time is over."""

    has_begun: bool
    """Whether the answer, or its head, is on its way to the client."""

    def end(self, failure: GatewayFailure) -> None:
        """End it, and tell the client why."""


class Deadline:
    """On the loop's clock, in seconds."""

    __slots__ = ("_timer", "begins_by", "ends_by", "is_clients", "stage", "started")

    def __init__(
        self, started: float, begins_by: float, ends_by: float, *, is_clients: bool
    ) -> None:
        self.started = started
        self.is_clients = is_clients
        """Whether the client gives up sooner than the gateway would."""
        self.begins_by = begins_by
        """A whole answer must be there then, or the first byte of a stream."""
        self.ends_by = ends_by
        """The last byte of a stream."""
        self.stage = "admit"
        """What the request is at."""
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, answer: Ended) -> None:
        """End `answer` when its time is over: one timer, and another for what began in time."""
        loop = asyncio.get_running_loop()
        when = min(self.begins_by, self.ends_by)
        self._timer = loop.call_at(when, self._look, answer, loop)

    def forget(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, answer: Ended, loop: asyncio.AbstractEventLoop) -> None:
        when = self.ends_by if answer.has_begun else self.begins_by
        if loop.time() < when:
            self._timer = loop.call_at(when, self._look, answer, loop)
        else:
            answer.end(self._exceeded())

    def _exceeded(self) -> DeadlineExceeded:
        took_s = asyncio.get_running_loop().time() - self.started
        return DeadlineExceeded(
            f"The time for this request was over after {took_s:.1f} s, at the stage "
            f"{self.stage!r}. Try again later, ask for less, or wait for longer.",
            self.stage,
        )


_DEADLINE: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


class Deadlines:
    """Gives each request its deadline."""

    def __init__(self, request_timeout_s: float, stream_timeout_s: float) -> None:
        """The most that any request gets, until its answer begins, and in all if it is a stream."""
        self._begin_s = request_timeout_s
        self._end_s = stream_timeout_s

    def of(self, headers: Iterable[tuple[bytes, bytes]]) -> Deadline:
        """The deadline of a request that came just now. Raises InvalidRequest."""
        begin_s, end_s = self._begin_s, self._end_s
        is_clients = False
        for name, value in headers:
            if name == _SDK:
                patience_s = _patience_s(value)
                is_clients |= patience_s < self._begin_s
                begin_s = min(begin_s, _before(patience_s))
            elif name == _HEADER:
                asked_s = _seconds(value)
                if not 0 < asked_s < math.inf:
                    raise InvalidRequest(
                        f"Invalid value for {HEADER!r}: it is no number of seconds above 0.", HEADER
                    )
                is_clients |= asked_s < self._begin_s
                begin_s, end_s = min(begin_s, asked_s), min(end_s, asked_s)
        now = asyncio.get_running_loop().time()
        return Deadline(now, now + begin_s, now + end_s, is_clients=is_clients)


@contextmanager
def ending_by(deadline: Deadline, answer: Ended) -> Iterator[None]:
    """End `answer` when `deadline` is over, which is that of all that is done in this block."""
    deadline.watch(answer)
    token = _DEADLINE.set(deadline)
    try:
        yield
    finally:
        _DEADLINE.reset(token)
        deadline.forget()


def entered(stage: str) -> None:
    """Say what the request is at, for who is told that its time is over."""
    if (ours := _DEADLINE.get()) is not None:
        ours.stage = stage


def left_s() -> float:
    """Seconds that are left until the answer must begin; infinite outside of a request."""
    if (ours := _DEADLINE.get()) is None:
        return math.inf
    return max(0.0, ours.begins_by - asyncio.get_running_loop().time())


def had_its_time() -> bool:
    """Whether the request was waited for as long as the gateway itself waits.

    That a client gives up sooner says nothing about who is waited for.
    """
    ours = _DEADLINE.get()
    return ours is not None and not ours.is_clients and left_s() <= 0


def within(own_s: float, share: float = 1.0) -> float:
    """Seconds that a step with a time limit of its own may take: at most `share` of what is left.

    A step that a request can do without leaves the rest to those that it cannot.
    """
    return min(own_s, left_s() * share)


def _patience_s(said: bytes) -> float:
    """How long a client waits; infinite for what makes no sense."""
    patience_s = _seconds(said)
    return patience_s if 0 < patience_s < math.inf else math.inf


def _before(patience_s: float) -> float:
    """What a client that waits so long is to be answered within."""
    return patience_s - min(_AHEAD_S, patience_s * _AHEAD_SHARE)


def _seconds(said: bytes) -> float:
    try:
        return float(said)
    except ValueError:
        return math.nan
