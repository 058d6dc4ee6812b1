"""The edge to HTTP: the one table that turns failures into statuses and OpenAI error bodies."""

import logging
import secrets
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.datastructures import MutableScopeHeaders
from litestar.exceptions import HTTPException
from litestar.types import Message, Scope

from gateway.errors import (
    ClientGone,
    ContextLengthExceeded,
    InvalidRequest,
    ModelNotFound,
    NothingFound,
    UpstreamBroken,
    UpstreamRejected,
    UpstreamUnavailable,
)
from indexer.index.errors import (
    EncoderUnavailable,
    EncodingFailed,
    FilterInvalid,
    FingerprintMismatch,
    IndexFailure,
    IndexUnavailable,
    KnowledgeBaseMissing,
)

RETRY_AFTER_S = 2
"""What clients are told to wait for a part that is away; the SDK honours it."""

_log = logging.getLogger(__name__)


class ErrorBody(msgspec.Struct, frozen=True):
    """The inside of OpenAI's error body."""

    message: str
    type: str
    param: str | None
    code: str | None


class Verdict(msgspec.Struct, frozen=True):
    """How a failure looks from outside."""

    status: int
    type: str
    code: str | None
    retry: bool = False


# Most specific first; the first row whose class fits decides.
_VERDICTS: list[tuple[type[Exception], Verdict]] = [
    (
        ContextLengthExceeded,
        Verdict(400, "invalid_request_error", "context_length_exceeded"),
    ),
    (InvalidRequest, Verdict(400, "invalid_request_error", None)),
    (FilterInvalid, Verdict(400, "invalid_request_error", None)),
    (NothingFound, Verdict(404, "invalid_request_error", "nothing_found")),
    (ModelNotFound, Verdict(404, "invalid_request_error", "model_not_found")),
    (ClientGone, Verdict(499, "invalid_request_error", "client_closed_request")),
    (UpstreamUnavailable, Verdict(503, "server_error", "model_unavailable", retry=True)),
    (UpstreamBroken, Verdict(502, "server_error", "model_answer_broken")),
    (EncoderUnavailable, Verdict(503, "server_error", "encoder_unavailable", retry=True)),
    (EncodingFailed, Verdict(500, "server_error", "encoding_failed")),
    (FingerprintMismatch, Verdict(503, "server_error", "index_mismatch")),
    (KnowledgeBaseMissing, Verdict(503, "server_error", "index_missing", retry=True)),
    (IndexUnavailable, Verdict(503, "server_error", "index_unavailable", retry=True)),
    (IndexFailure, Verdict(502, "server_error", "index_failed")),
]
_TOO_LONG = ("input_tokens", "input_text")
"""What vLLM says is wrong where the messages are too long."""
_INTERNAL = Verdict(500, "server_error", "internal_error")


def verdict(failure: Exception) -> Verdict:
    """The row of the table for `failure`."""
    if isinstance(failure, UpstreamRejected):
        return _rejected(failure)
    if isinstance(failure, HTTPException):
        return _refused(failure)
    for kind, row in _VERDICTS:
        if isinstance(failure, kind):
            return row
    return _INTERNAL


def error_body(failure: Exception) -> dict[str, ErrorBody]:
    """OpenAI's error body for `failure`; what we did not expect tells clients nothing more."""
    row = verdict(failure)
    if row is _INTERNAL:
        message = "The gateway failed on this request. Its log has the reason."
    elif isinstance(failure, HTTPException):
        message = failure.detail
    else:
        message = str(failure)
    param = getattr(failure, "param", None)
    return {
        "error": ErrorBody(message, row.type, "messages" if param in _TOO_LONG else param, row.code)
    }


def error_response(request: Request[Any, Any, Any], failure: Exception) -> Response[bytes]:
    """The whole response for `failure`."""
    row = verdict(failure)
    if row is _INTERNAL:
        _log.error("request failed: %s %s", request.method, request.url.path, exc_info=failure)
    elif row.status >= 500:
        _log.warning("answered %d: %s", row.status, failure)
    headers = dict(failure.headers or {}) if isinstance(failure, HTTPException) else {}
    if row.retry:
        headers |= {"retry-after": str(RETRY_AFTER_S), "retry-after-ms": str(RETRY_AFTER_S * 1000)}
    return Response(
        msgspec.json.encode(error_body(failure)),
        status_code=row.status,
        headers=headers,
        media_type="application/json",
    )


def error_event(failure: Exception) -> bytes:
    """`failure` as an event of a stream whose status is out already; the SDK raises it."""
    _log.warning("a stream ended with an error: %s", failure)
    return b"data: " + msgspec.json.encode(error_body(failure)) + b"\n\n"


async def add_request_id(message: Message, scope: Scope) -> None:
    """Give the response the request's x-request-id, or a new one where it brought none."""
    if message["type"] != "http.response.start":
        return
    brought = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    known = brought.decode("latin-1")
    if not (0 < len(known) <= 128 and known.isascii() and known.isprintable()):
        known = f"req_{secrets.token_hex(12)}"
    MutableScopeHeaders.from_message(message)["x-request-id"] = known


def _rejected(failure: UpstreamRejected) -> Verdict:
    """VLLM's statuses are OpenAI's, but its types are not, and its codes are the status again."""
    match failure.status:
        case 400 | 413 | 422 if failure.param in _TOO_LONG:
            return Verdict(400, "invalid_request_error", "context_length_exceeded")
        case 404:
            return Verdict(404, "invalid_request_error", "model_not_found")
        case 429:
            return Verdict(429, "rate_limit_error", "rate_limit_exceeded", retry=True)
        case 401 | 403:  # our own key is wrong, which is no fault of the client's
            return Verdict(502, "server_error", "model_server_refused_gateway")
        case status if 400 <= status < 500:
            return Verdict(status, "invalid_request_error", None)
    return Verdict(502, "server_error", "model_server_failed")


def _refused(failure: HTTPException) -> Verdict:
    """What Litestar refuses by itself: unknown paths and methods, bodies that are too long."""
    if failure.status_code >= 500:
        return _INTERNAL
    codes = {404: "unknown_url", 405: "method_not_supported", 413: "request_too_large"}
    return Verdict(failure.status_code, "invalid_request_error", codes.get(failure.status_code))
