"""What soak, measure-health and measure-admission measure, and what they take for wrong."""

import asyncio
import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest
from stack import admission
from stack.bench import health
from stack.bench.soak import Counts, Sample, judged
from stack.servers import HOST

GOOD = Counts(asked=1000, answered=500, left=500)
FIRST = Sample(asked=100, memory_mib=500.0, descriptors=60, in_progress=40.0)
LAST = Sample(asked=1000, memory_mib=510.0, descriptors=30, in_progress=0.0)


class Slow(BaseHTTPRequestHandler):
    """Embeds within 30 ms; is live at once, and says after 60 ms that it is not ready."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/health/live":
            self._answer(200)
        else:
            time.sleep(0.06)
            self._answer(503)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert len(body["input"]) == health.LONG_CHARS
        time.sleep(0.03)
        self._answer(200)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def slow_port() -> Iterator[int]:
    with ThreadingHTTPServer((HOST, 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_each_check_is_timed_and_counted_by_what_it_says(
    slow_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "WARM_UP_S", 0.1)
    inputs = health.long_inputs([f"What is {number}, and why is it so?" for number in range(90)])
    assert len(set(inputs)) == 90

    checks, embeddings = asyncio.run(health.measured(slow_port, inputs[:4], 1.0))

    live, ready = checks["/health/live"], checks["/health/ready"]
    assert set(live.statuses) == set(embeddings.statuses) == {200}
    assert set(ready.statuses) == {503}
    assert len(live.took_ms) > 5
    assert min(embeddings.took_ms) > 30
    assert ready.p99 > 60 > sorted(live.took_ms)[len(live.took_ms) // 2]
    assert ready.line("ready").endswith(f"({len(ready.took_ms)} with 503)")


def test_a_soak_in_which_nothing_stays_behind_is_good() -> None:
    assert judged(GOOD, [FIRST, LAST]) == []


@pytest.mark.parametrize(
    ("counts", "last", "trouble"),
    [
        ({"wrong": 1, "first_wrong": "stream: 502"}, {}, "1 answers were wrong.*stream: 502"),
        ({"left": 300}, {}, "300 of 1000 clients left"),
        ({}, {"memory_mib": 526.0}, "memory grew from 500 to 526"),
        ({}, {"descriptors": 69}, "descriptors grew from 60 to 69"),
        ({}, {"in_progress": 1.0}, "1 requests count as running"),
    ],
)
def test_a_soak_tells_what_stayed_behind(
    counts: dict[str, object], last: dict[str, object], trouble: str
) -> None:
    [found] = judged(
        msgspec.structs.replace(GOOD, **counts), [FIRST, msgspec.structs.replace(LAST, **last)]
    )
    assert re.match(trouble, found)


def test_admission_is_measured_with_keys_without_limits_and_with_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert admission.main(["--requests", "1280"]) == 0

    said = capsys.readouterr().out.splitlines()
    costs = {line.split(": ")[0]: float(line.split(": ")[1].split()[0]) for line in said}
    assert len(costs) == 4
    assert 0 < costs["no limits"] < costs["all limits, in memory"]
