"""What can go wrong with a request, beside the contract's IndexFailure and FilterInvalid.

::

    GatewayFailure
    ├── InvalidRequest          the client's request is wrong; `param` names the part
    │   └── ContextLengthExceeded   the messages alone are longer than the model reads
    ├── NothingFound            nothing relevant was found, and that is to be an error
    ├── ModelNotFound           the client asked for a model that vLLM does not serve
    ├── ClientGone              the client closed the connection before its answer began
    └── UpstreamFailure
        ├── UpstreamUnavailable vLLM does not answer, or has no model loaded yet
        ├── UpstreamRejected    vLLM answered with an error of its own
        └── UpstreamBroken      vLLM's answer broke off, or makes no sense
"""


class GatewayFailure(Exception):
    """Base of the gateway's own errors."""


class InvalidRequest(GatewayFailure):
    """The client's request is wrong."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ContextLengthExceeded(InvalidRequest):
    """The messages alone, with nothing from the documents, are longer than the model reads."""

    def __init__(self, max_model_len: int, prompt_tokens: int) -> None:
        super().__init__(
            f"This model's maximum context length is {max_model_len} tokens. However, your "
            f"messages resulted in {prompt_tokens} tokens. Please reduce the length of the "
            "messages.",
            "messages",
        )


class NothingFound(GatewayFailure):
    """Nothing relevant to the question was found, and the request or the settings want an error."""


class ModelNotFound(GatewayFailure):
    """The client asked for a model that vLLM does not serve."""

    param = "model"


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


class UpstreamBroken(UpstreamFailure):
    """vLLM's answer broke off or makes no sense. What was relayed until then is incomplete."""
