"""The table from failures to statuses and OpenAI error bodies."""

import re
from types import ModuleType
from typing import Any

import msgspec
import pytest
from litestar import Request
from litestar.exceptions import (
    HTTPException,
    InternalServerException,
    MethodNotAllowedException,
    NotFoundException,
)

import gateway.errors
import indexer.index.errors
from gateway.edge import RETRY_AFTER_S, add_request_id, error_response
from gateway.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    RateLimited,
    Refused,
    UpstreamRejected,
    UpstreamUnavailable,
)
from gateway.events import error_event
from gateway.verdicts import error_body, verdict
from indexer.index.errors import FilterInvalid, LeaseFailure, NotInLibrary

# Class: status, type, code, and whether the client is told to try again.
EXPECTED: dict[str, tuple[int, str, str | None, bool]] = {
    "Unauthenticated": (401, "invalid_request_error", "invalid_api_key", False),
    "NothingFound": (404, "invalid_request_error", "nothing_found", False),
    "FilterInvalid": (400, "invalid_request_error", None, False),
    "ModelNotFound": (404, "invalid_request_error", "model_not_found", False),
    "VectorStoreNotFound": (404, "invalid_request_error", "vector_store_not_found", False),
    "ResponseNotFound": (404, "invalid_request_error", "response_not_found", False),
    "PreviousResponseNotFound": (
        *(400, "invalid_request_error", "previous_response_not_found", False),
    ),
    "PermissionDenied": (403, "invalid_request_error", "permission_denied", False),
    "VectorStoreReadOnly": (403, "invalid_request_error", "vector_store_read_only", False),
    "UploadsDisabled": (403, "invalid_request_error", "uploads_disabled", False),
    "NotInLibrary": (404, "invalid_request_error", "not_found", False),
    "LibraryUnavailable": (503, "server_error", "library_unavailable", True),
    "Refused": (405, "invalid_request_error", "method_not_supported", False),
    "RateLimited": (429, "tokens", "rate_limit_exceeded", True),
    "Overloaded": (503, "server_error", "overloaded", True),
    "GatewayStopping": (503, "server_error", "gateway_stopping", True),
    "DeadlineExceeded": (504, "server_error", "request_timeout", False),
    "UpstreamUnavailable": (503, "server_error", "model_unavailable", True),
    "UpstreamRejected": (502, "server_error", "model_server_failed", False),
    "UpstreamBroken": (502, "server_error", "model_answer_broken", False),
    "IndexUnavailable": (503, "server_error", "index_unavailable", True),
    "KnowledgeBaseMissing": (503, "server_error", "index_missing", True),
    "FingerprintMismatch": (503, "server_error", "index_mismatch", False),
    "IndexRefused": (502, "server_error", "index_failed", False),
    "EncoderUnavailable": (503, "server_error", "encoder_unavailable", True),
    "EncodingFailed": (500, "server_error", "encoding_failed", False),
}


PARAMS = {"ModelNotFound": "model", "PreviousResponseNotFound": "previous_response_id"}
"""What some failures say is wrong, whatever the request."""
ALWAYS_THE_SAME = {"ContextLengthExceeded", "InvalidRequest"}
"""Tried by themselves: one says more than a reason, and one has another below it."""


def leaves(module: ModuleType) -> dict[str, type[Exception]]:
    """The classes of a module's tree that have none below them: those that are raised."""
    classes = [
        found
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, Exception)
    ]
    return {
        found.__name__: found
        for found in classes
        if not found.__subclasses__() and not issubclass(found, LeaseFailure)  # writers' alone
    }


NEVER_AT_THE_EDGE = {"TokensInvalid"}
"""What is an InvalidRequest by then, which names the field of the request."""
CLASSES = {
    name: found
    for name, found in (leaves(gateway.errors) | leaves(indexer.index.errors)).items()
    if name not in NEVER_AT_THE_EDGE
}


def failure_of(name: str) -> Exception:
    if name == "Refused":
        return Refused("the reason", 405, "method_not_supported")
    if name == "NotInLibrary":
        return NotInLibrary("file", "the reason")
    if name == "RateLimited":
        return RateLimited("the reason", "tokens", 1.5)
    if name == "UpstreamRejected":
        failure = UpstreamRejected("the reason", status=500)
        assert "the reason" not in str(failure)  # that is for the client alone
        return failure
    return CLASSES[name]("the reason")


