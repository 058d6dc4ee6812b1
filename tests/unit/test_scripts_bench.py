"""The benchmark: its parts over real sockets, what it takes for wrong, and how it judges."""

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import openai
import pytest
from stack import servers
from stack.bench import corpus, guard, scenarios, sides, tables, wire
from stack.bench.scenarios import Load, Measured, Result, Scenario
from stack.processes import clean_environment
from stack.servers import HOST, Server

BRIEF = Scenario(name="brief", clients=4, seconds=0.5)
QUESTIONS = [f"What is {number}?" for number in range(20)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def upstream_port(folder: Path) -> Iterator[int]:
    port = servers.free_port()
    with sides.upstream(port, folder) as server:
        server.wait_ready()
        yield port


def loaded(scenario: Scenario, port: int, server: Server | None = None) -> Result:
    pid = server.process.pid if server is not None and server.process is not None else None
    load = Load(scenario=scenario, port=port, pid=pid, questions=QUESTIONS)
    said = subprocess.run(
        [sys.executable, "-m", "stack.bench.load"],
        input=msgspec.json.encode(load),
        stdout=subprocess.PIPE,
        check=True,
        env=clean_environment({"PYTHONPATH": os.pathsep.join(sys.path)}),
    ).stdout
    return msgspec.json.decode(said, type=Result)


def test_an_sdk_takes_the_stand_in_for_vllm(upstream_port: int) -> None:
    with openai.OpenAI(base_url=f"http://{HOST}:{upstream_port}/v1", api_key="x") as client:
        said = {"model": wire.MODEL, "messages": [{"role": "user", "content": "Why? #q00007"}]}
        whole = client.chat.completions.create(**said)  # type: ignore[call-overload]
        pieces = client.chat.completions.create(**said, stream=True)  # type: ignore[call-overload]
        text = "".join(each.choices[0].delta.content or "" for each in pieces)
        [model] = client.models.list().data

    assert whole.choices[0].message.content == text == wire.text(7)
    assert text.startswith("re#00007:")
    assert model.id == wire.MODEL


@pytest.mark.parametrize("stream", [True, False])
def test_a_relay_is_measured_and_all_its_answers_are_right(
    upstream_port: int, folder: Path, stream: bool
) -> None:
    side = sides.raw_relay(upstream_port, folder)
    assert side.server is not None
    with side.server as server:
        server.wait_ready()
        result = loaded(
            msgspec.structs.replace(BRIEF, stream=stream, seconds=1.0), side.port, server
        )

    assert result.wrong == 0
    assert result.requests > 20
    assert result.cpu_ms > 0
    assert result.memory_mib > 10
    assert 0 < result.first_p50 <= result.total_p50 <= result.total_p99


def test_paced_tokens_come_at_their_pace(upstream_port: int) -> None:
    sides.pace(upstream_port, 5.0)
    try:
        result = loaded(msgspec.structs.replace(BRIEF, pace_ms=5.0, seconds=1.0), upstream_port)
    finally:
        sides.pace(upstream_port, 0.0)

    assert result.wrong == 0
    # 62 waits: the role comes with the first token, and what ends the stream with the last.
    assert result.total_p50 > 62 * 5 * 0.99
    # The first token is seen later than it came where the load has to wait for its turn.
    assert result.total_p50 - result.first_p50 > 62 * 5 * 0.7
    assert result.gap_p50 > 4


def test_at_a_rate_as_much_is_asked_as_it_says(upstream_port: int) -> None:
    result = loaded(
        msgspec.structs.replace(BRIEF, clients=16, rate=100.0, seconds=2.0), upstream_port
    )
    assert result.wrong == 0
    assert 60 < result.requests < 600


def test_answers_of_others_and_halves_are_found_out() -> None:
    whole = b"".join(wire.EVENTS)
    right = wire.with_mark(whole, 3)
    assert wire.is_right(right, 3, stream=True)
    assert wire.is_right(wire.with_mark(wire.COMPLETION, 3), 3, stream=False)
    assert wire.without_mark(right, 3) == whole
    for wrong in (
        whole,  # the answer to another question
        right.replace(b"data: [DONE]\n\n", b""),
        b"".join(wire.EVENTS[:20]),
        right.replace(b" passage", b" package", 1),
        right.replace(wire.EVENTS[9], b"", 1),
        b"",
        b"data: nonsense\n\n",
    ):
        assert not wire.is_right(wrong, 3, stream=True)
    assert not wire.is_right(wire.COMPLETION, 3, stream=False)
    assert not wire.is_right(b"{}", 3, stream=False)


class Liar(BaseHTTPRequestHandler):
    """Every third answer is short of its last event, and says so of none."""

    protocol_version = "HTTP/1.1"
    numbers = itertools.count()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        events = wire.EVENTS if next(self.numbers) % 3 else wire.EVENTS[:-1]
        answer = wire.with_mark(b"".join(events), wire.mark_of(body))
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.send_header("server-timing", "admit;dur=1.0, embed;dur=0.25, search;dur=0.5")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_that_lies_is_found_out() -> None:
    server = ThreadingHTTPServer((HOST, 0), Liar)
    threading.Thread(target=server.serve_forever).start()
    try:
        result = loaded(BRIEF, server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()

    assert result.wrong > 0
    assert result.requests > 0
    assert result.first_wrong.startswith("200 ")
    assert result.first_p50 - result.beyond_p50 == pytest.approx(0.75, abs=0.3)


def test_the_corpus_is_what_python_says_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "_PAGES", 5)
    corpus.write(tmp_path / "documents", tmp_path / "questions.json")
    questions = msgspec.json.decode((tmp_path / "questions.json").read_bytes(), type=list[str])

    assert len(list((tmp_path / "documents").glob("*.md"))) == 5
    assert len(set(questions)) == len(questions) > 20
    page = (tmp_path / "documents" / "abc.md").read_text()
    assert "A decorator indicating abstract methods." in page
    assert "When would I use abc.abstractmethod?" in questions


def result(**changed: float) -> Result:
    zeros = dict.fromkeys(Result.__struct_fields__, 0.0)
    told = {**zeros, "requests": 1, "wrong": 0, "first_wrong": "", **changed}
    return msgspec.convert(told, Result)


def both(scenario: Scenario, ours: Result, least: Result) -> list[Measured]:
    return [
        Measured(scenario.name, "gateway", ours),
        Measured(scenario.name, sides.RAW_RELAY, least),
    ]


@pytest.mark.parametrize(("cpu_ms", "exit_code", "word"), [(1.0, 0, "holds"), (1.1, 1, "BROKEN")])
def test_the_guard_judges_by_ratios(
    capsys: pytest.CaptureFixture[str], cpu_ms: float, exit_code: int, word: str
) -> None:
    found = both(scenarios.AT_ONCE, result(cpu_ms=cpu_ms), result(cpu_ms=0.1))
    assert guard.judged(found, {}) == exit_code
    assert capsys.readouterr().out.split()[0] == word


def test_a_run_that_tells_nothing_and_wrong_answers_are_no_success(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert guard.judged([], {}) == 1
    found = both(scenarios.AT_ONCE, result(cpu_ms=0.1, wrong=1), result(cpu_ms=0.1))
    assert guard.judged(found, {}) == 1
    assert "BROKEN" in capsys.readouterr().out


def test_medians_of_the_rounds_are_shown_and_wrong_answers_counted_in_all() -> None:
    rounds = [result(rate=rate, wrong=wrong) for rate, wrong in ((10, 0), (30, 2), (20, 1))]
    found = [Measured("a", "gateway", each) for each in rounds]
    median = scenarios.medians(found)["a"]["gateway"]

    assert (median.rate, median.wrong) == (20, 3)
    assert "gateway" in tables.printed(found)


def test_the_chart_shows_the_leanest_sides_share_of_each_ones_time() -> None:
    found = both(scenarios.PLAIN, result(cpu_ms=0.4), result(cpu_ms=0.1))
    chart = tables.plotted(found)

    assert "plain: gateway" in chart
    assert ">0.250<" in chart


def test_a_peer_is_started_as_it_says(upstream_port: int, folder: Path) -> None:
    command = f"{sys.executable} -m stack.bench.raw_relay --port {{port}} --upstream"
    side = sides.peer(f"other={command} {upstream_port}", upstream_port, folder)
    assert side.server is not None
    environment = clean_environment({"PYTHONPATH": os.pathsep.join(sys.path)})
    side.server.environment = environment
    with side.server as server:
        server.wait_ready()
        result = loaded(BRIEF, side.port, server)

    assert (side.name, result.wrong) == ("other", 0)
    assert result.requests > 0
