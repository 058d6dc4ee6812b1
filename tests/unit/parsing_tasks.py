"""What worker processes do in tests. A document's bytes say what happens."""

import ctypes
import os
import re
import sys
import time
from collections.abc import Callable

from indexer.documents import Content
from indexer.errors import DocumentUnusable


class _Panic(BaseException):
    """As a library in Rust raises it."""


def act(content: Content) -> object:
    """What the first word of the document stands for; the process id for any other."""
    word, _, rest = content.data.decode().partition(" ")
    return _ACTS.get(word, _identify)(rest)


def _identify(_: str) -> int:
    return os.getpid()


def _touch(mib: str) -> int:
    del (memory := [b"x" * (int(mib) << 20)])[:]
    return len(memory) or os.getpid()


def _raise(failure: BaseException) -> None:
    raise failure


def _print(words: str) -> None:
    os.write(1, words.encode())
    os.write(2, words.encode())


def _recurse(rest: str) -> object:
    return _recurse(rest)


_ACTS: dict[str, Callable[[str], object]] = {
    "abort": lambda _: os.abort(),
    "allocate": lambda mib: len(bytearray(int(mib) << 20)),
    "crash": lambda _: ctypes.string_at(0),
    "exit": lambda code: os._exit(int(code)),
    "fail": lambda words: _raise(ValueError(words)),
    "length": len,
    "loaded": lambda module: module in sys.modules,
    "panic": lambda words: _raise(_Panic(words)),
    "print": _print,
    "recurse": _recurse,
    "refuse": lambda words: _raise(DocumentUnusable(words)),
    "return": lambda mib: "x" * (int(mib) << 20),
    "sleep": lambda seconds: time.sleep(float(seconds)),
    "spin": lambda _: re.match(r"(a+)+$", "a" * 50 + "b"),  # lets no other thread run
    "touch": _touch,
    "unpicklable": lambda words: lambda: words,
}


class Broken:
    """A task that cannot be made anew in another process."""

    def __call__(self, content: Content) -> object:
        """Never called."""
        return content

    def __setstate__(self, state: object) -> None:
        """Raises RuntimeError."""
        raise RuntimeError("it cannot be made")

    def __getstate__(self) -> dict[str, int]:
        """Something that there is to set."""
        return {"state": 1}
