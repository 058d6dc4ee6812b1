"""What the processes of a gateway with several workers have in common: logs, a folder, an end."""

import contextlib
import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from gateway.settings import GatewaySettings

FOLDER_PREFIX = "groundserve-"
"""What the name of a folder that they share begins with."""
_MOST_OF_A_SOCKET = 107
"""Bytes of its path: Linux has 108 for it, with a zero at the end. See unix(7)."""
_RANDOM = "12345678"
"""As long as what tempfile puts behind a prefix."""
_ENDING = (signal.SIGINT, signal.SIGTERM)


class NoSharedFolder(Exception):
    """There is no place for what the processes share."""


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Keep back what ends a process, from it until the block ends, and from those started in it.

    They would die of it in the middle of their imports, with a traceback.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        release_signals()


def ignore_signals() -> None:
    """Have them do nothing in this process; those that it starts do not inherit that."""
    for number in _ENDING:
        signal.signal(number, lambda *_: None)
    release_signals()


def release_signals() -> None:
    """Let them through, in a process that was started so and has handlers now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


def log_to_stderr(settings: GatewaySettings) -> None:
    """Log as the settings say; of libraries only what is wrong.

    At lower levels they log what they are given, prompts and documents among it.
    """
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    logging.basicConfig(
        level=max(level, logging.WARNING),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    for ours in ("gateway", "indexer", "uvicorn"):
        logging.getLogger(ours).setLevel(level)


def check_temporary_folder() -> None:
    """Raises NoSharedFolder where the folder that the processes share cannot be made."""
    try:
        parent = tempfile.gettempdir()
    except FileNotFoundError as exc:
        raise NoSharedFolder("no folder for temporary files can be written: set TMPDIR") from exc
    below = encoder_socket(Path(f"/{FOLDER_PREFIX}{_RANDOM}"))
    most = _MOST_OF_A_SOCKET - len(str(below))
    if len(os.fsencode(parent)) > most:
        raise NoSharedFolder(
            f"the path {parent} is too long for sockets: set TMPDIR to one of {most} bytes at most"
        )


def encoder_socket(folder: Path) -> Path:
    """Where the encoder process listens; `folder` is the one that the processes share."""
    return folder / "encoder.sock"


def ledger_socket(folder: Path) -> Path:
    """Where the process that watches over the workers can be asked for their limits."""
    return folder / "ledger.sock"


def end_with_parent(lifeline: Connection, folder: Path, end: Callable[[], None]) -> None:
    """Call `end`, in a thread, when nobody holds the other side of `lifeline` any more.

    That is when the parent closes it, or is killed. Nobody is left then to remove `folder`.
    """

    def watch() -> None:
        with contextlib.suppress(EOFError, OSError):
            lifeline.recv_bytes()
        shutil.rmtree(folder, ignore_errors=True)
        end()

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
