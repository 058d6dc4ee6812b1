"""A web server on 127.0.0.1 that answers as a test tells it to, and remembers what it was asked."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest

from indexer.documents import Content
from indexer.errors import DocumentUnusable
from indexer.sources import Listing, Source, WebRules
from indexer.sources.web.pages import WebPage

LOCAL = WebRules(allow_private=True, timeout_s=5)
HTML = {"Content-Type": "text/html"}


class Reply(NamedTuple):
    """One answer; `pieces` are sent one by one, so that a generator may be slow or endless."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = HTML
    pieces: Callable[[], Iterator[bytes]] | None = None


class Asked(NamedTuple):
    """One request."""

    path: str
    headers: dict[str, str]
    """With lower-case names."""


class FakeWeb:
    """What the server answers, by path, and what it was asked."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.replies: dict[str, Reply | Callable[[Asked], Reply]] = {}
        self.asked: list[Asked] = []

    def paths(self) -> list[str]:
        """What was asked for, but for robots.txt."""
        return [asked.path for asked in self.asked if asked.path != "/robots.txt"]

    def answer(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        reply = self.replies.get(asked.path, Reply(status=404))
        return reply(asked) if callable(reply) else reply


@contextmanager
def serving() -> Iterator[FakeWeb]:
    """A running server; it ends with the context."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    web = FakeWeb(server.server_address[1])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = web.answer(Asked(self.path, headers))
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if reply.pieces is None:
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)
                return
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            try:
                for piece in reply.pieces():
                    self.wfile.write(piece)
                    self.wfile.flush()
            except ConnectionError:
                pass  # the client has had enough, which is what such tests are about

        def log_message(self, *_: object) -> None:
            pass

    server.RequestHandlerClass = Handler
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def page(web: FakeWeb, path: str = "/", rules: WebRules = LOCAL, **fields: Any) -> WebPage:
    [document] = Listing([Source(location=f"{web.url}{path}", web=rules, **fields)])
    assert isinstance(document, WebPage)
    return document


def read(web: FakeWeb, path: str = "/", rules: WebRules = LOCAL, **fields: Any) -> Content:
    content = page(web, path, rules, **fields).read()
    assert content is not None
    return content


def problem(web: FakeWeb, path: str = "/", rules: WebRules = LOCAL) -> str:
    with pytest.raises(DocumentUnusable) as unusable:
        page(web, path, rules).read()
    return str(unusable.value)
