"""What is secret stays where it belongs, at the lowest level of the log, whatever goes wrong.

A real gateway is asked on its routes, with words in keys, headers, questions and documents that
must not appear in its log, its metrics, its documentation, or where they are not expected.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from stack import servers

from indexer.index.settings import IndexSettings
from tests.integration import fake_vllm
from tests.integration.conftest import RunIndexer

UPSTREAM_KEY, RERANK_KEY, CLIENT_KEY = "upstreamcanary", "rerankcanary", "clientcanary"
QUESTION, PASSAGE, HEADER = "questioncanary", "passagecanary", "headercanary"
CANARIES = (UPSTREAM_KEY, RERANK_KEY, CLIENT_KEY, QUESTION, PASSAGE, HEADER, "tokencanary")
SENT = {"host", "content-type", "authorization", "content-length"}
"""The only headers that a server behind the gateway gets with what a client wanted."""
HEADERS = {
    "authorization": f"Bearer {CLIENT_KEY}",
    "api-key": CLIENT_KEY,
    "x-api-key": CLIENT_KEY,
    "cookie": f"session={HEADER}",
    "proxy-authorization": HEADER,
    "x-forwarded-for": HEADER,
    "x-request-id": "anidofmyown",
    "traceparent": f"00-{HEADER}",
    "baggage": f"a={HEADER}",
    "user-agent": HEADER,
    "x-groundserve-anything": HEADER,
    "accept-language": HEADER,
}
MESSAGES = [{"role": "user", "content": f"What do llamas eat? {QUESTION}"}]


class Running(NamedTuple):
    """A gateway, and what came of it."""

    http: httpx.Client
    log: Path
    seen: list[tuple[str, dict[str, str]]]
    """Path and headers of each POST that came to a server behind it."""


class Repeating(fake_vllm.Handler):
    """Repeats the request where it is told to fail."""

    seen: list[tuple[str, dict[str, str]]]

    def do_POST(self) -> None:  # noqa: N802  # so http.server calls it
        self.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        content = self.rfile.peek()  # type: ignore[attr-defined]
        failed = re.search(rb"fail-(\d+)", content)
        if failed is None or self.path == "/tokenize":
            super().do_POST()
            return
        self.rfile.read(int(self.headers["content-length"]))
        said = f"{content.decode(errors='replace')} {self.headers['authorization']}"
        error = {"message": said.replace(UPSTREAM_KEY, "").replace(RERANK_KEY, ""), "code": 500}
        if b"in-stream" in content:
            self._send(
                200, f"data: {json.dumps({'error': error})}\n\n".encode(), "text/event-stream"
            )
        else:
            self._send(int(failed[1]), {"error": error})


@pytest.fixture
def running(
    documents: Path,
    run_indexer: RunIndexer,
    index_settings: IndexSettings,
    free_port: Callable[[], int],
    tmp_path: Path,
) -> Iterator[Running]:
    (documents / "alpaca.md").write_text(f"# Alpacas\n\nAlpacas eat {PASSAGE} grass.\n")
    run_indexer(documents)
    seen: list[tuple[str, dict[str, str]]] = []
    port = free_port()
    with fake_vllm.serving(type("Handler", (Repeating,), {"seen": seen})) as upstream_url:
        environment = {
            "GROUNDSERVE_LOG_LEVEL": "debug",
            "GROUNDSERVE_MILVUS_URI": index_settings.milvus_uri,
            "GROUNDSERVE_MILVUS_TOKEN": "root:tokencanary",
            "GROUNDSERVE_ENCODER_MODEL": index_settings.encoder_model,
            "GROUNDSERVE_ENCODER_THREADS": "1",
            "GROUNDSERVE_KNOWLEDGE_BASE": index_settings.knowledge_base,
            "GROUNDSERVE_MAX_NUM_RESULTS": "5",
            "GROUNDSERVE_UPSTREAM_URL": upstream_url,
            "GROUNDSERVE_UPSTREAM_API_KEY": UPSTREAM_KEY,
            "GROUNDSERVE_RERANKER_MODEL": fake_vllm.MODEL,
            "GROUNDSERVE_RERANKER_URL": upstream_url,
            "GROUNDSERVE_RERANKER_API_KEY": RERANK_KEY,
            "GROUNDSERVE_LIBRARY_URL": str(tmp_path / "library"),
        }
        with servers.gateway(port, environment, tmp_path / "logs") as gateway:
            gateway.wait_ready()
            with httpx.Client(
                base_url=f"http://127.0.0.1:{port}", headers=HEADERS, timeout=30
            ) as http:
                yield Running(http, gateway.log, seen)


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "default", "messages": MESSAGES} | more


def failing(how: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": f"llamas {QUESTION} {how}"}]


REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", chat()),
    ("/v1/chat/completions", chat(stream=True)),
    ("/v1/chat/completions", chat(retrieval={"num_queries": 3, "explain": True})),
    ("/v1/chat/completions", chat(retrieval={"dry_run": True})),
    ("/v1/completions", {"model": "default", "prompt": QUESTION, "retrieval": True}),
    ("/v1/responses", {"model": "default", "input": QUESTION}),
    ("/v1/messages", {"model": "default", "max_tokens": 9, "messages": MESSAGES}),
    ("/v1/embeddings", {"model": "model", "input": [QUESTION]}),
    ("/v1/rerank", {"model": fake_vllm.MODEL, "query": QUESTION, "documents": [PASSAGE]}),
    # What fails, and how.
    ("/v1/chat/completions", chat(messages=failing("fail-500"))),
    ("/v1/chat/completions", chat(messages=failing("fail-400"))),
    ("/v1/chat/completions", chat(messages=failing("fail-422"), stream=True)),
    ("/v1/chat/completions", chat(messages=failing("fail-200 in-stream"), stream=True)),
    ("/v1/chat/completions", chat(messages=failing("fail-502"), retrieval={"num_queries": 3})),
    ("/v1/responses", {"model": "default", "input": f"{QUESTION} fail-500"}),
    ("/v1/messages", {"model": "default", "max_tokens": 9, "messages": failing("fail-500")}),
    ("/v1/rerank", {"model": fake_vllm.MODEL, "query": "fail-500", "documents": [PASSAGE]}),
    ("/v1/chat/completions", chat(messages=[{"role": QUESTION, "content": 1}])),
    ("/v1/chat/completions", chat(model=QUESTION)),
    ("/v1/chat/completions", chat(retrieval={"filters": {"type": "eq", "key": QUESTION}})),
    ("/v1/chat/completions", chat(retrieval={"vector_store_ids": [QUESTION]})),
    (f"/v1/{QUESTION}", {}),
]


def test_secrets_prompts_and_documents_are_in_no_log_and_go_nowhere_else(running: Running) -> None:
    told: list[str] = []
    for path, said in REQUESTS:
        response = running.http.post(path, json=said)
        told.append(response.text)
        assert response.headers["x-request-id"] == "anidofmyown"
        assert "BaseHTTP" not in response.headers.get("server", "")  # as the one behind says it
    form = {"file": (f"{QUESTION}.md", f"# {PASSAGE}")}
    running.http.post("/v1/files", files=form, data={"purpose": "assistants"}).raise_for_status()
    running.http.post("/v1/files", files=form, data={"purpose": QUESTION})
    running.http.post("/v1/chat/completions", content=f'{{"{QUESTION}": NaN')

    answered = "".join(told)
    assert PASSAGE in answered  # the documents reached the answers
    assert QUESTION in answered
    told += [running.http.get(path).text for path in ("/metrics", "/openapi.json", "/health/ready")]
    for secret in (UPSTREAM_KEY, RERANK_KEY, CLIENT_KEY, HEADER, "tokencanary"):
        assert secret not in "".join(told)
    log = running.log.read_text()
    assert " DEBUG " in log or " INFO " in log
    assert [canary for canary in CANARIES if canary in log] == []
    assert QUESTION not in told[-3]

    assert {path for path, _ in running.seen} == {
        *("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"),
        "/v1/rerank",
    }
    for path, headers in running.seen:
        assert set(headers) == SENT
        key = RERANK_KEY if path == "/v1/rerank" else UPSTREAM_KEY
        assert headers["authorization"] == f"Bearer {key}"
        assert not {CLIENT_KEY, HEADER} & set("".join(headers.values()).split())
