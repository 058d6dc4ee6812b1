"""Answers without what a part that is away would have given: when that may be, and how it is told.

Never for what a client did wrong, nor for what an operator has to mend: an index that is not there
or is another encoder's stays away, and nobody should get used to that. Never either for a client
that wants no answer where nothing is found. Too much load is no reason: a moment later there is
room, and the answer is a grounded one.
"""

import logging
from typing import Literal

from prometheus_client import Counter

from gateway.errors import UpstreamFailure
from indexer.index.errors import EncoderFailure, IndexUnavailable

Part = Literal["milvus", "encoder", "reranker"]
HEADER = "x-groundserve-degraded"
"""Of an answer: the parts that it was made without."""
DETAIL = "degraded"
"""The same in the answer's context."""
UNSEARCHED = (EncoderFailure, IndexUnavailable)
"""Why nothing could be searched."""
UNRANKED = (EncoderFailure, UpstreamFailure)
"""Why what was found could not be ranked."""

ANSWERS = Counter(
    "groundserve_degraded",
    "Answers that were made without a part that was away.",
    ["part"],
)
_log = logging.getLogger(__name__)


def searching_part(failure: Exception) -> Part:
    """Which one is away, where nothing could be searched."""
    return "encoder" if isinstance(failure, EncoderFailure) else "milvus"


def degraded(part: Part, failure: Exception) -> tuple[Part, ...]:
    """Count an answer that is made without `part`, and say why."""
    ANSWERS.labels(part).inc()
    _log.warning("answered without the %s: %s", part, failure)
    return (part,)
