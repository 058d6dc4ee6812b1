"""OpenAI's models."""

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from gateway.models import Models
from gateway.routes.documentation import documented
from gateway.routes.serving import json_response
from gateway.schemas.models import LIST_MODELS, RETRIEVE_MODEL


@get("/v1/models", **documented(LIST_MODELS))
async def list_models(models: NamedDependency[Models]) -> Response[bytes]:
    """What vLLM serves now, `default`, which always means that, and the configured aliases."""
    return json_response({"object": "list", "data": await models.listed()})


@get("/v1/models/{name:path}", **documented(RETRIEVE_MODEL))
async def retrieve_model(models: NamedDependency[Models], name: FromPath[str]) -> Response[bytes]:
    """One model by name; names may hold slashes."""
    await models.refresh()
    return json_response(await models.entry(name.removeprefix("/")))


ROUTES = [list_models, retrieve_model]
