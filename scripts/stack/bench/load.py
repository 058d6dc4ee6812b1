"""Makes the load: a process of its own that asks, checks each answer, and watches itself.

Reads a `Load` as JSON from standard input and writes a `Result` to standard output.
"""

import asyncio
import random
import re
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec
import numpy as np
import psutil
import uvloop

from stack.bench import wire
from stack.bench.connection import Connection, post
from stack.bench.scenarios import Load, Result, Scenario

_RETRIEVAL = re.compile(rb"(?:embed|search);dur=([\d.]+)")
_PATH = "/v1/chat/completions"
_WARM_UP_S = 1.0
_PATIENCE_S = 20.0
"""How long it may take until each client has been answered once."""
_REMEMBERED = 2_000
"""Bodies that are known to be right."""
_LOOK_S = 0.005
"""Between two looks at how late the load is."""


class Usage:
    """CPU time and memory of a process and its descendants."""

    def __init__(self, pid: int | None) -> None:
        self._tree: list[psutil.Process] = []
        if pid is not None:
            server = psutil.Process(pid)
            self._tree = [server, *server.children(recursive=True)]

    def cpu_s(self) -> float:
        """Seconds since each began."""
        times = [process.cpu_times() for process in self._tree]
        return float(sum(each.user + each.system for each in times))

    def memory_mib(self) -> float:
        """Resident memory, what they share counted once for each."""
        return float(sum(process.memory_info().rss for process in self._tree) / 2**20)


class Answer(NamedTuple):
    """An answer, and when it came; on the clock of `time.perf_counter`, in seconds."""

    mark: int
    status: int
    body: bytes
    asked_at: float
    first_at: float
    """When the first token came."""
    gap: float
    """The longest wait between two pieces after that."""
    timing: bytes
    """Its server-timing header."""

    @property
    def retrieval_s(self) -> float:
        """How long embedding and searching took, as the server tells; 0 where it tells nothing."""
        return sum(float(found[1]) for found in _RETRIEVAL.finditer(self.timing)) / 1000


class Client:
    """Asks one thing after the other over one connection."""

    def __init__(self, run: "Run", connection: Connection) -> None:
        self._run = run
        self._connection = connection
        self._mark = 0
        self._asked_at = self._first_at = self._last_at = 0.0
        self._gap = 0.0
        self._body = b""

    def ask(self, due: float) -> None:
        """Send the next question, which should have been sent at `due`."""
        self._mark, request = self._run.next()
        self._asked_at, self._first_at, self._last_at, self._gap = due, 0.0, 0.0, 0.0
        self._body = b""
        self._connection.send(request, self._came)

    def close(self) -> None:
        """Leave."""
        self._connection.close()

    def _came(self, piece: bytes, ended: bool) -> None:
        now = time.perf_counter()
        self._body += piece
        if not self._first_at:
            if wire.first_token(self._mark) in self._body:
                self._first_at = self._last_at = now
        elif piece:
            self._gap = max(self._gap, now - self._last_at)
            self._last_at = now
        if ended:
            self._run.answered(self, now)

    @property
    def answer(self) -> Answer:
        """What came of the last question."""
        return Answer(
            self._mark,
            self._connection.status,
            self._body,
            self._asked_at,
            self._first_at,
            self._gap,
            dict(self._connection.headers).get(b"server-timing", b""),
        )


