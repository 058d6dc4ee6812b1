"""Clients that leave, on every route and at every moment: what is done for them ends within 1 s."""

import socket
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from litestar.routes import HTTPRoute

from gateway.access.callers import Caller, acting_as
from gateway.admission import OPEN
from gateway.app import create_app
from gateway.responses.ids import new_id
from gateway.settings import GatewaySettings
from indexer.index.library import names
from indexer.index.settings import IndexSettings
from tests.integration import edges, stalling_vllm
from tests.integration.conftest import RunIndexer
from tests.integration.edges import MESSAGES, QUESTION, Gateway
from tests.integration.stalling_vllm import StallingVllm, When

SOON_S = 1.0
"""It may be later while the machine has other work, but mostly it is not."""
AT_THE_LATEST_S = 4.0
"""Nothing that the gateway waits for has its own end before that."""
TENANT = "default"
STORE, FILE, BATCH = (names.new_id(kind) for kind in ("vector store", "file", "file batch"))
with acting_as(Caller(name="test", tenant=TENANT)):
    RESPONSE = new_id()
STORAGE: tuple[str, When] = ("/webhdfs/", "head")
"""A storage that can be reached, and hands nothing out."""
CHAT = "/v1/chat/completions"
ONE_STORE = "/v1/vector_stores/{store_id:str}"
ONE_FILE = f"{ONE_STORE}/files/{{file_id:str}}"
FORM = (
    b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nassistants\r\n'
    b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.txt"\r\n\r\nx\r\n--b--\r\n'
)
MULTIPART = ("content-type", "multipart/form-data; boundary=b")
LONGER = ("content-length", "1000")
"""Of a body that does not come whole."""


class Moment(NamedTuple):
    """A request that never is answered."""

    method: str
    route: str
    """As the application has it."""
    body: Any = None
    stall: tuple[str, When] | None = None
    """Where the model server falls silent; where it is not asked, Milvus or the storage is."""
    hears: bytes = b""
    """What the client has had of its answer when it leaves."""
    query: str = ""
    path: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def address(self) -> str:
        """Where it is sent."""
        values = {"store_id": STORE, "file_id": FILE, "batch_id": BATCH, "response_id": RESPONSE}
        said = self.path or self.route
        for name, value in values.items():
            said = said.replace(f"{{{name}:str}}", value)
        return said + self.query


def answered(route: str, path: str, body: dict[str, Any], *, prefix: str = "") -> list[Moment]:
    """Each moment of an answer of the model server, plain and as a stream."""
    body = {"model": "default", **body}
    stream = body | {"stream": True}
    event = b"\n\n"
    return [
        Moment("POST", route, body, (path, "head"), path=prefix),
        Moment("POST", route, body, (path, "body"), path=prefix),
        Moment("POST", route, body, (path, "middle"), path=prefix),
        Moment("POST", route, stream, (path, "head"), path=prefix),
        Moment("POST", route, stream, (path, "body"), path=prefix),
        Moment("POST", route, stream, (path, "middle"), event, path=prefix),
    ]


