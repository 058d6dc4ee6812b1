"""What can go wrong with a request, beside the contract's IndexFailure and FilterInvalid.

::

    GatewayFailure
    ├── InvalidRequest          the client's request is wrong; `param` names the part
    │   └── ContextLengthExceeded   the messages alone are longer than the model reads
    ├── NothingFound            nothing relevant was found, and that is to be an error
    ├── ModelNotFound           the client asked for a model that vLLM does not serve
    ├── VectorStoreNotFound     the client named a vector store that is not there for it
    ├── VectorStoreReadOnly     the client wants to change one that the indexer alone fills
    ├── UploadsDisabled         the client wants to store something, and there is no place for it
    ├── ResponseNotFound        no vLLM server has kept the response that the client named
    ├── Refused                 HTTP itself says no: an unknown path, a method, a size
    ├── ClientGone              the client closed the connection before its answer began
    └── UpstreamFailure
        ├── UpstreamUnavailable vLLM does not answer, or has no model loaded yet
        ├── UpstreamRejected    vLLM answered with an error of its own
        └── UpstreamBroken      vLLM's answer broke off, or makes no sense
"""

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


class ClientGone(GatewayFailure):
    """The client closed the connection before its answer began."""


class UpstreamFailure(GatewayFailure):
    """Base of what goes wrong with vLLM."""


class UpstreamUnavailable(UpstreamFailure):
    """vLLM does not answer, or has no model loaded yet. Trying again may help."""


class UpstreamRejected(UpstreamFailure):
    """vLLM answered with an error of its own."""

    def __init__(self, message: str, status: int, param: str | None = None) -> None:
        super().__init__(message)
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
