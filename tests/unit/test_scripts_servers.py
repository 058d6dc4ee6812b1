"""Starting, watching and stopping of processes, with real ones."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from stack import processes, servers
from stack.errors import ServerFailed
from stack.servers import Server

HTTP_SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[2]))
        self.end_headers()
        self.wfile.write(b'{"missing": "milvus"}')
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""

PARENT_OF_STUBBORN_CHILD = """
import subprocess, sys, time
deaf = "import signal as s, time; s.signal(s.SIGTERM, s.SIG_IGN); print(flush=True); "
child = deaf + "time.sleep(600)"
process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE)
process.stdout.readline()
print(process.pid, flush=True)
time.sleep(600)
"""

COMPANION = """
import pathlib, signal, sys, time
def end(*_):
    pathlib.Path(sys.argv[1]).touch()
    while not pathlib.Path(sys.argv[2]).exists():
        time.sleep(0.01)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
pathlib.Path(sys.argv[1] + "-up").touch()
time.sleep(600)
"""
"""Ends when another one is told to end too."""


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Server]:
    def make(code: str, *arguments: object, **settings: object) -> Server:
        command = [sys.executable, "-c", code, *(str(argument) for argument in arguments)]
        settings = {"probe": lambda: "not yet", "ready_timeout_s": 30.0} | settings
        return Server("the server", command, tmp_path / "logs" / "server.log", **settings)  # type: ignore[arg-type]

    return make


def lives(pid: int) -> bool:
    """Whether `pid` runs; a zombie that nobody reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def pid_in_log(server: Server) -> int:
    """The process id that PARENT_OF_STUBBORN_CHILD writes when its child is deaf to SIGTERM."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if text := processes.tail(server.log):
            return int(text)
        time.sleep(0.05)
    raise AssertionError("the child did not start")


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_answers_is_ready(make: Callable[..., Server], port: int) -> None:
    probe = servers.http_probe(f"http://127.0.0.1:{port}/health")
    with make(HTTP_SERVER, port, 200, probe=probe) as server:
        server.wait_ready()
        server.check_alive()
    with pytest.raises(ServerFailed):
        server.check_alive()


def test_a_server_that_dies_is_reported_at_once_with_the_end_of_its_log(
    make: Callable[..., Server],
) -> None:
    began = time.monotonic()
    program = "import sys; print('line one'); sys.exit('no such model')"
    with make(program) as server, pytest.raises(ServerFailed) as failed:
        server.wait_ready()
    assert time.monotonic() - began < 10
    assert "the server ended with exit code 1" in str(failed.value)
    assert str(server.log) in str(failed.value)
    assert failed.value.detail.splitlines() == ["line one", "no such model"]


def test_a_killed_server_is_reported_with_its_signal(make: Callable[..., Server]) -> None:
    program = "import os; os.kill(os.getpid(), 9)"
    with make(program) as server, pytest.raises(ServerFailed, match="ended by signal 9"):
        server.wait_ready()


def test_a_server_that_is_never_ready_says_what_is_missing(
    make: Callable[..., Server], port: int
) -> None:
    probe = servers.http_probe(f"http://127.0.0.1:{port}/health/ready")
    complaint = r'not ready within 3 s: 503 {"missing": "milvus"}'
    with (
        make(HTTP_SERVER, port, 503, probe=probe, ready_timeout_s=3.0) as server,
        pytest.raises(ServerFailed, match=complaint),
    ):
        server.wait_ready()


def test_another_program_that_answers_does_not_hide_a_death(make: Callable[..., Server]) -> None:
    with make("", probe=lambda: time.sleep(1)) as server, pytest.raises(ServerFailed):
        server.wait_ready()


def test_stop_ends_children_that_ignore_sigterm(make: Callable[..., Server]) -> None:
    with make(PARENT_OF_STUBBORN_CHILD, grace_s=0.5) as server:
        child = pid_in_log(server)
        assert lives(child)
    assert not lives(child)


def test_stop_ends_what_a_killed_server_left_behind(make: Callable[..., Server]) -> None:
    with make(PARENT_OF_STUBBORN_CHILD, grace_s=0.5) as server:
        child = pid_in_log(server)
        os.kill(os.getpgid(child), signal.SIGKILL)
        with pytest.raises(ServerFailed, match="signal 9"):
            server.wait_ready()
        assert lives(child)
    assert not lives(child)


def test_stop_ends_nothing_else(make: Callable[..., Server]) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as bystander:
        with make("import time; time.sleep(600)"):
            pass
        assert bystander.poll() is None
        bystander.kill()


def test_servers_are_stopped_at_the_same_time(make: Callable[..., Server], tmp_path: Path) -> None:
    def made(ours: str, other: str) -> Server:
        up = tmp_path / f"{ours}-up"
        probe = lambda: None if up.exists() else "not yet"  # noqa: E731
        return make(COMPANION, tmp_path / ours, tmp_path / other, probe=probe).start()

    both = [made("one", "two"), made("two", "one")]
    for server in both:
        server.wait_ready()
    running = [server.process for server in both]
    servers.stop_all(both)
    assert [process and process.returncode for process in running] == [0, 0]


def test_a_server_that_still_loads_gets_little_grace(make: Callable[..., Server]) -> None:
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); "
    with make(deaf + "time.sleep(600)", grace_s=60.0) as server:
        pid_in_log(server)
        began = time.monotonic()
    assert time.monotonic() - began < 10


def test_stop_may_be_repeated(make: Callable[..., Server]) -> None:
    server = make("")
    server.stop()
    server.start().stop()
    server.stop()


def test_tail_of_a_long_log_is_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n\n" for number in range(50_000)))
    assert processes.tail(log, 2) == "line 49998\nline 49999"
    assert processes.tail(tmp_path / "none") == ""
