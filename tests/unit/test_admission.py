"""Who is let in: holders of keys, on every route but those that are listed here."""

import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute
from litestar.testing import TestClient
from pydantic import SecretStr

from gateway.access.callers import Caller, caller
from gateway.access.keys import KeysUnusable, written
from gateway.app import create_app
from gateway.settings import GatewaySettings
from tests.unit.conftest import COMPLETION, FakeAnswer, FakeReader, FakeUpstream
from tests.unit.index_fakes import FakeEncoder
from tests.unit.test_keys import key_for

CHAT = "/v1/chat/completions"
QUESTION = {"model": "default", "messages": [{"role": "user", "content": "What do llamas eat?"}]}
OPEN = {
    *("GET /health/live", "GET /health/ready", "GET /metrics", "GET /openapi.json"),
    *("GET /docs", "GET /docs/openapi.json", "GET /docs/{path:str}"),
    *("GET /docs/swagger-ui-bundle.js", "GET /docs/swagger-ui-standalone-preset.js"),
    *("GET /docs/swagger-ui.css", "GET /docs/favicon-32x32.png"),
}
OPEN |= {name.replace("GET", "OPTIONS") for name in OPEN if "/docs" in name}
"""Whatever else there is, now or later, wants a key."""
HTTP_METHODS = ("get", "post", "put", "patch", "delete")


class Route(NamedTuple):
    """One that the application answers."""

    name: str
    """Method and path, as they were declared."""
    method: str
    url: str
    """The path, with something in place of its parameters."""


def routes(app: Litestar) -> Iterator[Route]:
    for route in app.routes:
        assert isinstance(route, HTTPRoute), f"{route.path}: nobody has thought of its admission"
        for method in route.route_handler_map:
            url = re.sub(r"\{\w+:\w+\}", "x", route.path)
            yield Route(f"{method} {route.path}", method, url)


@pytest.fixture
def keyed(
    upstream: FakeUpstream, reader: FakeReader, encoder: FakeEncoder
) -> Iterator[TestClient[Any]]:
    """The application with three keys, started."""
    keys = [
        key_for("gs-right", tenant="acme"),
        key_for("gs-expired", name="old", expires_at=1),
        key_for("gs-other", name="bob", tenant="other"),
    ]
    settings = GatewaySettings(open_access=False, api_keys=SecretStr(written(keys).decode()))
    app = create_app(settings, servers=[upstream], reader=reader, load_encoder=lambda: encoder)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        ends = time.monotonic() + 10
        while client.get("/health/ready").status_code != 200:
            assert time.monotonic() < ends
        yield client


def test_every_route_wants_a_key_but_those_that_are_listed(
    keyed: TestClient[Any], upstream: FakeUpstream, reader: FakeReader
) -> None:
    known = list(routes(keyed.app))
    assert {route.name for route in known} >= OPEN
    assert len(known) > 100

    for route in known:
        status = keyed.request(route.method, route.url, json={}).status_code
        assert (status == 401) is (route.name not in OPEN), route.name
    assert upstream.posted == []
    assert reader.searches == []


WRONG: dict[str, dict[str, str]] = {
    "none": {},
    "empty": {"authorization": ""},
    "malformed": {"authorization": "gs-right"},
    "another scheme": {"authorization": "Basic gs-right"},
    "unknown": {"authorization": "Bearer gs-wrong"},
    "unknown, as Azure's clients send it": {"api-key": "gs-wrong"},
    "unknown, as Anthropic's clients send it": {"x-api-key": "gs-wrong"},
    "expired": {"authorization": "Bearer gs-expired"},
}


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize(
    ("path", "is_anthropics"),
    [
        (CHAT, False),
        ("/v1/messages", True),
        ("/openai/deployments/default/chat/completions", False),
    ],
)
def test_whatever_is_wrong_gets_the_same_401(
    headers: dict[str, str], path: str, is_anthropics: bool, keyed: TestClient[Any]
) -> None:
    same = {"x-request-id": "r1"}
    none = keyed.post(path, json=QUESTION, headers=same)
    found = keyed.post(path, json=QUESTION, headers=headers | same)

    assert found.status_code == 401
    assert found.content == none.content
    assert found.headers.multi_items() == none.headers.multi_items()
    assert found.headers["www-authenticate"] == "Bearer"
    if is_anthropics:
        assert found.json()["type"] == "error"
        assert found.json()["error"]["type"] == "authentication_error"
        assert found.json()["request_id"] == "r1"
    else:
        error = found.json()["error"]
        assert (error["type"], error["code"], error["param"]) == (
            *("invalid_request_error", "invalid_api_key", None),
        )
    assert "gs-" not in found.text


