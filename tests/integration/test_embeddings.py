"""`/v1/embeddings` with the real encoder: the same numbers as the model itself gives."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from litestar.testing import TestClient
from sentence_transformers import SentenceTransformer

from gateway.app import create_app
from gateway.encoding import LocalEncoding
from gateway.settings import GatewaySettings
from indexer.index.embedding import Encoder

TEXTS = [
    "Llamas eat grass and hay.",
    "Don't stop: naïve café, 日本語, 🙂!",
    "orbit " * 2_000,
    " ",
    "https://example.org/picture.png",
]
OF_TIKTOKEN = [3923, 656, 9507, 300, 8343, 30]
"""Ids of another tokenizer, all of which this one has: they would be "urban [unused651] …"."""

Client = TestClient[Any]


@pytest.fixture(scope="module")
def model(encoder_folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(encoder_folder), device="cpu")


@pytest.fixture(scope="module")
def client(encoder: Encoder, encoder_folder: Path) -> Iterator[Client]:
    """A gateway whose Milvus and vLLM are away: embeddings need neither."""
    settings = GatewaySettings(
        encoder_model=str(encoder_folder),
        embedding_model_name="minilm",
        milvus_uri="http://127.0.0.1:9",
        milvus_timeout_s=0.1,
    )
    app = create_app(settings, load_encoder=lambda: encoder)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        ends = time.monotonic() + 30
        while "encoder" in client.get("/health/ready").json()["missing"]:
            assert time.monotonic() < ends
        yield client


def embedded(client: Client, given: Any, **fields: Any) -> openai.types.CreateEmbeddingResponse:
    response = client.post("/v1/embeddings", json={"model": "minilm", "input": given} | fields)
    assert response.status_code == 200, response.text
    return openai.types.CreateEmbeddingResponse.model_validate(response.json(), strict=True)


def vectors(response: openai.types.CreateEmbeddingResponse) -> Any:
    return np.array([each.embedding for each in response.data])


def test_vectors_are_those_of_the_model_itself(client: Client, model: SentenceTransformer) -> None:
    found = vectors(embedded(client, TEXTS))

    assert found.shape == (len(TEXTS), 384)
    assert np.allclose(found, model.encode(TEXTS, normalize_embeddings=True), atol=1e-6)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_usage_is_what_the_tokenizer_counts_and_the_model_reads(
    client: Client, model: SentenceTransformer
) -> None:
    for text in TEXTS:
        counted = len(model.tokenizer.encode(text, truncation=True, max_length=256))
        usage = embedded(client, text).usage
        assert usage.prompt_tokens == usage.total_tokens == counted
    assert embedded(client, TEXTS[2]).usage.total_tokens == 256


def test_token_ids_are_the_text_that_they_were_made_of(
    client: Client, model: SentenceTransformer
) -> None:
    texts = [text for text in TEXTS if text.strip()]
    framed = [model.tokenizer.encode(text) for text in texts]
    bare = [model.tokenizer.encode(text, add_special_tokens=False) for text in texts]
    expected = embedded(client, texts)
    for arrays in (framed, bare):
        found = embedded(client, arrays)
        assert np.allclose(vectors(found), vectors(expected), atol=1e-6)
        assert found.usage == expected.usage
    assert np.allclose(vectors(embedded(client, bare[0])), vectors(expected)[:1], atol=1e-6)


def test_a_query_is_what_search_embeds(client: Client, encoder: Encoder) -> None:
    async def asked() -> Any:
        encoding = LocalEncoding(lambda: encoder)
        await encoding.start()
        try:
            return await encoding.queries(TEXTS[:1])
        finally:
            await encoding.close()

    found = vectors(embedded(client, TEXTS[:1], input_type="query"))
    assert np.allclose(found, asyncio.run(asked()), atol=1e-6)


@pytest.mark.parametrize(
    ("given", "param"),
    [
        (OF_TIKTOKEN, "input"),
        ([[2_023], OF_TIKTOKEN], "input[1]"),
        ([[2_023, 100_256]], "input[0]"),
        ([[101, 102]], "input[0]"),
    ],
)
def test_token_ids_of_another_tokenizer_are_refused_and_the_way_out_is_named(
    client: Client, given: Any, param: str
) -> None:
    response = client.post("/v1/embeddings", json={"model": "minilm", "input": given})

    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == param
    assert ("check_embedding_ctx_length=False" in error["message"]) is (given != [[101, 102]])


def test_a_text_of_megabytes_is_read_as_far_as_the_model_reads_at_once(client: Client) -> None:
    began = time.process_time()
    response = embedded(client, "llama " * 600_000)
    read = time.process_time()
    same = embedded(client, "llama " * 300)
    again = time.process_time()

    assert response.usage.total_tokens == 256
    assert np.allclose(vectors(response), vectors(same), atol=1e-6)
    # Twice as much it costs to receive so long a text, and seventy times to take it all apart.
    assert read - began < 15 * (again - read)
