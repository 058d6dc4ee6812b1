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


class NotReady(msgspec.Struct):
    """Some part is not there."""

    status: Literal["not ready"]
    missing: dict[str, str]
    """`vllm`, `milvus`, `encoder` or `reranker`, each with the reason."""


LIVE = Documented(
    id="getLiveness", tag="Operation", summary="Whether the process answers", answers=(Live,)
)
READY = Documented(
    id="getReadiness",
    tag="Operation",
    summary="Whether every part is there that an answer needs",
    answers=(Ready,),
    unready=NotReady,
)
METRICS = Documented(
    id="getMetrics",
    tag="Operation",
    summary="Metrics for Prometheus",
    answer_type="text/plain",
)
