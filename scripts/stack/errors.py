"""What ends a script.

::

    StackError
    ├── Unsuitable      the machine, or what was asked for, cannot work; nothing was started
    ├── InstallFailed   pip, or the preparation of a model, failed
    ├── ServerFailed    a server died, or was not ready in time
    └── AskFailed       the gateway refused a question, or broke off its answer
"""

from pathlib import Path


class StackError(Exception):
    """Base of every error that a script reports; the message is one line that says what to do."""

    detail: str = ""
    """More lines, shown below the message: the end of a log."""


class Unsuitable(StackError):
    """The machine, or what was asked for, cannot work. Nothing was started yet."""


class InstallFailed(StackError):
    """A package could not be installed, or a model could not be prepared."""


class ServerFailed(StackError):
    """A server died, or was not ready in time."""

    def __init__(self, message: str, log: Path, tail: str) -> None:
        super().__init__(f"{message}; its log: {log}")
        self.detail = tail


class AskFailed(StackError):
    """The gateway refused a question, or broke off its answer."""
