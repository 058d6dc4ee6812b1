"""How long each step of an answer takes: for the client, as a histogram, and as trace spans.

Spans go wherever OpenTelemetry's own configuration sends them; without any they cost nothing.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from prometheus_client import Histogram

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

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Count the time of the block to the step `name`."""
        started = time.perf_counter()
        self.seconds.setdefault(name, 0.0)
        try:
            with _TRACER.start_as_current_span(name):
                yield
        finally:
            took = time.perf_counter() - started
            self.seconds[name] += took
            SECONDS.labels(name).observe(took)
