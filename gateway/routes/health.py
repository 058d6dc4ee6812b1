"""What operators and their tools ask."""

from litestar import Response, get
from litestar.di import NamedDependency
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from gateway.admission import OPEN
from gateway.health import Health
from gateway.routes.documentation import documented
from gateway.routes.serving import json_response
from gateway.schemas.health import LIVE, METRICS, READY


@get("/health/live", opt={OPEN: True}, **documented(LIVE))
async def live() -> Response[bytes]:
    """The process answers."""
    return json_response({"status": "live"})


@get("/health/ready", opt={OPEN: True}, **documented(READY))
async def ready(health: NamedDependency[Health]) -> Response[bytes]:
    """Every part that an answer needs is there; 503 names those that are not, and why."""
    missing = await health.missing()
    if missing:
        return json_response({"status": "not ready", "missing": missing}, status_code=503)
    return json_response({"status": "ready"})


@get("/metrics", opt={OPEN: True}, media_type=CONTENT_TYPE_LATEST, **documented(METRICS))
async def metrics(metrics_registry: NamedDependency[CollectorRegistry]) -> Response[bytes]:
    """What Prometheus scrapes; of several workers the sum."""
    return Response(generate_latest(metrics_registry), media_type=CONTENT_TYPE_LATEST)


ROUTES = [live, ready, metrics]
