"""The OpenAPI document and its page: every route is in it, and what is in it is right."""

import re
from typing import Any

import msgspec
import pytest
from litestar.routes import HTTPRoute
from litestar.testing import TestClient
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.app import create_app
from gateway.errors import InvalidRequest, ModelNotFound, UpstreamRejected
from gateway.routes.documentation import documented
from gateway.schemas.components import components
from gateway.schemas.documented import Documented, operation
from gateway.settings import GatewaySettings
from gateway.verdicts import codes
from tests.unit.conftest import FakeReader, FakeUpstream
from tests.unit.index_fakes import FakeEncoder

METHODS = ("get", "post", "put", "patch", "delete")
WITHOUT_BODY = {"cancelResponse", "cancelVectorStoreFileBatch"}
"""Operations that change something and are told by their path alone what."""

NOTHING = Documented(id="x", tag="t", summary="s")


@pytest.fixture(scope="module")
def client() -> TestClient[Any]:
    """The application, which is not started: nothing of it is needed."""
    app = create_app(
        GatewaySettings(),
        servers=[FakeUpstream("m")],
        reader=FakeReader([]),
        load_encoder=FakeEncoder,
    )
    return TestClient(app, base_url="http://127.0.0.1")


@pytest.fixture(scope="module")
def document(client: TestClient[Any]) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()
    return found


