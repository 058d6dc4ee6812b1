"""What can go wrong with a request, beside the contract's IndexFailure and FilterInvalid.

::

    GatewayFailure
    ├── InvalidRequest          the client's request is wrong; `param` names the part
    │   └── ContextLengthExceeded   the messages alone are longer than the model reads
    ├── Unauthenticated         no key that is valid came with the request
    ├── NothingFound            nothing relevant was found, and that is to be an error
    ├── ModelNotFound           the client asked for a model that vLLM does not serve
    ├── VectorStoreNotFound     the client named a vector store that is not there for it
    ├── VectorStoreReadOnly     the client wants to change one that the indexer alone fills
    ├── UploadsDisabled         the client wants to store something, and there is no place for it
    ├── PermissionDenied        the client's key may only read
    ├── ResponseNotFound        no vLLM server has kept the response that the client named
    ├── PreviousResponseNotFound    the one that the client wants continued is not the client's
    ├── Refused                 HTTP itself says no: an unknown path, a method, a size
    ├── RateLimited             the client has asked for all that it may ask for, for now
    ├── Overloaded              too much waits already; a moment later there may be room
    ├── GatewayStopping         the gateway has to end before the answer is complete
    ├── DeadlineExceeded        the time that a request has is over
    └── UpstreamFailure
        ├── UpstreamUnavailable vLLM does not answer, or has no model loaded yet
        ├── UpstreamRejected    vLLM answered with an error of its own
        └── UpstreamBroken      vLLM's answer broke off, or makes no sense
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_OF_CONFIGURATION = (401, 403, 404, 429)
"""Statuses with which a server says nothing about what is in a request."""
RESPONSE_ID = "response_id"
"""What vLLM says is wrong where it has not kept an earlier response."""


class GatewayFailure(Exception):
    """Base of the gateway's own errors."""


class InvalidRequest(GatewayFailure):
    """The client's request is wrong."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ContextLengthExceeded(InvalidRequest):
    """The messages alone, with nothing from the documents, are longer than the model reads."""

    def __init__(self, max_model_len: int, prompt_tokens: int, param: str = "messages") -> None:
        super().__init__(
            f"This model's maximum context length is {max_model_len} tokens. However, your "
            f"messages resulted in {prompt_tokens} tokens. Please reduce the length of the "
            "messages.",
            param,
        )


class Unauthenticated(GatewayFailure):
    """No key that is valid came with the request."""


class NothingFound(GatewayFailure):
    """Nothing relevant to the question was found, and the request or the settings want an error."""


class ModelNotFound(GatewayFailure):
    """The client asked for a model that vLLM does not serve."""

    param = "model"


class VectorStoreNotFound(GatewayFailure):
    """The client named a vector store that is not there, or not for it."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ResponseNotFound(GatewayFailure):
    """No vLLM server has kept the response that the client named."""

    def __init__(self, response_id: str) -> None:
        super().__init__(f"Response with id {response_id!r} not found.")


class PreviousResponseNotFound(GatewayFailure):
    """The response that the client wants continued is not one of its own."""

    param = "previous_response_id"

    def __init__(self, response_id: str) -> None:
        super().__init__(f"Response with id {response_id!r} not found.")


class PermissionDenied(GatewayFailure):
    """The client's key may read, and it wants to store or change something."""


class VectorStoreReadOnly(GatewayFailure):
    """The client wants to change a vector store that the indexer fills from its own sources."""


class UploadsDisabled(GatewayFailure):
    """The client wants to store something, and no library of uploads is configured."""


class Refused(GatewayFailure):
    """HTTP itself says no: an unknown path, a method, a size."""

    def __init__(self, message: str, status: int, code: str | None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class RateLimited(GatewayFailure):
    """The client has asked for all that it may ask for, for now."""

    def __init__(
        self,
        message: str,
        kind: str,
        retry_after_s: float | None,
        standings: Mapping[str, tuple[int, Any]] = MappingProxyType({}),
    ) -> None:
        """`kind` is what OpenAI calls the type of such an error: requests, or tokens.

        With `retry_after_s` None the same request will never be let in. `standings` are how all
        limits stand, by their kind.
        """
        super().__init__(message)
        self.kind = kind
        self.retry_after_s = retry_after_s
        self.standings = standings


class Overloaded(GatewayFailure):
    """Too much waits already for some part. Trying again in a moment may help."""


class GatewayStopping(GatewayFailure):
    """The gateway has to end before the answer is complete. Another one may answer."""


class DeadlineExceeded(GatewayFailure):
    """The time that a request has is over; `stage` is what it was at."""

    def __init__(self, message: str, stage: str = "") -> None:
        super().__init__(message)
        self.stage = stage


class UpstreamFailure(GatewayFailure):
    """Base of what goes wrong with vLLM."""


class UpstreamUnavailable(UpstreamFailure):
    """vLLM does not answer, or has no model loaded yet. Trying again may help."""

    def __init__(
        self,
        message: str,
        *,
        is_connected: bool = False,
        may_run: bool = False,
        was_unheard: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        """`is_connected`: a connection came about; `may_run`: the request went out on it.

        `was_unheard`: that connection had been kept from an earlier request, and was closed before
        anything of an answer came. `retry_after_s` is told where it is known.
        """
        super().__init__(message)
        self.is_connected = is_connected
        self.may_run = may_run
        self.was_unheard = was_unheard
        self.retry_after_s = retry_after_s


class UpstreamRejected(UpstreamFailure):
    """vLLM answered with an error of its own."""

    def __init__(self, message: str, status: int, param: str | None = None) -> None:
        repeats_nothing = status in _OF_CONFIGURATION
        super().__init__(message if repeats_nothing else f"the model server answered {status}")
        self.message = message
        """What it said: for the client that asked alone, as it may repeat the request."""
        self.status = status
        """HTTP status that vLLM gave."""
        self.param = param
        self.prompt_field = "messages"
        """What the request calls what may be too long."""


class UpstreamBroken(UpstreamFailure):
    """vLLM's answer broke off or makes no sense. What was relayed until then is incomplete."""

    def __init__(self, message: str, *, was_silent: bool = False) -> None:
        """`was_silent`: it took the request and then said nothing for too long."""
        super().__init__(message)
        self.was_silent = was_silent
