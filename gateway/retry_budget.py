"""How many requests may be sent once more: retries must not double the load of a server in trouble.

After Finagle's RetryBudget, whose defaults these are: a fifth more than was asked for over the last
ten seconds, and a few more so that a quiet gateway may try again as well.
https://twitter.github.io/finagle/guide/Clients.html#retry-budget
"""

import time
from collections.abc import Callable

from prometheus_client import Counter

SHARE = 0.2
"""Retries for each request."""
WINDOW_S = 10.0
FLOOR = 10
"""Retries in each window that need no requests."""

RETRIES = Counter(
    "groundserve_upstream_retries",
    "Requests that were sent to an upstream once more, or were not for want of a budget.",
    ["upstream", "outcome"],
)


class RetryBudget:
    """The requests and retries of a window, which slides by halves of it."""

    def __init__(self, upstream: str, now: Callable[[], float] = time.monotonic) -> None:
        """`upstream` names what is asked, for the metric."""
        self._now = now
        self._requests = self._earlier_requests = 0
        self._retries = self._earlier_retries = 0
        self._half_ends = now() + WINDOW_S / 2
        self._spent, self._refused = (
            RETRIES.labels(upstream, outcome) for outcome in ("sent", "refused")
        )

    def deposit(self) -> None:
        """A request is made for the first time."""
        if self._now() >= self._half_ends:
            self._slide()
        self._requests += 1

    def withdraw(self) -> bool:
        """Whether a request may be made once more; it counts from then on."""
        if self._now() >= self._half_ends:
            self._slide()
        retries = self._retries + self._earlier_retries
        if retries + 1 > FLOOR + SHARE * (self._requests + self._earlier_requests):
            self._refused.inc()
            return False
        self._retries += 1
        self._spent.inc()
        return True

    def _slide(self) -> None:
        now = self._now()
        is_next = now < self._half_ends + WINDOW_S / 2
        self._earlier_requests = self._requests if is_next else 0
        self._earlier_retries = self._retries if is_next else 0
        self._requests = self._retries = 0
        self._half_ends = now + WINDOW_S / 2
