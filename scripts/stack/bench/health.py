"""How soon the gateway says that it is well while it embeds: its probes must not wait for its work.

Many clients ask for embeddings of long inputs, one request after the other; beside them each
health check is asked over a connection of its own, again and again, as an orchestrator does it.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Sequence

import msgspec
import uvloop

from stack import report
from stack.bench import sides, stage
from stack.bench.connection import Connection, post
from stack.models import minilm
from stack.servers import HOST

CHECKS = ("/health/live", "/health/ready")
BETWEEN_S = 0.05
"""Between the end of a check and the next one."""
WARM_UP_S = 2.0
MOST_MS = 100.0
"""Of a check's p99."""
LONG_CHARS = 2_000
"""Of an input: more than the embedding model reads of it."""
PATIENCE_S = 60.0


class Answers(msgspec.Struct):
    """What came of one kind of request. Times in milliseconds, until the end of the answer."""

    took_ms: list[float] = []
    statuses: dict[int, int] = {}

    def add(self, status: int, took_s: float) -> None:
        """One more; status 0: the connection was lost."""
        self.took_ms.append(took_s * 1000)
        self.statuses[status] = self.statuses.get(status, 0) + 1

    @property
    def p99(self) -> float:
        """99 of 100 answers came within it."""
        return statistics.quantiles(self.took_ms, n=100, method="inclusive")[98]

    def line(self, name: str) -> str:
        """All of it, to be read."""
        counts = ", ".join(f"{count} with {status}" for status, count in self.statuses.items())
        p50 = statistics.median(self.took_ms)
        most = max(self.took_ms)
        return f"{name}: p50 {p50:.1f} ms, p99 {self.p99:.1f} ms, at most {most:.1f} ms ({counts})"


async def measured(
    port: int, inputs: Sequence[str], seconds: float
) -> tuple[dict[str, Answers], Answers]:
    """The checks of the gateway at `port`, and the embeddings that it made meanwhile.

    One client asks for each of `inputs`.
    """
    checks = {path: Answers() for path in CHECKS}
    embeddings = Answers()
    model = minilm().name
    bodies = [msgspec.json.encode({"model": model, "input": text}) for text in inputs]
    load = [asyncio.create_task(_embed(port, body, embeddings)) for body in bodies]
    await asyncio.sleep(WARM_UP_S)
    ends = time.monotonic() + seconds
    await asyncio.gather(*(_check(port, path, ends, each) for path, each in checks.items()))
    for task in load:
        task.cancel()
    await asyncio.wait(load)
    for task in load:
        if not task.cancelled():
            task.result()
    return checks, embeddings


async def _embed(port: int, body: bytes, answers: Answers) -> None:
    request = post("/v1/embeddings", body)
    while True:
        answers.add(*await _asked(port, request))


async def _check(port: int, path: str, ends: float, answers: Answers) -> None:
    request = f"GET {path} HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode()
    while time.monotonic() < ends:
        answers.add(*await _asked(port, request))
        await asyncio.sleep(BETWEEN_S)


async def _asked(port: int, request: bytes) -> tuple[int, float]:
    """The status of the answer, and the seconds until its end, connecting included."""
    began = time.monotonic()
    connection = await Connection.open(HOST, port)
    try:
        await connection.ask(request, PATIENCE_S)
        return connection.status, time.monotonic() - began
    finally:
        connection.close()


def long_inputs(texts: Sequence[str]) -> list[str]:
    """As many inputs as there are texts, each as long as LONG_CHARS and none like another."""
    return [" ".join((*texts[place:], *texts[:place]))[:LONG_CHARS] for place in range(len(texts))]


def main() -> int:
    """Measure and print; 1 where a check is late, or says that the gateway is not well."""
    parser = argparse.ArgumentParser(prog="scripts/measure-health", description=__doc__)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=30.0)
    given = parser.parse_args()
    with stage.up(retrieval=True, baseline=False, peers=()) as up:
        [side] = [each for each in up.sides if each.name == sides.GATEWAY]
        inputs = long_inputs(up.questions[: given.clients])
        checks, embeddings = uvloop.run(measured(side.port, inputs, given.seconds))
    report.say(embeddings.line(f"{given.clients} clients, embeddings"))
    troubles = []
    for path, answers in checks.items():
        report.say(answers.line(path))
        if answers.p99 > MOST_MS or set(answers.statuses) != {200}:
            troubles.append(path)
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(report.run(main))
