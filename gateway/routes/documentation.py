"""The API's own description: an OpenAPI document, and a page to read and try it.

The page works without the internet: what it loads comes from here. It needs no key, which a browser
does not send for a page: it says what every gateway says, and nothing of what this one has.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import distribution
from typing import Any, ClassVar

import msgspec
from litestar import Litestar, MediaType, Response, Router, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin
from litestar.openapi.spec import (
    Components,
    OpenAPI,
    Operation,
    PathItem,
    Reference,
    SecurityScheme,
    Tag,
)
from litestar.response import File

from gateway.admission import OPEN
from gateway.routes.serving import AnyRequest
from gateway.schemas.components import components
from gateway.schemas.documented import Documented, operation, parameters
from indexer.index import __version__

PAGE = "/docs"
_SCRIPT, _STYLE, _ICON = "swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"
_PRESET = "swagger-ui-standalone-preset.js"
_ASSETS = {
    _SCRIPT: "text/javascript",
    _PRESET: "text/javascript",
    _STYLE: "text/css",
    _ICON: "image/png",
}
_TAGS = {
    "Chat": "Answers from your documents, in OpenAI's chat API.",
    "Responses": "Answers from your documents, in OpenAI's Responses API.",
    "Messages": "Answers from your documents, in Anthropic's API.",
    "Azure": "Where clients of Azure OpenAI look.",
    "Completions": "OpenAI's older API.",
    "Vector stores": "What is indexed, and searching it.",
    "Files": "Documents to be indexed.",
    "Embeddings": "The gateway's own models.",
    "Models": "What vLLM serves.",
    "Operation": "For operators and their tools.",
}
_KEYS: dict[str, SecurityScheme | Reference] = {
    "bearer": SecurityScheme("http", "As OpenAI's clients send a key.", scheme="bearer"),
    **{
        name: SecurityScheme("apiKey", f"As {whose} clients do.", name, security_scheme_in="header")
        for name, whose in {"api-key": "Azure's", "x-api-key": "Anthropic's"}.items()
    },
}
"""The headers that a key may come in."""


def documented(said: Documented) -> dict[str, Any]:
    """Keywords for the decorator of a route that is described by `said`."""
    return {
        "operation_id": lambda _, __, path: said.id + _later_version(path),
        "tags": [said.tag],
        "summary": said.summary,
        "operation_class": type("DocumentedOperation", (_Operation,), {"said": said}),
        **({"opt": {OPEN: True}} if said.is_open else {}),
    }


def openapi_config() -> OpenAPIConfig:
    """What Litestar is to make of the routes."""
    return _Config(
        title="Groundserve",
        version=__version__,
        description="Answers from your own documents, behind the OpenAI API.",
        tags=[Tag(name, description) for name, description in _TAGS.items()],
        openapi_router=Router(PAGE, route_handlers=[], include_in_schema=False, opt={OPEN: True}),
        path=PAGE,
        components=Components(security_schemes=_KEYS),
        security=[{name: []} for name in _KEYS],
        use_handler_docstrings=True,
        render_plugins=[_Page(), JsonRenderPlugin()],
    )


@dataclass
class _Operation(Operation):
    """An operation whose bodies, which no handler's signature tells, are described by hand."""

    said: ClassVar[Documented]

    def to_schema(self) -> dict[str, Any]:
        found = super().to_schema() | operation(self.said)
        if more := parameters(self.said):
            found["parameters"] = found.get("parameters", []) + more
        return found


@dataclass
class _Document(OpenAPI):
    """The document, with the shapes that its operations name."""

    def to_schema(self) -> dict[str, Any]:
        found = super().to_schema()
        named = [each for said in self._documented() for each in said.types]
        found["components"]["schemas"] = components(named)
        return found

    def _documented(self) -> Iterator[Documented]:
        for path in (self.paths or {}).values():
            operations = vars(path).values() if isinstance(path, PathItem) else ()
            yield from (each.said for each in operations if isinstance(each, _Operation))


class _Config(OpenAPIConfig):
    def to_openapi_schema(self) -> OpenAPI:
        return _Document(**vars(super().to_openapi_schema()))


class _Page(SwaggerRenderPlugin):
    """Swagger UI."""

    def __init__(self) -> None:
        super().__init__(
            js_url=f"{PAGE}/{_SCRIPT}",
            css_url=f"{PAGE}/{_STYLE}",
            standalone_preset_js_url=f"{PAGE}/{_PRESET}",
            favicon=f"<link rel='icon' type='image/png' href='{PAGE}/{_ICON}'>",
            path="/",
        )

    def receive_router(self, router: Router) -> None:
        """Serve what the page loads."""
        for name, media_type in _ASSETS.items():
            router.register(_asset(name, media_type))


@get("/openapi.json", include_in_schema=False, opt={OPEN: True})
async def document(request: AnyRequest) -> Response[bytes]:
    """The document, where tools look for it."""
    return Response(_written(request.app), media_type=MediaType.JSON)


@lru_cache(maxsize=1)
def _written(app: Litestar) -> bytes:
    return msgspec.json.encode(app.openapi_schema.to_schema())


def _asset(name: str, media_type: str) -> HTTPRouteHandler:
    @get(f"/{name}", sync_to_thread=False)
    def asset() -> File:
        return File(
            str(distribution("swagger-ui-py").locate_file(f"swagger_ui/static/{name}")),
            media_type=media_type,
            content_disposition_type="inline",
            headers={"cache-control": "max-age=3600"},
        )

    return asset


def _later_version(path: list[Any]) -> str:
    """What tells operations apart that one handler serves at paths of several versions."""
    first = str(path[0]) if path else ""
    return "V2" if first == "v2" else ""


ROUTES = [document]
