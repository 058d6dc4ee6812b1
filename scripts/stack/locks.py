"""Keeps two runs of the scripts from working in one folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stack.errors import Unsuitable


@contextmanager
def sole_user(folder: Path, otherwise: str) -> Iterator[None]:
    """Hold a lock on `folder`, which ends with this process however it ends.

    Raises Unsuitable, with the message `otherwise`, when another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise Unsuitable(otherwise) from exc
        yield
    finally:
        os.close(descriptor)
