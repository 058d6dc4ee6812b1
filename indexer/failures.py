"""From what went wrong to one line on stderr and the exit code of the process."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import ValidationError
from pydantic_settings import SettingsError

from indexer.errors import ConfigurationUnusable, EngineUnavailable, SourceUnusable
from indexer.index.errors import FingerprintMismatch, IndexFailure, LeaseFailure, LibraryFailure
from indexer.index.settings import explain
from indexer.report import BAD_CONFIGURATION, DEPENDENCY_DOWN, INTERRUPTED, LEASE_HELD

EXIT_CODES: list[tuple[type[Exception] | tuple[type[Exception], ...], int]] = [
    (
        (SettingsError, ConfigurationUnusable, SourceUnusable, FingerprintMismatch),
        BAD_CONFIGURATION,
    ),
    ((IndexFailure, EngineUnavailable, LibraryFailure), DEPENDENCY_DOWN),
    (LeaseFailure, LEASE_HELD),
]
"""The exit code of each failure; the first that fits counts."""
FAILURES = (
    SettingsError,
    ConfigurationUnusable,
    SourceUnusable,
    EngineUnavailable,
    IndexFailure,
    LeaseFailure,
    LibraryFailure,
)


def reported(command: Callable[[list[str]], int], options: list[str]) -> int:
    """What `command` returns, or the exit code of its failure, which is one line on stderr."""
    try:
        with _terminated_like_interrupted():
            return command(options)
    except ValidationError as exc:
        print(f"error: {explain(exc)}", file=sys.stderr)
        return BAD_CONFIGURATION
    except FAILURES as exc:
        print(f"error: {exc}", file=sys.stderr)
        return exit_code(exc)
    except KeyboardInterrupt:
        print("error: interrupted; the next run goes on from here", file=sys.stderr)
        return INTERRUPTED


def exit_code(failure: BaseException) -> int:
    """The code that stands for one of the FAILURES."""
    return next(code for kinds, code in EXIT_CODES if isinstance(failure, kinds))


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does: the lease is given back, and nobody waits for it."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
