"""A gateway as clients, load balancers and operators see it: sockets, signals, metrics."""

import json
import os
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
from stack import servers

from tests.integration import fake_vllm
from tests.integration.stalling_vllm import StallingVllm

QUESTION = "What do llamas eat?"
MESSAGES: list[Any] = [{"role": "user", "content": QUESTION}]
_GAUGE = re.compile(r"^groundserve_requests_in_progress (\S+)$", re.MULTILINE)


class Gateway:
    """One that runs."""

    def __init__(self, server: servers.Server, port: int) -> None:
        self.server = server
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.connections: list[socket.socket] = []
        """Those that were made to it; they are closed when it ends, if not before."""

    @property
    def pid(self) -> int:
        assert self.server.process is not None
        return self.server.process.pid

    def client(self) -> openai.OpenAI:
        """An SDK that hides nothing: it does not try again."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="k", max_retries=0, timeout=60)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, within_s: float = 20) -> int:
        """Its exit status."""
        assert self.server.process is not None
        return self.server.process.wait(timeout=within_s)

    def log(self) -> str:
        return self.server.log.read_text()

    def get(self, path: str, within_s: float = 10) -> tuple[int, str]:
        """Status and body."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=within_s) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read().decode()

    def in_progress(self) -> int:
        """Requests that are being answered, without the one that asks."""
        found = _GAUGE.search(self.get("/metrics")[1])
        return int(float(found[1])) - 1 if found else 0

    def until_idle(self, within_s: float) -> None:
        """Wait until nothing is being answered."""
        ends = time.monotonic() + within_s
        while busy := self.in_progress():
            assert time.monotonic() < ends, f"{busy} requests are still being answered"
            time.sleep(0.01)

    def until_ready(self, within_s: float) -> None:
        """Wait until every part is there."""
        ends = time.monotonic() + within_s
        while (answer := self.get("/health/ready"))[0] != 200:
            assert time.monotonic() < ends, answer
            time.sleep(0.1)

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        self.connections.append(connection)
        return connection

    def send(
        self,
        method: str,
        path: str,
        body: bytes | Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> socket.socket:
        """The connection on which a request was sent, whole."""
        connection = self.connect()
        connection.sendall(request(method, path, body, headers))
        return connection


def request(
    method: str,
    path: str,
    body: bytes | Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """One as it goes over the wire; a mapping is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode() if body else b""
    length = {"content-length": str(len(content))} if method == "POST" else {}
    said = {"host": "127.0.0.1", "content-type": "application/json", **length, **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in said.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + content


def read_until(connection: socket.socket, ending: bytes) -> bytes:
    """What comes, up to and with `ending`, or all that comes."""
    said = b""
    while ending not in said and (piece := connection.recv(65_536)):
        said += piece
    return said


def read_plain(connection: socket.socket) -> bytes:
    """A whole answer that says how long it is; the connection may be used again."""
    head, _, body = read_until(connection, b"\r\n\r\n").partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    assert length is not None, head
    while len(body) < int(length[1]):
        body += connection.recv(65_536)
    return head + b"\r\n\r\n" + body


def read_all(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    said = b""
    while piece := connection.recv(65_536):
        said += piece
    return said


@contextmanager
def silent_port() -> Iterator[int]:
    """One where connections come about, and nobody says anything."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        yield int(listening.getsockname()[1])


@contextmanager
def running(upstream: StallingVllm, port: int, logs: Path, **settings: object) -> Iterator[Gateway]:
    """A gateway whose models are all in `upstream`, and whose Milvus says nothing."""
    with silent_port() as silent:
        environment = {
            "upstream_url": upstream.url,
            "encoder_url": upstream.url,
            "encoder_model": fake_vllm.MODEL,
            "milvus_uri": f"http://127.0.0.1:{silent}",
            "retrieval": "false",
            "shutdown_delay_s": "0",
            **{name: str(value) for name, value in settings.items()},
        }
        server = servers.gateway(
            port,
            {f"GROUNDSERVE_{name.upper()}": value for name, value in environment.items()},
            logs,
        )
        # It never is ready, without Milvus.
        server.probe = servers.http_probe(f"http://127.0.0.1:{port}/v1/models")
        with server:
            server.wait_ready()
            gateway = Gateway(server, port)
            try:
                yield gateway
            finally:
                for connection in gateway.connections:
                    connection.close()
