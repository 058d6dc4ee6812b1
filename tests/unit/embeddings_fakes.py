"""A server with OpenAI's embeddings endpoint: real HTTP on a real port, and no model."""

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from gateway.embeddings_server import EmbeddingsServer
from gateway.remote_encoding import RemoteEncoding
from gateway.routing import Care
from gateway.settings import GatewaySettings
from gateway.upstream import Upstream
from tests.unit.index_fakes import FakeEncoder

MODEL = "org/embeds"
Said = dict[str, Any]


class FakeEmbeddings(ThreadingHTTPServer):
    """Gives the vectors of a FakeEncoder, and remembers each request's path and body."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.encoder = FakeEncoder()
        self.asked: list[tuple[str, Said]] = []
        self.entry: Said | None = None
        """What stands in the list of models, which is not there otherwise."""
        self.status = 200
        self.change: Callable[[Said], Any] = lambda answer: answer
        """Makes of a right answer what is sent."""
        self.refuses: str | None = None
        """A text that it takes for no text, wherever that stands in."""
        self.let = threading.Event()
        """Cleared, it keeps every request waiting."""
        self.lists = threading.Event()
        """Cleared, it keeps those waiting that ask for its list of models."""
        for event in (self.let, self.lists):
            event.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def inputs(self) -> list[Any]:
        """What was to be embedded, request by request, without the looks at the server."""
        given = [body["input"] for _, body in self.asked]
        return [each for each in given if each != ["What do llamas eat?"]]

    def answer(self, body: Said) -> tuple[int, Any]:
        texts = body["input"]
        if self.status != 200:
            return self.status, {"error": {"message": "its words", "param": None}}
        if self.refuses in texts:
            return 400, {"error": {"message": "too long", "param": "input"}}
        if not isinstance(texts[0], str):
            texts = self.encoder.decode(texts)
        vectors = self.encoder.encode_texts(texts)
        rows: list[Said] = [
            {"object": "embedding", "index": index, "embedding": _written(vector, body)}
            for index, vector in enumerate(vectors)
        ]
        tokens = sum(self.encoder.count_tokens(texts))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        whole = {"object": "list", "model": MODEL, "data": rows, "usage": usage}
        return 200, self.change(whole)


def _written(vector: Any, body: Said) -> Any:
    if body.get("encoding_format") == "base64":
        # Twice as long: servers need not normalise.
        return base64.b64encode((2 * vector).astype("<f4").tobytes()).decode()
    return vector.tolist()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeEmbeddings

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        assert self.server.lists.wait(20)
        if self.server.entry is None:
            self._send(404, {"error": {"message": "there is no list"}})
        else:
            self._send(200, {"object": "list", "data": [{"id": MODEL} | self.server.entry]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((self.path, body))
        assert self.server.let.wait(20)
        self._send(*self.server.answer(body))

    def _send(self, status: int, body: Any) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serving() -> Iterator[FakeEmbeddings]:
    """A running one; it ends with the context."""
    server = FakeEmbeddings()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.let.set()
        server.lists.set()
        server.shutdown()
        thread.join()
        server.server_close()


def encoding_at(url: str, *, is_ours: bool = False, **stated: Any) -> RemoteEncoding:
    """An encoding that asks the server there; a test states what its settings are about."""
    defaults: dict[str, Any] = {
        "encoder_model": MODEL,
        "encoder_query_prefix": "query: ",
        "upstream_attempts": 1,
        "poll_interval_s": 0.05,
    }
    settings = GatewaySettings(**defaults | stated)
    server = EmbeddingsServer(
        Upstream.connect(settings, url), settings.encoder_model, Care(settings.upstream_attempts)
    )
    return RemoteEncoding(server, settings, is_ours=is_ours)


def negated(answer: Said) -> Said:
    """The answer of a model that has nothing in common with the one before."""
    for row in answer["data"]:
        numbers = np.frombuffer(base64.b64decode(row["embedding"]), "<f4")
        row["embedding"] = (numbers * [-1, 1, -1, 1]).tolist()
    return answer


@asynccontextmanager
async def watching(encoding: RemoteEncoding) -> AsyncIterator[RemoteEncoding]:
    """Look at the server as the gateway does."""
    task = asyncio.create_task(encoding.start())
    try:
        yield encoding
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await encoding.close()