@pytest.fixture(scope="module")
def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By method and path."""
    return {
        f"{method} {path}": item[method]
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    }


def test_the_document_is_valid_openapi(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()

    assert document["openapi"].startswith("3.1")


def test_every_route_is_documented(client: TestClient[Any]) -> None:
    undocumented = [
        f"{method} {route.path}"
        for route in client.app.routes
        if isinstance(route, HTTPRoute)
        for method, (handler, _) in route.route_handler_map.items()
        if handler.resolve_include_in_schema() and not hasattr(handler.operation_class, "said")
    ]

    assert undocumented == []


def test_nothing_is_left_out_but_the_documentation_and_what_it_says_elsewhere(
    client: TestClient[Any],
) -> None:
    left_out = {
        route.path
        for route in client.app.routes
        if isinstance(route, HTTPRoute)
        for method, (handler, _) in route.route_handler_map.items()
        if method != "OPTIONS"
        and not handler.resolve_include_in_schema()
        # Azure's names of OpenAI's paths.
        and not route.path.startswith("/openai/")
    }

    assert {path for path in left_out if not path.startswith("/docs")} == {"/openapi.json"}


def test_what_changes_something_documents_its_body(operations: dict[str, dict[str, Any]]) -> None:
    without = {
        said["operationId"]
        for name, said in operations.items()
        if name.split()[0] in ("post", "put", "patch") and "requestBody" not in said
    }

    assert without <= WITHOUT_BODY


def test_every_operation_tells_people_what_it_does(operations: dict[str, dict[str, Any]]) -> None:
    for name, said in operations.items():
        assert said["summary"], name
        assert said["description"], name
        assert len(said["tags"]) == 1, name
        assert re.fullmatch("[a-z][A-Za-z0-9]+", said["operationId"]), name


def test_the_tags_of_operations_are_the_documents(
    document: dict[str, Any], operations: dict[str, dict[str, Any]]
) -> None:
    named = {tag["name"] for tag in document["tags"]}

    assert {said["tags"][0] for said in operations.values()} <= named


def test_every_operation_has_its_error_body(operations: dict[str, dict[str, Any]]) -> None:
    for name, said in operations.items():
        for status, response in said["responses"].items():
            if int(status) >= 400 and (name, status) != ("get /health/ready", "503"):
                shape = response["content"]["application/json"]["schema"]["$ref"]
                assert shape.endswith(("/ErrorResponse", "/AnthropicError")), (name, status)


def test_the_operations_of_openai_have_its_names(operations: dict[str, dict[str, Any]]) -> None:
    assert operations["post /v1/chat/completions"]["operationId"] == "createChatCompletion"
    assert operations["post /v1/embeddings"]["operationId"] == "createEmbedding"
    assert operations["get /v1/models"]["operationId"] == "listModels"


def test_a_stream_is_documented_beside_the_whole_answer(
    operations: dict[str, dict[str, Any]],
) -> None:
    content = operations["post /v1/chat/completions"]["responses"]["200"]["content"]

    assert set(content) == {"application/json", "text/event-stream"}
    [json, end] = content["text/event-stream"]["schema"]["properties"]["data"]["anyOf"]
    assert json["contentSchema"]["anyOf"] == [
        {"$ref": "#/components/schemas/ChatCompletionChunk"},
        {"$ref": "#/components/schemas/ErrorResponse"},
    ]
    assert end["const"] == "[DONE]"


def test_what_may_go_wrong_is_what_the_table_of_verdicts_says(
    operations: dict[str, dict[str, Any]],
) -> None:
    responses = operations["post /v1/chat/completions"]["responses"]

    assert {"400", "404", "413", "429", "500", "502", "503"} < set(responses)
    assert "`model_not_found`" in responses["404"]["description"]
    assert "`index_mismatch`" in responses["503"]["description"]


def test_the_sentence_below_a_field_is_its_description(document: dict[str, Any]) -> None:
    options = document["components"]["schemas"]["RetrievalOptions"]["properties"]

    assert options["num_queries"]["description"]
    assert options["dry_run"]["description"] == "Explain, and do not ask the model."


def test_retrieval_is_documented_with_the_struct_that_reads_it(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    [_, options, _] = schemas["ChatCompletionRequest"]["properties"]["retrieval"]["anyOf"]

    assert options == {"$ref": "#/components/schemas/RetrievalOptions"}
    assert schemas["RetrievalOptions"]["additionalProperties"] is False
    assert {"$ref": "#/components/schemas/ComparisonFilter"} in schemas["RetrievalOptions"][
        "properties"
    ]["filters"]["anyOf"]


def test_a_request_may_have_fields_that_only_vllm_knows(document: dict[str, Any]) -> None:
    request = document["components"]["schemas"]["ChatCompletionRequest"]

    assert request["additionalProperties"] is True
    assert set(request["required"]) == {"model", "messages"}


def test_each_example_is_what_the_body_may_be(
    document: dict[str, Any], operations: dict[str, dict[str, Any]]
) -> None:
    for name, said in operations.items():
        for content in said.get("requestBody", {}).get("content", {}).values():
            if "example" in content:
                schema = content["schema"] | {"components": document["components"]}
                problems = [*OAS31Validator(schema).iter_errors(content["example"])]
                assert problems == [], name


def test_the_document_is_the_same_below_the_page(client: TestClient[Any]) -> None:
    assert client.get("/docs/openapi.json").json() == client.get("/openapi.json").json()


def test_the_page_loads_nothing_from_elsewhere(client: TestClient[Any]) -> None:
    page = client.get("/docs")
    head = page.text.partition("</head>")[0]
    loaded = re.findall(r"(?:src|href)=['\"]([^'\"]+)['\"]", head)

    assert page.headers["content-type"].startswith("text/html")
    assert len(loaded) == 4
    for address in loaded:
        asset = client.get(address)
        assert address.startswith("/docs/")
        assert (asset.status_code, len(asset.content) > 500) == (200, True)


def test_what_is_not_there_below_the_page_is_not_found(client: TestClient[Any]) -> None:
    assert client.get("/docs/other.js").status_code == 404


def test_codes_are_those_of_the_kinds_of_failures_and_of_what_nobody_expects() -> None:
    assert codes(ModelNotFound) == {404: ["model_not_found"], 500: ["internal_error"]}
    assert codes(InvalidRequest) == {400: [], 500: ["internal_error"]}
    assert set(codes(UpstreamRejected)) == {400, 404, 429, 500, 502}


class _Inner(msgspec.Struct):
    """A thing."""

    size: int
    """In metres."""


class _Outer(_Inner):
    """A thing with things in it."""

    parts: list[_Inner] | None = None
    named: str | None = msgspec.field(name="isNamed", default=None)
    """Its name."""


def test_a_struct_with_a_private_name_is_documented_without_the_underscore() -> None:
    schemas = components([_Outer])

    assert {"Inner", "Outer"} < set(schemas)
    assert "_Inner" not in str(schemas)
    assert schemas["Outer"]["properties"]["size"]["description"] == "In metres."
    assert schemas["Outer"]["properties"]["isNamed"]["description"] == "Its name."


KINDS = [
    NOTHING,
    Documented(id="x", tag="t", summary="s", requests=(_Inner,), example={"size": 1}),
    Documented(id="x", tag="t", summary="s", requests=(_Inner, _Outer), events=(_Inner,)),
]


@pytest.mark.parametrize("said", KINDS)
def test_an_operation_has_a_body_where_its_description_has_a_request(said: Documented) -> None:
    found = operation(said)

    assert ("requestBody" in found) == bool(said.requests)
    assert ("413" in found["responses"]) == bool(said.requests)
    assert found["responses"]["200"]["content"]


def test_a_route_at_two_versions_gets_two_names() -> None:
    name = documented(Documented(id="doThis", tag="t", summary="s"))["operation_id"]

    assert name(None, None, ["v1", "things"]) == "doThis"
    assert name(None, None, ["v2", "things"]) == "doThisV2"


def test_a_body_that_may_say_nothing_may_be_left_out(
    operations: dict[str, dict[str, Any]],
) -> None:
    assert operations["post /v1/chat/completions"]["requestBody"]["required"] is True
    assert operations["post /v1/vector_stores"]["requestBody"]["required"] is False


def test_every_failure_that_is_documented_has_a_status_of_its_own(client: TestClient[Any]) -> None:
    named = {
        kind
        for route in client.app.routes
        if isinstance(route, HTTPRoute)
        for handler, _ in route.route_handler_map.values()
        for kind in getattr(handler.operation_class, "said", NOTHING).failures
    }

    assert [kind for kind in named if codes(kind) == codes()] == []
