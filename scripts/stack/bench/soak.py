"""Asks the gateway again and again, leaves half of the answers, and looks at what stays behind.

A client that leaves closes its connection at a random moment: before the head of the answer, or in
the middle of it. Every answer that is waited for must be right. At the end nothing may be left
over: no memory, no descriptor, no request that counts as running.
"""

import argparse
import asyncio
import random
import re
import sys
import time
import urllib.request
from collections.abc import Sequence
from typing import Any

import msgspec
import psutil
import uvloop

from stack import report
from stack.bench import sides, stage, wire
from stack.bench.connection import Connection, post
from stack.bench.sides import Side
from stack.models import minilm
from stack.servers import HOST

PACE_MS = 1.0
"""Between two tokens of a stream."""
STREAM_S = PACE_MS / 1000 * wire.TOKENS
CLIENTS = 48
LEAVING = 0.52
"""Share that mean to leave; a few have their answer before they do."""
SAMPLES = 20
WARM_UP = 0.1
"""Share of the requests before the first sample counts: caches fill."""
MEMORY_GROWTH = 1.05
DESCRIPTOR_GROWTH = 8
QUIET_S = 3.0
"""After the last request, until nothing may be running any more."""

_IN_PROGRESS = re.compile(rb"^groundserve_requests_in_progress ([\d.]+)$", re.MULTILINE)


class Kind(msgspec.Struct, frozen=True):
    """One kind of request."""

    name: str
    weight: int
    path: str
    fields: dict[str, Any]
    stream: bool = False
    asks_in: str = ""
    """The field with the question; empty for a chat."""

    @property
    def is_chat(self) -> bool:
        """Whether its answer must repeat the mark of the question."""
        return not self.asks_in


KINDS = [
    Kind("stream", 12, "/v1/chat/completions", sides.WITHOUT, stream=True),
    Kind("plain", 4, "/v1/chat/completions", sides.WITHOUT),
    Kind("stream, documents", 3, "/v1/chat/completions", sides.AS_THE_BASELINE, stream=True),
    Kind("search", 1, "/v1/vector_stores/bench/search", {"max_num_results": 2}, asks_in="query"),
    Kind("embeddings", 1, "/v1/embeddings", {"model": minilm().name}, asks_in="input"),
]


class Sample(msgspec.Struct, frozen=True):
    """What the gateway held at one moment."""

    asked: int
    memory_mib: float
    descriptors: int
    in_progress: float


class Counts(msgspec.Struct):
    """What became of the requests so far."""

    asked: int = 0
    answered: int = 0
    left: int = 0
    wrong: int = 0
    first_wrong: str = ""


class Soak:
    """Many clients, each with one request after the other."""

    def __init__(self, port: int, questions: Sequence[str], requests: int) -> None:
        self._port = port
        self._questions = questions
        self._requests = requests
        self._chance = random.Random(7)  # nosec B311  # no secret
        self.counts = Counts()

    async def run(self) -> None:
        """Ask until as many were asked as there should be."""
        await asyncio.gather(*(self._client() for _ in range(CLIENTS)))

    async def _client(self) -> None:
        connection: Connection | None = None
        while self.counts.asked < self._requests:
            mark = self.counts.asked = self.counts.asked + 1
            if connection is None:
                connection = await Connection.open(HOST, self._port)
            [kind] = self._chance.choices(KINDS, [each.weight for each in KINDS])
            patience_s = 60.0
            leaves = self._chance.random() < LEAVING
            if leaves:
                patience_s = self._chance.uniform(0, STREAM_S if kind.stream else 0.004)
            if await self._asked(connection, kind, mark % 100_000, patience_s, leaves=leaves):
                continue
            connection.close()
            connection = None
        if connection is not None:
            connection.close()

    async def _asked(
        self, connection: Connection, kind: Kind, mark: int, patience_s: float, *, leaves: bool
    ) -> bool:
        """Ask once; whether the connection can be used again."""
        try:
            body = await connection.ask(post(kind.path, self._body(kind, mark)), patience_s)
        except TimeoutError:
            if leaves:
                self.counts.left += 1
            else:
                self._is_wrong(f"{kind.name}: nothing for {patience_s:.0f} s")
            return False
        self.counts.answered += 1
        right = connection.status == 200
        if right and kind.is_chat:
            right = wire.is_right(body, mark, stream=kind.stream)
        if not right:
            self._is_wrong(f"{kind.name}: {connection.status} {body[-300:]!r}")
        return connection.status != 0

    def _is_wrong(self, what: str) -> None:
        self.counts.wrong += 1
        self.counts.first_wrong = self.counts.first_wrong or what

    def _body(self, kind: Kind, mark: int) -> bytes:
        question = wire.marked(self._questions[mark % len(self._questions)], mark)
        said: dict[str, Any] = {kind.asks_in: question}
        if kind.is_chat:
            said = {
                "model": wire.MODEL,
                "messages": [{"role": "user", "content": question}],
                "stream": kind.stream,
                "max_tokens": wire.TOKENS,
            }
        return msgspec.json.encode(said | kind.fields)


