"""Servers that fail at each request are left alone for a while: a circuit breaker for each.

Our own, since of purgatory, aiobreaker, pybreaker and circuitbreaker none lets a single request
through when the time is over, none spreads that time, and each takes a request that was given up,
because its client left, for a success or for a failure.

A request can make a healthy server fail: by what is in it, or by how long its answer takes. So
where several tenants ask, a row of failures of one of them closes the server to nobody.
"""

import logging
import random
import time
from collections.abc import Callable, Sequence

from prometheus_client import Gauge

from gateway.access.callers import tenant_or_nobody
from gateway.errors import UpstreamRejected, UpstreamUnavailable
from gateway.upstream import Upstream

STATE = Gauge(
    "groundserve_upstream_breaker_state",
    "Whether an upstream server is asked: 0 it is, 1 one request tries it, 2 it is not.",
    ["server"],
    multiprocess_mode="livemax",
)
CLOSED, HALF_OPEN, OPEN = range(3)
_NOT_IMPLEMENTED = 501
RECENT_S = 60.0
"""For how long a tenant that asked is one of those that ask."""

_log = logging.getLogger(__name__)


class Breaker:
    """Whether one server is asked."""

    def __init__(
        self,
        server: str,
        most_failures: int,
        open_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """After `most_failures` in a row it is not asked for about `open_s`."""
        self._server = server
        self._most_failures = most_failures
        self._open_s = open_s
        self._now = now
        self._failures = 0
        """In a row."""
        self._is_unreachable = True
        """Whether no connection came about in any of them."""
        self._failing: set[str] = set()
        """Whose requests they were."""
        self._seen: dict[str, float] = {}
        """When each tenant asked last."""
        self._state = CLOSED
        self._waits_until = 0.0
        """Nobody asks an open one before, and nobody else a half-open one."""
        self._reason = ""
        self._gauge = STATE.labels(server)
        self._gauge.set(CLOSED)

    @property
    def may_be_asked(self) -> bool:
        """Whether a request would be let through now."""
        return self._state == CLOSED or self._now() >= self._waits_until

    @property
    def trouble(self) -> str:
        """Why it is not asked; empty where it is."""
        if self._state == CLOSED:
            return ""
        return f"{self._server} {self.failures}"

    @property
    def failures(self) -> str:
        """What there was of them, for who need not know the server's name."""
        return f"failed {self._failures} times in a row: {self._reason}"

    @property
    def waits_s(self) -> float:
        """Seconds until it may be asked."""
        return 0.0 if self._state == CLOSED else max(0.0, self._waits_until - self._now())

    def asked(self) -> None:
        """A request goes to the server, which may be asked; how it ends is told here.

        Where the time of an open one is over, the request is the probe: others wait for its end,
        though not for longer than the server is left alone otherwise.
        """
        self.wanted()
        if self._state != CLOSED:
            self._become(HALF_OPEN)
            self._waits_until = self._now() + self._open_s

    def wanted(self) -> None:
        """The caller would ask the server, whether it may or not."""
        self._seen[tenant_or_nobody()] = self._now()

    def answers(self) -> None:
        """The first of an answer came: a probe needs no more, but the next failure counts."""
        if self._state == HALF_OPEN:
            self._become(CLOSED)
            self._failures = self._most_failures - 1

    def succeeded(self) -> None:
        """An answer came to its end. One that began before the trouble tells nothing about it."""
        if self._failures and self._state != OPEN:
            self._reset()

    def failed(self, failure: Exception | None = None) -> None:
        """A request failed; None: it was waited for until its time was over.

        What a server says about the request itself is no failure of the server.
        """
        if isinstance(failure, UpstreamRejected) and not _is_servers(failure):
            self.succeeded()
            return
        if self._state == OPEN:
            return
        unconnected = isinstance(failure, UpstreamUnavailable) and not failure.is_connected
        self._is_unreachable = self._is_unreachable and unconnected
        self._failures += 1
        self._failing.add(tenant_or_nobody())
        self._reason = str(failure or "it did not answer in time")
        if self._may_be_of_a_tenant():
            self.given_up()
        elif self._state == HALF_OPEN or self._failures >= self._most_failures:
            # Spread, so that several gateways do not come back at the same moment.
            self._waits_until = self._now() + self._open_s * random.uniform(0.75, 1.25)  # nosec B311
            self._become(OPEN)

    def given_up(self) -> None:
        """A request was given up before anything came: that says nothing about the server."""
        if self._state == HALF_OPEN:
            self._waits_until = self._now()

    def was_reached(self) -> None:
        """The server tells what it serves: proof that it can be reached, and of nothing else."""
        if self._failures and self._is_unreachable:
            self._reset()

    def _may_be_of_a_tenant(self) -> bool:
        """Whether nothing failed but what one tenant asked, and others ask as well."""
        recent = self._now() - RECENT_S
        others = (tenant for tenant, at in self._seen.items() if at >= recent)
        return (
            not self._is_unreachable
            and len(self._failing) == 1
            and any(tenant not in self._failing for tenant in others)
        )

    def _reset(self) -> None:
        self._failures = 0
        self._failing.clear()
        self._is_unreachable = True
        self._become(CLOSED)

    def _become(self, state: int) -> None:
        if state == self._state:
            return
        self._state = state
        self._gauge.set(state)
        if state == OPEN:
            _log.warning("not asked for %.1f s: %s", self.waits_s, self.trouble)
        else:
            words = "is tried by one request" if state == HALF_OPEN else "is asked again"
            _log.info("%s %s", self._server, words)


class Breakers:
    """The breaker of each server."""

    def __init__(self, most_failures: int = 5, open_s: float = 10.0) -> None:
        """After `most_failures` in a row a server is not asked for about `open_s`."""
        self._most_failures = most_failures
        self._open_s = open_s
        self._of: dict[Upstream, Breaker] = {}

    def of(self, server: Upstream) -> Breaker:
        """The one of `server`, always the same."""
        if (breaker := self._of.get(server)) is None:
            breaker = Breaker(server.name, self._most_failures, self._open_s)
            self._of[server] = breaker
        return breaker

    def refusal(self, servers: Sequence[Upstream]) -> UpstreamUnavailable:
        """What to raise where none of `servers` may be asked."""
        breakers = [self.of(server) for server in servers]
        for breaker in breakers:
            breaker.wanted()
        return UpstreamUnavailable(
            "; ".join(dict.fromkeys(f"the model server {each.failures}" for each in breakers)),
            retry_after_s=min(breaker.waits_s for breaker in breakers),
        )


def _is_servers(failure: UpstreamRejected) -> bool:
    return failure.status >= 500 and failure.status != _NOT_IMPLEMENTED
