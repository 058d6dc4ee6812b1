"""How long each step of an answer takes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


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
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started
