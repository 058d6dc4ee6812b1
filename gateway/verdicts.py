"""The one table that turns failures into HTTP statuses and OpenAI error bodies. Knows no server."""

import msgspec

from gateway.errors import (
    RESPONSE_ID,
    ContextLengthExceeded,
    DeadlineExceeded,
    GatewayStopping,
    InvalidRequest,
    ModelNotFound,
    NothingFound,
    Overloaded,
    PermissionDenied,
    PreviousResponseNotFound,
    RateLimited,
    Refused,
    ResponseNotFound,
    Unauthenticated,
    UploadsDisabled,
    UpstreamBroken,
    UpstreamRejected,
    UpstreamUnavailable,
    VectorStoreNotFound,
    VectorStoreReadOnly,
)
from indexer.index.errors import (
    EncoderUnavailable,
    EncodingFailed,
    FilterInvalid,
    FingerprintMismatch,
    IndexFailure,
    IndexUnavailable,
    KnowledgeBaseMissing,
    LibraryUnavailable,
    NotInLibrary,
)


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


NO_STORE = "vector_store_not_found"
# Most specific first; the first row whose class fits decides.
_VERDICTS: list[tuple[type[Exception], Verdict]] = [
    (
        ContextLengthExceeded,
        Verdict(400, "invalid_request_error", "context_length_exceeded"),
    ),
    (InvalidRequest, Verdict(400, "invalid_request_error", None)),
    (FilterInvalid, Verdict(400, "invalid_request_error", None)),
    (Unauthenticated, Verdict(401, "invalid_request_error", "invalid_api_key")),
    (NothingFound, Verdict(404, "invalid_request_error", "nothing_found")),
    (ModelNotFound, Verdict(404, "invalid_request_error", "model_not_found")),
    (VectorStoreNotFound, Verdict(404, "invalid_request_error", NO_STORE)),
    (ResponseNotFound, Verdict(404, "invalid_request_error", "response_not_found")),
    (
        PreviousResponseNotFound,
        Verdict(400, "invalid_request_error", "previous_response_not_found"),
    ),
    (PermissionDenied, Verdict(403, "invalid_request_error", "permission_denied")),
    (VectorStoreReadOnly, Verdict(403, "invalid_request_error", "vector_store_read_only")),
    (UploadsDisabled, Verdict(403, "invalid_request_error", "uploads_disabled")),
    (LibraryUnavailable, Verdict(503, "server_error", "library_unavailable", retry=True)),
    (Overloaded, Verdict(503, "server_error", "overloaded", retry=True)),
    (GatewayStopping, Verdict(503, "server_error", "gateway_stopping", retry=True)),
    (DeadlineExceeded, Verdict(504, "server_error", "request_timeout")),
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
_VARIED: list[Exception] = [
    *(UpstreamRejected("", status) for status in (400, 401, 404, 429, 500)),
    RateLimited("", "requests", 1.0),
    NotInLibrary("vector store", ""),
    NotInLibrary("file", ""),
]
"""Of the kinds that no row of the table tells all about."""
INTERNAL = Verdict(500, "server_error", "internal_error")
"""What we did not expect, and what clients are told nothing more about."""


def verdict(failure: Exception) -> Verdict:
    """The row of the table for `failure`."""
    if isinstance(failure, UpstreamRejected):
        return _rejected(failure)
    if isinstance(failure, NotInLibrary):
        is_store = failure.kind == "vector store"
        return Verdict(404, "invalid_request_error", NO_STORE if is_store else "not_found")
    if isinstance(failure, RateLimited):
        again = failure.retry_after_s is not None
        return Verdict(429, failure.kind, "rate_limit_exceeded", retry=again)
    if isinstance(failure, Refused):
        return Verdict(failure.status, "invalid_request_error", failure.code)
    for kind, row in _VERDICTS:
        if isinstance(failure, kind):
            return row
    return INTERNAL


def codes(*kinds: type[Exception]) -> dict[int, list[str]]:
    """What failures of these kinds, and those that nobody expects, look like: codes by status."""
    rows = [row for known, row in _VERDICTS if known in kinds]
    rows += [verdict(failure) for failure in _VARIED if isinstance(failure, kinds)]
    found: dict[int, list[str]] = {}
    for row in [*rows, INTERNAL]:
        named = found.setdefault(row.status, [])
        if row.code is not None and row.code not in named:
            named.append(row.code)
    return found


def error_body(failure: Exception) -> ErrorBody:
    """The inside of OpenAI's error body for `failure`."""
    row = verdict(failure)
    message = str(failure)
    if row is INTERNAL:
        message = "The gateway failed on this request. Its log has the reason."
    param = getattr(failure, "param", None)
    if isinstance(failure, UpstreamRejected):
        message, param = failure.message, _param(failure)
    return ErrorBody(message, row.type, param, row.code)


def _param(failure: UpstreamRejected) -> str | None:
    """What the client calls the part that vLLM has another name for."""
    if failure.param in _TOO_LONG:
        return failure.prompt_field
    unknown = failure.status == 404 and failure.param == RESPONSE_ID
    return "previous_response_id" if unknown else failure.param


def _rejected(failure: UpstreamRejected) -> Verdict:
    """VLLM's statuses are OpenAI's, but its types are not, and its codes are the status again."""
    match failure.status:
        case 400 | 413 | 422 if failure.param in _TOO_LONG:
            return Verdict(400, "invalid_request_error", "context_length_exceeded")
        case 404:
            is_earlier = failure.param == RESPONSE_ID
            status, code = (
                (400, "previous_response_not_found") if is_earlier else (404, "model_not_found")
            )
            return Verdict(status, "invalid_request_error", code)
        case 429:
            return Verdict(429, "rate_limit_error", "rate_limit_exceeded", retry=True)
        case 401 | 403:  # our own key is wrong, which is no fault of the client's
            return Verdict(502, "server_error", "model_server_refused_gateway")
        case status if 400 <= status < 500:
            return Verdict(status, "invalid_request_error", None)
    return Verdict(502, "server_error", "model_server_failed")
