"""Opens the zip files that office documents and books are. Knows archives, not what they say."""

import contextlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from typing import Final
from xml.parsers.expat import ExpatError

from indexer.errors import DocumentUnusable


@contextlib.contextmanager
def reading(data: bytes) -> Iterator[zipfile.ZipFile]:
    """The archive in `data`, which is small enough to be unpacked into memory.

    Raises DocumentUnusable when it is damaged, encrypted, or unpacks to more than a document
    needs; what the body raises because a part is damaged or missing becomes one as well.
    """
    if data.startswith(_COMPOUND_FILE):
        raise DocumentUnusable("it is encrypted, or in the format of before 2007")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_sizes(archive.infolist())
            yield archive
    except _SIGNS_OF_DAMAGE as exc:
        raise DocumentUnusable("it is damaged, or not of the format its name says") from exc


def _check_sizes(parts: list[zipfile.ZipInfo]) -> None:
    if any(part.flag_bits & _ENCRYPTED for part in parts):
        raise DocumentUnusable("it is encrypted")
    markup = sum(part.file_size for part in parts if _is_markup(part.filename))
    unpacked = sum(part.file_size for part in parts)
    if len(parts) > MAX_PARTS or unpacked > MAX_UNPACKED_BYTES or markup > MAX_MARKUP_BYTES:
        raise DocumentUnusable("it unpacks to far more than a document needs")


def _is_markup(name: str) -> bool:
    return name.lower().endswith((".xml", ".rels", ".html", ".xhtml", ".htm", ".opf"))


MAX_PARTS: Final = 50_000
MAX_UNPACKED_BYTES: Final = 1 << 30
MAX_MARKUP_BYTES: Final = 1 << 28

_COMPOUND_FILE = bytes.fromhex("D0CF11E0A1B11AE1")
_ENCRYPTED = 0x1
_SIGNS_OF_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    ExpatError,
    SyntaxError,  # the XML errors of lxml and of the standard library are of this class
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    ValueError,
)