GROUNDED = {"retrieval": {"enabled": True}}
LEANING = [
    *MESSAGES,
    {"role": "assistant", "content": "Grass."},
    {"role": "user", "content": "It?"},
]
AZURE = "/openai/deployments/{deployment:path}"
TEXTS = {"model": "small", "input": QUESTION}
MOMENTS = [
    *answered(CHAT, CHAT, {"messages": MESSAGES}),
    # Of a search: Milvus says nothing.
    Moment("POST", CHAT, {"model": "default", "messages": MESSAGES, **GROUNDED}),
    # Of a question that the model puts anew.
    Moment("POST", CHAT, {"model": "default", "messages": LEANING, **GROUNDED}, (CHAT, "head")),
    Moment("POST", CHAT, b'{"model": "default", ', headers=(LONGER,)),
    *answered("/v1/completions", "/v1/completions", {"prompt": QUESTION}),
    *answered("/v1/responses", "/v1/responses", {"input": QUESTION}),
    *answered("/v1/messages", "/v1/messages", {"messages": MESSAGES, "max_tokens": 9}),
    Moment(
        "POST",
        "/v1/messages/count_tokens",
        {"model": "default", "messages": MESSAGES},
        ("/v1/messages/count_tokens", "head"),
    ),
    *answered(AZURE, CHAT, {"messages": MESSAGES}, prefix="/openai/deployments/d/chat/completions"),
    Moment(
        "POST",
        AZURE,
        TEXTS,
        ("/v1/embeddings", "head"),
        path="/openai/deployments/small/embeddings",
    ),
    Moment("POST", "/v1/embeddings", TEXTS, ("/v1/embeddings", "head")),
    Moment("POST", "/v1/embeddings", TEXTS, ("/v1/embeddings", "middle")),
    *(
        Moment(
            "POST",
            route,
            {"model": "ranker", "query": QUESTION, "documents": ["a"]},
            ("/v1/rerank", "head"),
        )
        for route in ("/v1/rerank", "/v2/rerank")
    ),
    Moment("GET", "/v1/models", None, ("/v1/models", "head")),
    Moment("GET", "/v1/models/{name:path}", None, ("/v1/models", "head"), path="/v1/models/x"),
    Moment("GET", "/v1/responses/{response_id:str}", None, (f"/v1/responses/{RESPONSE}", "head")),
    Moment(
        "GET",
        "/v1/responses/{response_id:str}",
        None,
        (f"/v1/responses/{RESPONSE}", "body"),
        query="?stream=true",
    ),
    Moment(
        "POST",
        "/v1/responses/{response_id:str}/cancel",
        None,
        (f"/v1/responses/{RESPONSE}/cancel", "head"),
    ),
    Moment("POST", f"{ONE_STORE}/search", {"query": QUESTION}),
    Moment("POST", f"{ONE_STORE}/search", {"query": QUESTION, "rewrite_query": True}),
    Moment("GET", "/v1/vector_stores"),
    Moment("POST", "/v1/vector_stores", {"file_ids": [FILE]}),
    Moment("GET", ONE_STORE),
    Moment("POST", ONE_STORE, {"name": "x"}),
    Moment("DELETE", ONE_STORE),
    Moment("GET", f"{ONE_STORE}/files"),
    Moment("POST", f"{ONE_STORE}/files", {"file_id": FILE}),
    Moment("GET", ONE_FILE),
    Moment("POST", ONE_FILE, {"attributes": {}}),
    Moment("DELETE", ONE_FILE),
    Moment("GET", f"{ONE_FILE}/content"),
    Moment("POST", f"{ONE_STORE}/file_batches", {"file_ids": [FILE]}),
    Moment("GET", f"{ONE_STORE}/file_batches/{{batch_id:str}}"),
    Moment("POST", f"{ONE_STORE}/file_batches/{{batch_id:str}}/cancel"),
    Moment("GET", f"{ONE_STORE}/file_batches/{{batch_id:str}}/files"),
    Moment("GET", "/v1/files"),
    Moment("POST", "/v1/files", FORM[:90], headers=(MULTIPART, LONGER)),
    Moment("GET", "/v1/files/{file_id:str}"),
    Moment("DELETE", "/v1/files/{file_id:str}"),
    Moment("GET", "/v1/files/{file_id:str}/content"),
]


def named(moment: Moment) -> str:
    streamed = isinstance(moment.body, dict) and moment.body.get("stream")
    kind = "stream" if streamed or moment.query else "plain"
    return (
        f"{moment.method} {moment.path or moment.route} {kind} {moment.stall and moment.stall[1]}"
    )


@pytest.fixture(scope="module")
def upstream() -> Iterator[StallingVllm]:
    with stalling_vllm.serving() as vllm:
        yield vllm


