"""A gateway whose encoder is a real server: another gateway's /v1/embeddings."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from litestar.testing import TestClient
from stack import servers

from gateway.app import create_app
from gateway.settings import GatewaySettings
from indexer.index.collection import IndexReader
from indexer.index.embedding import Encoder
from indexer.index.settings import IndexSettings
from tests.integration import fake_vllm
from tests.integration.conftest import RunIndexer

QUESTION = {"role": "user", "content": "What do llamas eat?"}

Client = TestClient[Any]


@pytest.fixture(scope="module")
def encoder_url(
    encoder_folder: Path,
    milvus_uri: str,
    free_port: Callable[[], int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """Of a gateway that has an encoder, and no index."""
    port, logs = free_port(), tmp_path_factory.mktemp("encoder")
    environment = {
        "GROUNDSERVE_ENCODER_MODEL": str(encoder_folder),
        "GROUNDSERVE_ENCODER_THREADS": "1",
        "GROUNDSERVE_EMBEDDING_MODEL_NAME": "minilm",
        "GROUNDSERVE_MILVUS_URI": milvus_uri,
        "GROUNDSERVE_KNOWLEDGE_BASE": "nothing",
    }
    with fake_vllm.serving() as upstream_url:
        environment["GROUNDSERVE_UPSTREAM_URL"] = upstream_url
        with servers.gateway(port, environment, logs) as gateway:
            ready = gateway.probe
            ends = time.monotonic() + 60
            while "encoder" in (answer := ready() or "") or "no answer" in answer:
                assert time.monotonic() < ends
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture
def client(index_settings: IndexSettings, encoder_url: str) -> Iterator[Client]:
    with fake_vllm.serving() as upstream_url:
        settings = GatewaySettings(
            milvus_uri=index_settings.milvus_uri,
            knowledge_base=index_settings.knowledge_base,
            encoder_model="minilm",
            encoder_url=encoder_url,
            upstream_url=upstream_url,
            poll_interval_s=0.1,
        )
        with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
            yield client


def missing(client: Client) -> dict[str, str]:
    """Reasons by part; empty for a gateway that is ready."""
    reasons: dict[str, str] = client.get("/health/ready").json().get("missing", {})
    return reasons


def until_ready(client: Client, *parts: str) -> None:
    ends = time.monotonic() + 30
    while set(parts) & set(reasons := missing(client)):
        assert time.monotonic() < ends, reasons
        time.sleep(0.05)


def test_questions_find_what_the_same_model_has_indexed(
    client: Client, documents: Path, run_indexer: RunIndexer
) -> None:
    run_indexer(documents)
    until_ready(client, "encoder", "milvus", "vllm")
    body = {"model": "default", "messages": [QUESTION]}
    answer = client.post("/v1/chat/completions", json=body).json()

    citations = answer["choices"][0]["message"]["context"]["citations"]
    assert citations[0]["title"] == "Llamas"


def test_embeddings_are_those_of_the_model_itself(client: Client, encoder: Encoder) -> None:
    until_ready(client, "encoder")
    texts = ["Llamas eat grass.", "orbit " * 2_000]
    found = client.post("/v1/embeddings", json={"model": "minilm", "input": texts}).json()

    vectors = np.array([each["embedding"] for each in found["data"]])
    # Not to the last digit: what goes together into a batch rounds together.
    assert ((vectors * encoder.encode_texts(texts)).sum(axis=1) > 0.999).all()
    assert found["usage"]["total_tokens"] == sum(encoder.count_tokens(texts))
    assert found["model"] == "minilm"
    wrong = {"model": "minilm", "input": [[101, 100_256]]}
    refused = client.post("/v1/embeddings", json=wrong)
    assert refused.status_code == 400
    assert "no token id" in refused.json()["error"]["message"]


def test_an_index_of_another_model_is_refused_by_its_vectors(
    client: Client,
    documents: Path,
    run_indexer: RunIndexer,
    encoder: Encoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = encoder.encode_passages
    monkeypatch.setattr(encoder, "encode_passages", lambda texts: right(texts)[:, ::-1])
    run_indexer(documents)
    until_ready(client, "encoder", "vllm")
    assert "a stored passage gets another vector" in missing(client)["milvus"]
    response = client.post(
        "/v1/chat/completions", json={"model": "default", "messages": [QUESTION]}
    )

    assert response.status_code == 503
    assert response.json()["error"]["code"] == "index_mismatch"


@pytest.mark.anyio
async def test_passages_are_read_as_they_were_embedded(
    index_settings: IndexSettings, documents: Path, run_indexer: RunIndexer, encoder: Encoder
) -> None:
    run_indexer(documents)
    reader = IndexReader(index_settings)
    try:
        generation = await reader.published(index_settings.knowledge_base)
        found = await reader.passages(generation)
    finally:
        await reader.close()

    assert len(found) >= 3
    expected = encoder.encode_passages([text for text, _ in found])
    assert ((np.array([vector for _, vector in found]) * expected).sum(axis=1) > 0.999).all()
