"""What operators and their tools ask, all of it without a key.

An orchestrator has none, and must not take a gateway down because of one that has expired. Metrics
are of all callers together: whoever has a key is not thereby an operator, so a key would let the
wrong ones in. Who reaches these paths is decided by the network, as for vLLM and Milvus.
"""

from litestar import Response, get
from litestar.di import NamedDependency
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from gateway.exchanges import Exchanges
from gateway.health import Health
from gateway.routes.documentation import documented
from gateway.routes.serving import json_response
from gateway.schemas.health import LIVE, METRICS, READY


@get("/health/live", **documented(LIVE))
async def live() -> Response[bytes]:
    """The process answers."""
    return json_response({"status": "live"})


@get("/health/ready", **documented(READY))
async def ready(
    health: NamedDependency[Health], exchanges: NamedDependency[Exchanges]
) -> Response[bytes]:
    """Every part that an answer needs is there; 503 names those that are not, and why."""
    if exchanges.are_draining:
        return json_response({"status": "draining"}, status_code=503)
    missing = await health.missing()
    if missing:
        return json_response({"status": "not ready", "missing": missing}, status_code=503)
    troubles = health.troubles
    return json_response({"status": "ready", **({"troubles": troubles} if troubles else {})})


@get("/metrics", media_type=CONTENT_TYPE_LATEST, **documented(METRICS))
async def metrics(metrics_registry: NamedDependency[CollectorRegistry]) -> Response[bytes]:
    """What Prometheus scrapes; of several workers the sum."""
    return Response(generate_latest(metrics_registry), media_type=CONTENT_TYPE_LATEST)


ROUTES = [live, ready, metrics]
