"""What can go wrong with a request, beside the contract's IndexFailure.

::

    GatewayFailure
    ├── InvalidRequest          the client's request is wrong; `param` names the part
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