def test_a_body_that_is_wrong_in_every_way_is_not_looked_at_before_the_key(
    keyed: TestClient[Any],
) -> None:
    for content in (b"{", b"\xff", b"[" * 100_000):
        assert keyed.post(CHAT, content=content).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [{"authorization": "Bearer gs-right"}, {"api-key": "gs-right"}, {"x-api-key": "gs-right"}],
)
def test_a_key_lets_its_holder_in_however_it_is_sent(
    headers: dict[str, str], keyed: TestClient[Any], answer: FakeAnswer
) -> None:
    response = keyed.post(CHAT, json=QUESTION, headers=headers)

    assert response.status_code == 200
    assert answer.closed


def test_the_caller_of_a_request_is_the_one_whose_key_it_has(
    keyed: TestClient[Any], reader: FakeReader, upstream: FakeUpstream
) -> None:
    tenants = []
    for key in ("gs-right", "gs-other"):
        upstream.answers.append(FakeAnswer([COMPLETION]))
        headers = {"authorization": f"Bearer {key}"}
        assert keyed.post(CHAT, json=QUESTION, headers=headers).status_code == 200
        tenants.append(reader.searches[-1][2].tenant)

    assert tenants == ["acme", "other"]


def test_what_is_not_there_is_not_found_with_and_without_a_key(keyed: TestClient[Any]) -> None:
    for headers in ({}, {"authorization": "Bearer gs-right"}):
        assert keyed.get("/v1/nothing", headers=headers).status_code == 404
        assert keyed.put("/v1/models", headers=headers).status_code == 405


def test_the_key_of_a_client_stays_here(keyed: TestClient[Any], upstream: FakeUpstream) -> None:
    upstream.answers.append(FakeAnswer([COMPLETION]))
    keyed.post(CHAT, json=QUESTION, headers={"authorization": "Bearer gs-right"})

    assert "gs-right" not in str(upstream.posted)


def test_nobody_is_let_in_by_an_application_that_was_told_nothing() -> None:
    with pytest.raises(KeysUnusable):
        create_app(GatewaySettings(open_access=False), servers=[FakeUpstream("m")])


def test_open_access_is_the_settings_tenant_and_outside_of_a_request_there_is_no_caller(
    client: TestClient[Any], reader: FakeReader, answer: FakeAnswer
) -> None:
    assert client.post(CHAT, json=QUESTION).status_code == 200
    assert answer.closed
    assert reader.searches[-1][2].tenant == "acme"
    with pytest.raises(LookupError):
        caller()


def test_the_document_says_of_every_operation_whether_it_wants_a_key(
    keyed: TestClient[Any],
) -> None:
    document = keyed.get("/openapi.json").json()
    schemes = document["components"]["securitySchemes"]

    assert [[*each] for each in document["security"]] == [["bearer"], ["api-key"], ["x-api-key"]]
    assert {name: said.get("name", said.get("scheme")) for name, said in schemes.items()} == {
        name: name for name in ("bearer", "api-key", "x-api-key")
    }
    for path, item in document["paths"].items():
        for method in set(HTTP_METHODS) & set(item):
            is_open = f"{method.upper()} {path}" in OPEN
            assert ("401" in item[method]["responses"]) is not is_open, path
            assert item[method].get("security") == ([] if is_open else None), path


def test_a_caller_is_shown_without_what_would_let_anybody_in() -> None:
    assert isinstance(key_for("gs-right"), Caller)
    assert "gs-right" not in repr(key_for("gs-right"))
