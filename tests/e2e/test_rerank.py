"""A reranking model that vLLM serves scores as the same model does in the gateway's own process."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from sentence_transformers import CrossEncoder as SentenceCrossEncoder
from stack import servers
from stack.processes import clean_environment

from gateway.errors import UpstreamBroken
from gateway.retrieval.cross_encoder import CrossEncoder
from gateway.retrieval.reranking import RemoteReranker
from gateway.routing import Care
from gateway.settings import GatewaySettings
from gateway.upstream import Upstream

pytestmark = [pytest.mark.anyio, pytest.mark.long]

QUESTION = "How high is the lighthouse?"
PASSAGES = [
    f"Passage {number}: it is {number * 7} metres high, 灯台 and all." for number in range(30)
]
CONFIG = "runner: pooling\ndtype: float32\nenforce-eager: true\nserved-model-name: reranker\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Path) -> Path:
    """The encoder's own layers with one output on top: no good ranker, but a real one."""
    folder = tmp_path_factory.mktemp("rerank") / "model"
    torch.manual_seed(7)
    built = SentenceCrossEncoder(str(encoder_folder), num_labels=1, device="cpu")
    built.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def url(
    model: Path, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    logs, port = tmp_path_factory.mktemp("logs"), free_port()
    config = logs / "reranker.yaml"
    config.write_text(CONFIG)
    server = servers.vllm(port, config, str(model), logs)
    server.environment = clean_environment({**server.environment, "VLLM_CPU_KVCACHE_SPACE": "1"})
    with server:
        server.wait_ready()
        yield f"http://127.0.0.1:{port}/v1"


async def test_a_served_model_scores_as_the_same_model_does_here(url: str, model: Path) -> None:
    served = RemoteReranker(Upstream.connect(GatewaySettings(), url), "reranker", Care())
    try:
        scores = await served.scores(QUESTION, PASSAGES)
    finally:
        await served.close()

    alone = CrossEncoder(str(model), "cpu").scores([(QUESTION, text) for text in PASSAGES])
    assert scores == pytest.approx(alone, abs=1e-4)
    assert len(set(scores)) == len(PASSAGES)


async def test_a_model_that_is_not_served_is_the_rerank_servers_failure(url: str) -> None:
    served = RemoteReranker(Upstream.connect(GatewaySettings(), url), "another", Care())
    try:
        with pytest.raises(UpstreamBroken, match=r"the rerank server: .*another"):
            await served.scores(QUESTION, PASSAGES)
    finally:
        await served.close()
