"""What operators ask, as it is documented."""

from typing import Literal

import msgspec

from gateway.schemas.documented import Documented


class Live(msgspec.Struct):
    """The process answers."""

    status: Literal["live"]


class Ready(msgspec.Struct):
    """Every part is there."""

    status: Literal["ready"]
    troubles: dict[str, str] = {}
    """URLs of vLLM servers that are not asked, each with the reason: others stand in for them."""


class NotReady(msgspec.Struct):
    """Some part is not there, or the gateway is about to end."""

    status: Literal["not ready", "draining"]
    missing: dict[str, str] = {}
    """`vllm`, `milvus`, `encoder` or `reranker`, each with the reason."""


LIVE = Documented(
    id="getLiveness",
    tag="Operation",
    summary="Whether the process answers",
    answers=(Live,),
    is_open=True,
)
READY = Documented(
    id="getReadiness",
    tag="Operation",
    summary="Whether every part is there that an answer needs",
    answers=(Ready,),
    unready=NotReady,
    is_open=True,
)
METRICS = Documented(
    id="getMetrics",
    tag="Operation",
    summary="Metrics for Prometheus",
    answer_type="text/plain",
    is_open=True,
)
