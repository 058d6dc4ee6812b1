"""What schemathesis makes of the served document, sent to a real gateway.

Milvus Lite, the encoder and the library of uploads are real; vLLM is one that answers at once.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stack import servers

from indexer.index.settings import IndexSettings
from tests.integration import fake_vllm
from tests.integration.conftest import RunIndexer
from tests.schemathesis_run import findings

pytestmark = pytest.mark.long

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


@pytest.fixture
def gateway_url(
    documents: Path,
    run_indexer: RunIndexer,
    index_settings: IndexSettings,
    free_port: Callable[[], int],
    tmp_path: Path,
) -> Iterator[str]:
    """Without /v1."""
    (documents / "alpaca.md").write_text("---\nyear: 2024\n---\n# Alpacas\n\nAlpacas hum.\n")
    run_indexer(documents, attributes={"year": "integer"})
    port = free_port()
    with fake_vllm.serving() as upstream_url:
        environment = {
            "GROUNDSERVE_MILVUS_URI": index_settings.milvus_uri,
            "GROUNDSERVE_ENCODER_MODEL": index_settings.encoder_model,
            "GROUNDSERVE_ENCODER_THREADS": "1",
            "GROUNDSERVE_KNOWLEDGE_BASE": index_settings.knowledge_base,
            "GROUNDSERVE_UPSTREAM_URL": upstream_url,
            "GROUNDSERVE_RERANKER_MODEL": fake_vllm.MODEL,
            "GROUNDSERVE_RERANKER_URL": upstream_url,
            "GROUNDSERVE_LIBRARY_URL": str(tmp_path / "library"),
        }
        with servers.gateway(port, environment, tmp_path / "logs") as gateway:
            gateway.wait_ready()
            yield f"http://127.0.0.1:{port}"


def test_no_request_breaks_the_gateway_and_every_answer_is_as_documented(
    gateway_url: str, tmp_path: Path
) -> None:
    if found := findings(gateway_url, CONFIGURATION, tmp_path):
        pytest.fail(found, pytrace=False)
