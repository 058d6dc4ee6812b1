"""Failures as Anthropic's API tells them. Their statuses are those of the one table."""

from typing import Any

from gateway.verdicts import error_body, verdict

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""Whatever else is the client's fault is an invalid_request_error, and ours an api_error."""


def failure_body(failure: Exception, request_id: str | None = None) -> dict[str, Any]:
    """The error body for `failure`. What OpenAI's has more than Anthropic's stands beside it."""
    status, body = verdict(failure).status, error_body(failure)
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    more = {"param": body.param, "code": body.code}
    error = {"type": kind, "message": body.message} | {k: v for k, v in more.items() if v}
    told = {} if request_id is None else {"request_id": request_id}
    return {"type": "error", "error": error, **told}