class Run:
    """One load, from its warm-up to its result."""

    def __init__(self, load: Load) -> None:
        self._load = load
        scenario = load.scenario
        self._requests = [
            post(_PATH, msgspec.json.encode(_body(wire.marked(question, mark), load)))
            for mark, question in enumerate(load.questions)
        ]
        self._at = load.begin
        self._unanswered = scenario.clients
        self._all_answered = asyncio.Event()
        self._stream = scenario.stream
        self._right: set[bytes] = set()
        self._totals: list[float] = []
        self._firsts: list[float] = []
        self._beyond: list[float] = []
        self._gaps: list[float] = []
        self._lateness: list[float] = []
        self._wrong, self._first_wrong = 0, ""
        self._measuring = self._stopping = False
        self._idle: list[Client] = []
        self._due: list[float] = []

    async def result(self) -> Result:
        """Make the load."""
        scenario, usage = self._load.scenario, Usage(self._load.pid)
        loop = asyncio.get_running_loop()
        clients = [
            Client(self, await Connection.open("127.0.0.1", self._load.port))
            for _ in range(scenario.clients)
        ]
        looking = asyncio.create_task(self._look())
        if scenario.rate:
            self._idle = clients
            asking = asyncio.create_task(self._ask_at_random())
        else:
            for place, client in enumerate(clients):
                # Not all at the same moment, or they would stay together.
                begins_s = place / len(clients) * _stream_s(scenario)
                loop.call_later(begins_s, client.ask, time.perf_counter() + begins_s)
        await asyncio.sleep(_WARM_UP_S + _stream_s(scenario))
        if not scenario.rate:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._all_answered.wait(), _PATIENCE_S)
        self._measuring, began, before = True, time.perf_counter(), usage.cpu_s()
        await asyncio.sleep(scenario.seconds)
        self._measuring, took = False, time.perf_counter() - began
        cpu_s, memory = usage.cpu_s() - before, usage.memory_mib()
        self._stopping = True
        looking.cancel()
        if scenario.rate:
            asking.cancel()
        for client in clients:
            client.close()
        return self._told(took, cpu_s, memory)

    def next(self) -> tuple[int, bytes]:
        """The mark and the bytes of the next request."""
        self._at = (self._at + 1) % len(self._requests)
        return self._at, self._requests[self._at]

    def answered(self, client: Client, now: float) -> None:
        """An answer is complete: check it, count it, and have its client go on."""
        self._unanswered -= 1
        if self._unanswered == 0:
            self._all_answered.set()
        answer = client.answer
        right = answer.status == 200 and self._is_right(answer.mark, answer.body)
        if self._measuring and right:
            self._totals.append(now - answer.asked_at)
            self._firsts.append((answer.first_at or now) - answer.asked_at)
            self._beyond.append(self._firsts[-1] - answer.retrieval_s)
            self._gaps.append(answer.gap)
        elif not right and not self._stopping:
            self._wrong += 1
            self._first_wrong = self._first_wrong or f"{answer.status} {answer.body[-300:]!r}"
        if self._stopping or not answer.status:
            return
        if not self._load.scenario.rate:
            self._ask_again(client, self._load.scenario.pause_ms / 1000)
        elif self._due:
            client.ask(self._due.pop(0))
        else:
            self._idle.append(client)

    def _ask_again(self, client: Client, pause_s: float) -> None:
        def ask() -> None:
            client.ask(time.perf_counter())

        if pause_s:
            asyncio.get_running_loop().call_later(pause_s, ask)
        else:
            ask()

    def _is_right(self, mark: int, body: bytes) -> bool:
        # A body that is the same to the byte as one that was right is right.
        known = wire.without_mark(body, mark)
        if known in self._right:
            return True
        if not wire.is_right(body, mark, stream=self._stream):
            return False
        if len(self._right) < _REMEMBERED:
            self._right.add(known)
        return True

    async def _ask_at_random(self) -> None:
        chance = random.Random(1)  # nosec B311  # no secret
        due = time.perf_counter()
        while True:
            due += chance.expovariate(self._load.scenario.rate)
            await asyncio.sleep(due - time.perf_counter())
            if self._idle:
                self._idle.pop().ask(due)
            else:
                self._due.append(due)

    async def _look(self) -> None:
        due = time.perf_counter()
        while True:
            due += _LOOK_S
            await asyncio.sleep(due - time.perf_counter())
            now = time.perf_counter()
            if self._measuring:
                self._lateness.append(now - due)
            due = max(due, now - _LOOK_S)

    def _told(self, took: float, cpu_s: float, memory_mib: float) -> Result:
        count = len(self._totals)
        return Result(
            requests=count,
            rate=count / took,
            cpu_ms=cpu_s / max(count, 1) * 1000,
            total_p50=_ms(self._totals, 50),
            total_p99=_ms(self._totals, 99),
            first_p50=_ms(self._firsts, 50),
            first_p99=_ms(self._firsts, 99),
            beyond_p50=_ms(self._beyond, 50),
            gap_p50=_ms(self._gaps, 50),
            gap_p99=_ms(self._gaps, 99),
            gap_max=_ms(self._gaps, 100),
            lateness_p99=_ms(self._lateness, 99),
            memory_mib=memory_mib,
            wrong=self._wrong,
            first_wrong=self._first_wrong,
        )


def _body(question: str, load: Load) -> dict[str, object]:
    messages = [{"role": "user", "content": question}]
    return {
        "model": wire.MODEL,
        "messages": messages,
        "stream": load.scenario.stream,
        "max_tokens": wire.TOKENS,
        **load.extra,
    }


def _stream_s(scenario: Scenario) -> float:
    """How long a stream takes by itself, in seconds."""
    return wire.TOKENS * scenario.pace_ms / 1000


def _ms(seconds: Sequence[float], percentile: float) -> float:
    return float(np.percentile(seconds, percentile)) * 1000 if seconds else float("nan")


def main() -> int:
    """Make the load that standard input names."""
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)
    result = uvloop.run(Run(load).result())
    sys.stdout.buffer.write(msgspec.json.encode(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
