"""How long each step of an answer takes: for the client, as a histogram, and as trace spans.

Spans go wherever OpenTelemetry's own configuration sends them; without any they cost nothing.
"""

import time
from contextlib import AbstractContextManager
from functools import cache
from types import TracebackType

from opentelemetry import trace
from prometheus_client import Histogram

from gateway.deadline import entered

SECONDS = Histogram(
    "groundserve_stage_seconds",
    "Seconds that a stage of an answer took before the model was asked.",
    ["stage"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
_TRACER = trace.get_tracer("groundserve.gateway")


class Stages:
    """Seconds by the name of the step, in the order in which the steps were begun."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def milliseconds(self) -> dict[str, float]:
        """The same, in milliseconds to two places."""
        return {name: round(seconds * 1000, 2) for name, seconds in self.seconds.items()}

    def measure(self, name: str) -> "_Measured":
        """Count the time of a `with` block to the step `name`."""
        self.seconds.setdefault(name, 0.0)
        return _Measured(self.seconds, name)


class _Measured:
    """The time of a block."""

    def __init__(self, seconds: dict[str, float], name: str) -> None:
        self._seconds = seconds
        self._name = name
        self._started = 0.0
        self._span: AbstractContextManager[object] | None = None

    def __enter__(self) -> None:
        entered(self._name)
        if _is_traced():
            self._span = _TRACER.start_as_current_span(self._name)
            self._span.__enter__()
        self._started = time.perf_counter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        took = time.perf_counter() - self._started
        self._seconds[self._name] += took
        _observed(self._name).observe(took)
        if self._span is not None:
            self._span.__exit__(kind, failure, traceback)


@cache
def _observed(name: str) -> Histogram:
    return SECONDS.labels(name)


def _is_traced() -> bool:
    """Whether OpenTelemetry was configured: a span that nobody gets costs 20 µs all the same."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
