"""The file with the keys: read whole, replaced whole, changed by one program at a time."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gateway.access.keys import Key, KeysUnusable, parsed, written


class KeyFile:
    """What is read is always one state: a file is never written to, but exchanged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._content: bytes | None = None

    def read(self) -> list[Key]:
        """The keys in it. Raises KeysUnusable."""
        content = self._read()
        try:
            keys = parsed(content)
        except KeysUnusable as exc:
            raise KeysUnusable(f"{self.path}: {exc}") from exc
        self._content = content
        return keys

    def read_if_changed(self) -> list[Key] | None:
        """The same; None where it holds what it held when its keys were read last.

        It is read whole: neither time nor size tell every change, and a thousand keys are 250 kB.
        """
        return None if self._read() == self._content else self.read()

    @contextlib.contextmanager
    def changing(self, *, may_be_new: bool = False) -> Iterator[list[Key]]:
        """The keys, to be changed in place; the file is replaced when the block has ended well.

        Whoever else wants to change it waits meanwhile. Raises KeysUnusable.
        """
        try:
            # Where it is a link, the file behind it is changed.
            place = Path(os.path.realpath(self.path))
            if place.is_dir():
                raise KeysUnusable(f"{self.path} is a folder: name a file in it")
            with _lock(place):
                is_new = may_be_new and not place.exists()
                keys = [] if is_new else self.read()
                yield keys
                _replace(place, written(keys))
        except OSError as exc:
            raise KeysUnusable(f"{self.path} cannot be written: {exc.strerror}") from exc

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError as exc:
            raise KeysUnusable(
                f"{self.path} is not there: `python -m gateway keys make --name NAME` makes it"
            ) from exc
        except OSError as exc:
            raise KeysUnusable(f"{self.path} cannot be read: {exc.strerror}") from exc


@contextlib.contextmanager
def _lock(place: Path) -> Iterator[None]:
    """One beside the file: a lock on itself would be on the one that is being replaced."""
    beside = place.with_name(f".{place.name}.lock")
    descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(place: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _keep_owner(place, descriptor)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(place)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _keep_owner(place: Path, descriptor: int) -> None:
    """A gateway that runs as another user must be able to read what root has changed."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        before = place.stat()
        os.fchown(descriptor, before.st_uid, before.st_gid)
