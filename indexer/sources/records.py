"""Files of records: JSON Lines, each line one document. Knows lines, not where the file is.

A record is known by its id. One without an id is known by the number of its line: when lines are
put in above it, it counts as another document, and is embedded anew.
"""

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, Protocol, cast
from urllib.parse import quote

import msgspec

from indexer.documents import Content
from indexer.errors import DocumentUnusable, SourceUnusable
from indexer.sources.attributes import Described, json_attributes
from indexer.sources.configuration import Source

_NEWLINE_SEARCH_BYTES = 1 << 20


class RecordFile(Protocol):
    """A file whose lines are documents."""

    @property
    def uri(self) -> str: ...  # noqa: D102  # as in SourceDocument

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def format(self) -> str:
        """One of RECORD_FORMATS."""

    def open(self) -> AbstractContextManager[BinaryIO]:
        """Its bytes. Raises DocumentUnusable, there and while they are read."""

    def described(self) -> Described:
        """What is said of the file holds for every record. Raises DocumentUnusable."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One record. It holds its text, so that the file is read once."""

    uri: str
    name: str
    tenant: str
    text: str = ""
    title: str = ""
    format: str = ".txt"
    attributes: dict[str, Any] = {}
    problem: str = ""
    """Why it cannot be used; empty when it can."""

    def read(self, known_version: str = "") -> Content | None:  # noqa: ARG002
        """Its text. Raises DocumentUnusable, with the number of the line."""
        if self.problem:
            raise DocumentUnusable(self.problem)
        return Content(
            data=self.text.encode(),
            format=self.format,
            attributes=self.attributes,
            title=self.title,
        )


def records(file: RecordFile, source: Source, is_new: Callable[[str], bool]) -> Iterator[Record]:
    """The records of `file`, one by one. `is_new` tells of each uri whether it is the first.

    A line that is no record is one too, whose `read` raises DocumentUnusable. Raises
    SourceUnusable when the file cannot be read to its end: the records behind would be deleted.
    """
    try:
        said = file.described()
        for number, line in enumerate(_lines(file, source.max_bytes), start=1):
            if line is not None and not line.strip():
                continue
            record = _record(file, source, said, number, line)
            if not is_new(record.uri):
                record = _unusable(file, source, number, "its id stands in an earlier line as well")
            yield record
    except DocumentUnusable as exc:
        raise SourceUnusable(f"{file.name}: {exc}") from exc


def _lines(file: RecordFile, max_bytes: int) -> Iterator[bytes | None]:
    """The lines of `file`; None for one that is longer than `max_bytes`."""
    with file.open() as raw:
        stream = io.BufferedReader(cast(io.RawIOBase, raw), _NEWLINE_SEARCH_BYTES)
        unpacked = gzip.GzipFile(fileobj=stream) if file.format.endswith(".gz") else stream
        try:
            first = True
            while line := unpacked.readline(max_bytes + 1):
                if len(line) <= max_bytes or line.endswith(b"\n"):
                    yield line.removeprefix(b"\xef\xbb\xbf") if first else line
                else:
                    while not line.endswith(b"\n") and line:
                        line = unpacked.readline(_NEWLINE_SEARCH_BYTES)
                    yield None
                first = False
        except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
            raise DocumentUnusable("is damaged: it cannot be unpacked to its end") from exc
        finally:
            stream.detach()


def _record(
    file: RecordFile, source: Source, said: Described, number: int, line: bytes | None
) -> Record:
    try:
        fields = _fields(line, source)
        identity = _identity(fields, source)
        own = {name: fields[name] for name in source.attribute_fields if name in fields}
        attributes = said.attributes | json_attributes(own)
    except (DocumentUnusable, ValueError) as exc:
        return _unusable(file, source, number, str(exc))
    fragment = quote(identity, safe="") if identity else _line_fragment(number)
    title = fields.get(source.title_field)
    return Record(
        uri=f"{file.uri}#{fragment}",
        name=f"{file.name}#{identity or fragment}",
        tenant=source.tenant,
        text=fields[source.text_field],
        title=title if isinstance(title, str) else said.title,
        format=source.text_format,
        attributes=attributes,
    )


def _fields(line: bytes | None, source: Source) -> dict[str, Any]:
    """What the record holds, its text among it. Raises DocumentUnusable."""
    if line is None:
        raise DocumentUnusable(f"it is longer than {source.max_bytes:,} bytes")
    try:
        fields = msgspec.json.decode(line)
    except (ValueError, RecursionError) as exc:
        raise DocumentUnusable(f"it is no JSON: {exc}") from exc
    if not isinstance(fields, dict):
        raise DocumentUnusable("it is no JSON object")
    if not isinstance(fields.get(source.text_field), str):
        raise DocumentUnusable(f"its field {source.text_field!r} is no text")
    return fields


def _identity(fields: dict[str, Any], source: Source) -> str:
    for name in [source.id_field] if source.id_field else ["id", "_id"]:
        match fields.get(name):
            case None:
                continue
            case bool() | float() | list() | dict():
                raise DocumentUnusable(f"its field {name!r} is no text and no whole number")
            case identity:
                return str(identity)
    return ""


def _unusable(file: RecordFile, source: Source, number: int, reason: str) -> Record:
    fragment = _line_fragment(number)
    return Record(
        uri=f"{file.uri}#{fragment}",
        name=f"{file.name}#{fragment}",
        tenant=source.tenant,
        problem=f"line {number} is no document: {reason}",
    )


def _line_fragment(number: int) -> str:
    """As RFC 5147 writes it. No quoted id looks like it, whatever characters it has."""
    return f"line={number}"