@pytest.fixture(scope="module")
def gateway(
    upstream: StallingVllm,
    free_port: Callable[[], int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    with edges.running(
        upstream,
        free_port(),
        tmp_path_factory.mktemp("logs"),
        library_url=f"webhdfs://127.0.0.1:{upstream.port}/library",
        model_aliases="d=default",
        embedding_model_name="small",
        reranker_url=upstream.url,
        reranker_model="ranker",
        milvus_timeout_s=300,
    ) as running:
        yield running
        assert "Traceback" not in running.log()


@pytest.fixture(autouse=True)
def as_before(upstream: StallingVllm) -> Iterator[None]:
    yield
    upstream.stalls = {}
    upstream.hang_up()


@pytest.fixture(scope="module")
def took_s() -> Iterator[list[float]]:
    """Seconds from the end of each client to that of what was done for it."""
    took: list[float] = []
    yield took
    assert statistics.median(took) < SOON_S


def until_busy(gateway: Gateway) -> None:
    ends = time.monotonic() + 10
    while not gateway.in_progress():
        assert time.monotonic() < ends, "it was answered"
        time.sleep(0.005)


@pytest.mark.parametrize("moment", MOMENTS, ids=named)
def test_what_is_done_for_a_client_ends_when_it_leaves(
    gateway: Gateway, upstream: StallingVllm, took_s: list[float], moment: Moment
) -> None:
    gateway.until_idle(20)
    upstream.seen.clear()
    upstream.stalls = dict([moment.stall or STORAGE])
    client = gateway.send(moment.method, moment.address, moment.body, dict(moment.headers))
    until_busy(gateway)
    seen = None
    if moment.stall is not None and moment.stall[0] != "/v1/models":  # that is polled as well
        seen = upstream.asked(moment.stall[0])
    if moment.hears:
        edges.read_until(client, moment.hears)
    time.sleep(0.1)
    assert gateway.in_progress() == 1

    client.shutdown(socket.SHUT_RDWR)
    client.close()
    left = time.monotonic()
    gateway.until_idle(AT_THE_LATEST_S)
    if seen is not None:
        assert seen.was_left.wait(max(0.1, left + AT_THE_LATEST_S - time.monotonic()))
    took_s.append(time.monotonic() - left)


def test_no_route_is_forgotten() -> None:
    """Routes that answer out of what the process has need no moment of their own."""
    app = create_app(GatewaySettings())
    routes = {
        (method, route.path)
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        if not handler.opt.get(OPEN)
        for method in handler.http_methods
        if method != "OPTIONS"
    }
    # The same handlers once more, for the plain client of Azure.
    again = {("/openai" + path) for _, path in routes}
    tried = {(moment.method, moment.route) for moment in MOMENTS}

    assert {(method, path) for method, path in routes if path not in again} == tried


def test_what_a_search_and_a_prompt_wait_for_ends_too(
    upstream: StallingVllm,
    documents: Path,
    run_indexer: RunIndexer,
    index_settings: IndexSettings,
    free_port: Callable[[], int],
    tmp_path: Path,
) -> None:
    run_indexer(documents)
    with edges.running(
        upstream,
        free_port(),
        tmp_path,
        encoder_url="",
        encoder_model=index_settings.encoder_model,
        encoder_threads=1,
        milvus_uri=index_settings.milvus_uri,
        knowledge_base=index_settings.knowledge_base,
        reranker_url=upstream.url,
        reranker_model="ranker",
        retrieval=True,
    ) as gateway:
        gateway.until_ready(60)
        for path in ("/v1/rerank", "/tokenize"):
            upstream.seen.clear()
            upstream.stalls = {path: "head"}
            # So long an answer leaves so little room that the prompt has to be counted.
            body = {"model": "default", "messages": MESSAGES, "max_completion_tokens": 4_000}
            client = gateway.send("POST", CHAT, body)
            seen = upstream.asked(path)
            client.close()
            gateway.until_idle(AT_THE_LATEST_S)
            assert seen.was_left.wait(1)
