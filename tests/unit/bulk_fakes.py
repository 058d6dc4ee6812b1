"""Fakes of Milvus' REST interface for imports and of a bucket, as servers on real ports."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from indexer.index.collection.bulk import BulkStorage, _imported
from indexer.index.settings import IndexSettings

if TYPE_CHECKING:
    from indexer.index.collection.bulk_jobs import ImportJobs

COMPLETED = {"state": "Completed", "progress": 100}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))


@contextmanager
def serving(handler: type[_Handler]) -> Iterator[str]:
    """Host and port of a server with `handler`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class FakeMilvus:
    """The import jobs of a Milvus. Each job goes through `states`, one for each time asked."""

    def __init__(self) -> None:
        self.states: list[dict[str, Any] | int] = [COMPLETED]
        """A number is an HTTP status."""
        self.refusal: dict[str, Any] | None = None
        self.imports: list[dict[str, Any]] = []
        self.tokens: set[str] = set()
        self.asked = 0
        self.on_import: Callable[[str, list[list[str]]], None] = lambda *_: None
        self.uri = ""

    def jobs(self, held: Callable[[], object] = lambda: None, **given: Any) -> "ImportJobs":
        """What asks this Milvus to import."""
        _, jobs = _imported()
        settings = IndexSettings(milvus_uri=self.uri, milvus_timeout_s=2)
        return jobs(settings, held, poll_interval_s=0.01, **given)

    def answer(self, path: str, asked: dict[str, Any], token: str) -> dict[str, Any] | int:
        self.tokens.add(token)
        match path:
            case "/v2/vectordb/jobs/import/create" if self.refusal is not None:
                return self.refusal
            case "/v2/vectordb/jobs/import/create":
                self.imports.append(asked)
                self.on_import(asked["collectionName"], asked["files"])
                return {"code": 0, "data": {"jobId": str(len(self.imports))}}
            case "/v2/vectordb/jobs/import/describe":
                state = self.states[min(self.asked, len(self.states) - 1)]
                self.asked += 1
                if isinstance(state, int):
                    return state
                return {"code": 0, "data": {"jobId": asked["jobId"], **state}}
        return 404


@contextmanager
def fake_milvus() -> Iterator[FakeMilvus]:
    fake = FakeMilvus()

    class Handler(_Handler):
        def do_POST(self) -> None:
            answer = fake.answer(self.path, json.loads(self.body()), self.headers["Authorization"])
            if isinstance(answer, int):
                self.answer(answer)
            else:
                self.answer(200, json.dumps(answer).encode(), Content_Type="application/json")

    with serving(Handler) as address:
        fake.uri = f"http://{address}"
        yield fake


class FakeBucket:
    """One bucket, of the name "milvus"."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.removed: list[str] = []
        self.is_full = False
        self.endpoint = ""

    @property
    def storage(self) -> BulkStorage:
        return BulkStorage(
            endpoint=self.endpoint,
            bucket="milvus",
            access_key="a",
            secret_key="s",
            is_secure=False,
            region="us-east-1",
            prefix="loads",
        )


@contextmanager
def fake_bucket() -> Iterator[FakeBucket]:
    fake = FakeBucket()

    class Handler(_Handler):
        def do_HEAD(self) -> None:
            self.answer(200 if self.path == "/milvus" else 404)

        def do_PUT(self) -> None:
            content = self.body()
            if fake.is_full:
                self.answer(
                    507, b"<Error><Code>Full</Code><Message>bucket is full</Message></Error>",
                    Content_Type="application/xml",
                )  # fmt: skip
                return
            fake.objects[self.path.removeprefix("/milvus/")] = content
            self.answer(200, ETag='"0"')

        def do_DELETE(self) -> None:
            fake.removed.append(self.path.removeprefix("/milvus/"))
            self.answer(204)

    with serving(Handler) as address:
        fake.endpoint = address
        yield fake