async def soaked(
    requests: int, side: Side, questions: Sequence[str]
) -> tuple[Counts, list[Sample]]:
    """Ask `side`, a gateway, so often; what became of it, and what the gateway held on the way."""
    assert side.pid is not None  # nosec B101  # for the type checker
    soak = Soak(side.port, questions, requests)
    running = asyncio.create_task(soak.run())
    samples: list[Sample] = []
    while not running.done():
        await asyncio.wait({running}, timeout=0.5)
        due = requests * (WARM_UP + len(samples) * (1 - WARM_UP) / SAMPLES)
        if soak.counts.asked >= due and not running.done():
            samples.append(await asyncio.to_thread(_sample, side, soak.counts.asked))
            report.say(_line(samples[-1]))
    await running
    await asyncio.sleep(QUIET_S)
    samples.append(await asyncio.to_thread(_sample, side, soak.counts.asked))
    report.say(f"{_line(samples[-1])}, {QUIET_S:.0f} s after the last one")
    return soak.counts, samples


def judged(counts: Counts, samples: Sequence[Sample]) -> list[str]:
    """What is not as it should be; nothing, if all is well."""
    first, last = samples[0], samples[-1]
    found = []
    if counts.wrong:
        found.append(f"{counts.wrong} answers were wrong, as this one: {counts.first_wrong}")
    if not 0.4 <= counts.left / counts.asked <= 0.6:
        found.append(f"{counts.left} of {counts.asked} clients left, which is not half of them")
    if last.memory_mib > first.memory_mib * MEMORY_GROWTH:
        found.append(f"memory grew from {first.memory_mib:.0f} to {last.memory_mib:.0f} MiB")
    if last.descriptors > first.descriptors + DESCRIPTOR_GROWTH:
        found.append(f"descriptors grew from {first.descriptors} to {last.descriptors}")
    if last.in_progress:
        found.append(f"{last.in_progress:.0f} requests count as running when none is")
    return found


def _line(sample: Sample) -> str:
    return (
        f"after {sample.asked} requests: {sample.memory_mib:.0f} MiB, "
        f"{sample.descriptors} descriptors, {sample.in_progress:.0f} requests running"
    )


def _sample(side: Side, asked: int) -> Sample:
    process = psutil.Process(side.pid)
    [running] = _IN_PROGRESS.findall(_fetched(side.port, "/metrics"))
    # One is this request for the metrics.
    running_beside = float(running) - 1
    return Sample(asked, process.memory_info().rss / 2**20, process.num_fds(), running_beside)


def _fetched(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=10) as answer:  # nosec B310
        return bytes(answer.read())


def main() -> int:
    """Soak a gateway; 1 where something stays behind or is wrong."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    given = parser.parse_args()
    with stage.up(retrieval=True, baseline=False, peers=()) as up:
        side = next(each for each in up.sides if each.name == sides.GATEWAY)
        sides.pace(up.upstream_port, PACE_MS)
        began = time.monotonic()
        counts, samples = uvloop.run(soaked(given.requests, side, up.questions))
        took = time.monotonic() - began
    report.say(
        f"{counts.asked} requests in {took:.0f} s: {counts.answered} answered, {counts.left} left "
        f"by their clients, {counts.wrong} wrong"
    )
    troubles = judged(counts, samples)
    for trouble in troubles:
        report.say(f"not as it should be: {trouble}")
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(report.run(main))