def answered(
    failure: Exception, host: bytes = b"test"
) -> tuple[int | None, dict[str, str], dict[str, Any]]:
    """Status, headers and the inside of the error body of a whole response."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": [(b"host", host)],
    }
    request: Request[Any, Any, Any] = Request(scope)  # type: ignore[arg-type]
    response = error_response(request, failure)
    body = msgspec.json.decode(response.content, type=dict[str, dict[str, Any]])
    assert list(body) == ["error"]
    assert response.media_type == "application/json"
    return response.status_code, dict(response.headers), body["error"]


def test_every_class_of_both_trees_has_its_row_here() -> None:
    assert set(EXPECTED) == set(CLASSES) - ALWAYS_THE_SAME


def test_a_request_that_is_wrong_names_the_part() -> None:
    status, _, error = answered(InvalidRequest("the reason", "messages[0]"))

    assert (status, error["param"], error["code"]) == (400, "messages[0]", None)
    assert error["type"] == "invalid_request_error"


def test_messages_that_are_too_long_are_told_as_openai_does() -> None:
    status, _, error = answered(ContextLengthExceeded(max_model_len=1000, prompt_tokens=1200))

    assert (status, error["param"], error["code"]) == (
        400,
        "messages",
        "context_length_exceeded",
    )
    assert "1000" in error["message"]
    assert "1200" in error["message"]


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_failure_has_its_status_and_an_openai_error_body(name: str) -> None:
    status, type_, code, retry = EXPECTED[name]
    failure = failure_of(name)
    got_status, headers, error = answered(failure)

    assert got_status == status
    assert error == {
        "message": getattr(failure, "message", str(failure)),
        "type": type_,
        "param": PARAMS.get(name),
        "code": code,
    }
    assert ("retry-after" in headers) is retry


def test_a_retry_is_told_in_seconds_and_in_milliseconds() -> None:
    _, headers, _ = answered(UpstreamUnavailable("away"))

    assert headers["retry-after"] == str(RETRY_AFTER_S)
    assert headers["retry-after-ms"] == str(1000 * RETRY_AFTER_S)


def test_the_parameter_that_is_wrong_is_named() -> None:
    for failure in (InvalidRequest("no", "messages[3]"), FilterInvalid("no", "messages[3]")):
        _, _, error = answered(failure)

        assert error["param"] == "messages[3]"


@pytest.mark.parametrize(
    ("vllm_status", "param", "expected"),
    [
        (400, "input_tokens", (400, "invalid_request_error", "context_length_exceeded", False)),
        (422, "input_text", (400, "invalid_request_error", "context_length_exceeded", False)),
        (400, "temperature", (400, "invalid_request_error", None, False)),
        (400, None, (400, "invalid_request_error", None, False)),
        (401, None, (502, "server_error", "model_server_refused_gateway", False)),
        (403, None, (502, "server_error", "model_server_refused_gateway", False)),
        (404, "model", (404, "invalid_request_error", "model_not_found", False)),
        (413, None, (413, "invalid_request_error", None, False)),
        (422, None, (422, "invalid_request_error", None, False)),
        (429, None, (429, "rate_limit_error", "rate_limit_exceeded", True)),
        (500, None, (502, "server_error", "model_server_failed", False)),
        (501, None, (502, "server_error", "model_server_failed", False)),
        (200, None, (502, "server_error", "model_server_failed", False)),
    ],
)
def test_errors_of_vllm_become_those_of_openai(
    vllm_status: int, param: str | None, expected: tuple[int, str, str | None, bool]
) -> None:
    status, headers, error = answered(UpstreamRejected("vLLM's reason", vllm_status, param))

    assert (status, error["type"], error["code"], "retry-after" in headers) == expected
    part = "messages" if error["code"] == "context_length_exceeded" else param
    assert (error["message"], error["param"]) == ("vLLM's reason", part)


def test_an_earlier_response_that_vllm_does_not_know_is_called_what_the_client_calls_it() -> None:
    status, _, error = answered(UpstreamRejected("not found", 404, "response_id"))

    assert (status, error["code"]) == (400, "previous_response_not_found")
    assert error["param"] == "previous_response_id"


def test_a_prompt_that_is_too_long_is_called_what_the_client_calls_it() -> None:
    failure = UpstreamRejected("too long", 400, "input_tokens")
    failure.prompt_field = "input"

    assert answered(failure)[2]["param"] == "input"


@pytest.mark.parametrize("failure", [RuntimeError("secret"), KeyError("secret"), OSError("secret")])
def test_an_unexpected_error_tells_clients_nothing_of_its_text_and_the_log_all(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    status, headers, error = answered(failure)

    assert (status, error["code"], error["type"]) == (500, "internal_error", "server_error")
    assert "secret" not in str(error) + str(headers)
    assert "secret" in caplog.text
    assert "POST '/v1/chat/completions'" in caplog.text


def test_an_internal_error_of_litestar_tells_clients_nothing_of_its_text() -> None:
    assert "secret" not in error_body(InternalServerException("secret")).message


def test_a_class_that_has_no_row_is_internal_and_not_by_chance_another() -> None:
    class NewFailure(gateway.errors.GatewayFailure):
        """A class that someone forgot to give a row."""

    assert verdict(NewFailure("x")).code == "internal_error"


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (NotFoundException("gone"), "unknown_url"),
        (MethodNotAllowedException("no", headers={"allow": "POST"}), "method_not_supported"),
        (HTTPException("large", status_code=413), "request_too_large"),
        (HTTPException("odd", status_code=418), None),
    ],
)
def test_what_litestar_refuses_has_openais_shape_too(
    refusal: HTTPException, code: str | None
) -> None:
    status, headers, error = answered(refusal)

    assert status == refusal.status_code
    assert error == {
        "message": refusal.detail
        if refusal.status_code != 404
        else "There is nothing at POST /v1/chat/completions.",
        "type": "invalid_request_error",
        "param": None,
        "code": code,
    }
    assert headers.get("allow") == (refusal.headers or {}).get("allow")


@pytest.mark.parametrize("host", [b"a:99999999", b"a:bc", b"[", b"\xff"])
def test_a_host_that_is_none_is_no_reason_for_another_answer(host: bytes) -> None:
    for failure in (NotFoundException("gone"), RuntimeError("secret")):
        assert answered(failure, host) == answered(failure)


def test_an_error_event_is_one_event_with_the_same_body() -> None:
    event = error_event(UpstreamRejected("line one\nline two", 429))

    assert re.fullmatch(rb"data: [^\n]+\n\n", event)
    body = error_body(UpstreamRejected("line one\nline two", 429))
    assert msgspec.json.decode(event[5:]) == {"error": msgspec.to_builtins(body)}


async def request_id(*brought: tuple[bytes, bytes]) -> str:
    message: Any = {"type": "http.response.start", "status": 200, "headers": []}
    scope: Any = {"path": "/v1/models", "headers": list(brought)}
    await add_request_id(message, scope)
    [(name, value)] = message["headers"]
    assert name == b"x-request-id"
    return str(value.decode())


@pytest.mark.anyio
@pytest.mark.parametrize("brought", [b"abc-123", b"x", b"a b", b"y" * 128])
async def test_a_request_keeps_the_id_it_brought(brought: bytes) -> None:
    assert await request_id((b"accept", b"*/*"), (b"x-request-id", brought)) == brought.decode()


@pytest.mark.anyio
@pytest.mark.parametrize("brought", [b"", b"y" * 129, b"a\nb", b"a\x00b", b"caf\xc3\xa9", b"\xff"])
async def test_an_id_that_cannot_be_logged_safely_is_replaced(brought: bytes) -> None:
    assert re.fullmatch("req_[0-9a-f]{24}", await request_id((b"x-request-id", brought)))


@pytest.mark.anyio
async def test_requests_without_an_id_get_different_ones() -> None:
    assert await request_id() != await request_id()


@pytest.mark.anyio
async def test_only_the_start_of_a_response_gets_an_id() -> None:
    message: Any = {"type": "http.response.body", "body": b"x"}
    scope: Any = {"path": "/v1/models", "headers": []}
    await add_request_id(message, scope)

    assert message == {"type": "http.response.body", "body": b"x"}
