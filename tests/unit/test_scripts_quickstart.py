"""How the scripts end, what they install, and how an answer is printed."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from stack import ROOT, conversation, report
from stack.errors import AskFailed, StackError
from stack.processes import clean_environment

SCRIPTS_PATH = {"PYTHONPATH": str(ROOT / "scripts")}

RUNS_A_CHILD = """
import sys
from pathlib import Path
from stack import report
from stack.processes import run
def main():
    print("up", flush=True)
    child = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    return run([sys.executable, "-c", child])
sys.exit(report.run(main))
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_what_runs_and_nothing_is_a_traceback(signum: signal.Signals) -> None:
    script = subprocess.Popen(
        [sys.executable, "-c", RUNS_A_CHILD],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(SCRIPTS_PATH),
    )
    assert script.stdout is not None
    assert script.stdout.readline() == "up\n"
    child = int(script.stdout.readline())
    script.send_signal(signum)
    _, errors = script.communicate(timeout=20)
    assert script.returncode == 128 + signum
    assert errors == f"stopped by {signum.name}\n"
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def quickstart(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The first half of quickstart, in the local profile, run to its end."""
    return subprocess.run(
        [sys.executable, "-m", "stack.bootstrap", "quickstart", "--profile=local", *arguments],
        capture_output=True,
        text=True,
        env=clean_environment(SCRIPTS_PATH),
        timeout=20,
        check=False,
    )


def test_an_error_is_one_line_and_code_1() -> None:
    done = quickstart("--docs", "nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith("nowhere does not exist: name a folder or a file with --docs\n")
    assert done.stderr.count("\n") == 1


def test_a_taken_port_ends_quickstart_before_it_starts_anything(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        done = quickstart(
            f"--docs={tmp_path}",
            f"--gateway-port={port}",
            # A quickstart of the person who runs the tests may have the default ones.
            f"--vllm-port={free_port()}",
            f"--milvus-port={free_port()}",
            f"--state-dir={tmp_path / 'state'}",
        )
    assert done.returncode == 1
    assert f"error: port {port} on 127.0.0.1 is taken" in done.stderr
    assert "--gateway-port" in done.stderr
    assert not (tmp_path / "state").exists()


def test_the_end_of_a_log_stands_below_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        error = StackError("vLLM ended")
        error.detail = "line one\nline two"
        raise error

    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        assert report.run(main) == 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert capsys.readouterr().err == "error: vLLM ended\n  | line one\n  | line two\n"


CITATIONS = [
    {
        "content": "a",
        "title": "Guide",
        "url": "https://docs.example/guide",
        "filepath": "g.md",
        "chunk_id": "1",
    },
    {"content": "b", "title": "Notes", "url": None, "filepath": "notes.md", "chunk_id": "2"},
]
MARKER = {
    "type": "url_citation",
    "url_citation": {"start_index": 6, "end_index": 9, "title": "", "url": ""},
}
STREAM = (
    ({"role": "assistant", "content": "", "context": {"citations": CITATIONS}}, None),
    ({"content": "It is "}, None),
    ({"content": "[2]."}, None),
    ({"annotations": [MARKER]}, "stop"),
)


class _Gateway(BaseHTTPRequestHandler):
    status = 200
    events: tuple[Any, ...] = ()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.status)
        self.send_header(
            "Content-Type", "text/event-stream" if self.status == 200 else "application/json"
        )
        self.end_headers()
        if self.status != 200:
            self.wfile.write(
                b'{"error": {"message": "Milvus does not answer", "type": "server_error"}}'
            )
            return
        for delta, finish_reason in self.events:
            choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
            chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m"}
            self.wfile.write(f"data: {json.dumps(chunk | {'choices': [choice]})}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_: object) -> None:
        """Keep the output of the tests clean."""


@pytest.fixture
def gateway_url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Gateway) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()
        thread.join()


def test_an_answer_is_printed_with_its_sources(
    gateway_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_Gateway, "events", STREAM)
    conversation.ask(gateway_url, "What is it?")
    assert capsys.readouterr().out == (
        "It is [2].\n"
        "\n"
        "Sources (* cited in the answer)\n"
        "  [1] Guide  https://docs.example/guide\n"
        " *[2] Notes  notes.md\n"
    )


def test_a_refusal_of_the_gateway_is_quoted(
    gateway_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Gateway, "status", 503)
    with pytest.raises(AskFailed, match=r"answered 503.*Milvus does not answer"):
        conversation.ask(gateway_url, "What is it?")


def test_an_answer_that_breaks_off_is_an_error(
    gateway_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Gateway, "events", STREAM[:2])
    with pytest.raises(AskFailed, match="broke off"):
        conversation.ask(gateway_url, "What is it?")


def test_a_gateway_that_is_gone_is_an_error() -> None:
    with pytest.raises(AskFailed, match="Connection error"):
        conversation.ask("http://127.0.0.1:9/v1", "What is it?")
