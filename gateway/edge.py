"""The edge to HTTP: failures as responses, ids of requests."""

import logging
import math
import secrets
from collections.abc import Mapping
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.datastructures import MutableScopeHeaders
from litestar.exceptions import HTTPException
from litestar.types import Message, Scope

from gateway.access.ledger import Standing
from gateway.access.limit_headers import anthropic_headers, openai_headers
from gateway.access.limits import admission
from gateway.errors import RateLimited, Refused
from gateway.messages.failures import failure_body
from gateway.verdicts import INTERNAL, error_body, verdict

RETRY_AFTER_S = 2
"""What clients are told to wait for a part that is away; the SDK honours it."""
_ANTHROPICS = "/v1/messages"
_CODES = {404: "unknown_url", 405: "method_not_supported", 413: "request_too_large"}

_log = logging.getLogger(__name__)


def error_response(request: Request[Any, Any, Any], failure: Exception) -> Response[bytes]:
    """The whole response for `failure`."""
    headers = {}
    if isinstance(failure, HTTPException):
        headers = dict(failure.headers or {})
        if failure.status_code < 500:
            failure = _refused(failure, request)
    row = verdict(failure)
    if row is INTERNAL:
        _log.error("request failed: %s %r", request.method, _path(request), exc_info=failure)
    elif row.status >= 500:
        _log.warning("answered %d: %s", row.status, failure)
    if row.status == 401:
        headers["www-authenticate"] = "Bearer"
    if isinstance(failure, RateLimited):
        headers |= _refusal_headers(request.scope, failure)
    if row.retry:
        headers |= _retry_headers(getattr(failure, "retry_after_s", None) or RETRY_AFTER_S)
    content: dict[str, Any] = {"error": error_body(failure)}
    if _is_anthropics(request.scope):
        content = failure_body(failure, _request_id(request.scope))
    return Response(
        msgspec.json.encode(content),
        status_code=row.status,
        headers=headers,
        media_type="application/json",
    )


async def add_request_id(message: Message, scope: Scope) -> None:
    """Give the response the request's x-request-id, or a new one where it brought none."""
    if message["type"] != "http.response.start":
        return
    headers = MutableScopeHeaders.from_message(message)
    headers["x-request-id"] = _request_id(scope)
    if _is_anthropics(scope):
        headers["request-id"] = _request_id(scope)


def limit_headers(scope: Scope, standings: Mapping[str, tuple[int, Standing]]) -> dict[str, str]:
    """How the limits of a request stand, as clients of its API read it."""
    told = anthropic_headers if _is_anthropics(scope) else openai_headers
    return told(standings)


def _refusal_headers(scope: Scope, failure: RateLimited) -> dict[str, str]:
    headers = {}
    if admission() is None:  # otherwise whoever lets requests in adds them to each answer
        headers = limit_headers(scope, failure.standings)
    if failure.retry_after_s is None:
        headers["x-should-retry"] = "false"  # the SDK would wait, and get the same
    return headers


def _retry_headers(after_s: float) -> dict[str, str]:
    return {
        "retry-after": str(math.ceil(after_s)),
        "retry-after-ms": str(math.ceil(after_s * 1000)),
    }


def _request_id(scope: Scope) -> str:
    """The same one each time that it is asked for during a request."""
    state: dict[str, Any] = scope.setdefault("state", {})
    if "request_id" not in state:
        brought = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        known = brought.decode("latin-1")
        if not (0 < len(known) <= 128 and known.isascii() and known.isprintable()):
            known = f"req_{secrets.token_hex(12)}"
        state["request_id"] = known
    return str(state["request_id"])


def _path(request: Request[Any, Any, Any]) -> str:
    """Not out of its URL, which cannot be made of any host that a client may name."""
    return request.scope["path"]


def _is_anthropics(scope: Scope) -> bool:
    """Whether a request is for the API of Anthropic, which has error bodies of its own."""
    return scope["path"].startswith(_ANTHROPICS)


def _refused(failure: HTTPException, request: Request[Any, Any, Any]) -> Refused:
    """What Litestar refuses by itself: unknown paths and methods, bodies that are too long."""
    message = failure.detail
    if failure.status_code == 404:
        message = f"There is nothing at {request.method} {_path(request)}."
    return Refused(message, failure.status_code, _CODES.get(failure.status_code))
