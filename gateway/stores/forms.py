"""The form of an upload, read piece by piece. What does not fit into memory waits on the disk."""

import asyncio
from collections.abc import AsyncIterator
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from multipart import (  # type: ignore[import-untyped]  # it has no types
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
)

from gateway.errors import InvalidRequest
from indexer.index.errors import LibraryUnavailable

IN_MEMORY_BYTES = 1 << 20
"""A longer file is on the disk until it is stored."""
MOST_PARTS = 20
FIELD_MAX_BYTES = 4096
FILE = "file"


class Form:
    """The fields of a form, and its file. `close` deletes what is on the disk."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        """As the client calls the file; None where there is none."""
        self.bytes = 0
        """Length of the file."""
        self._file = SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115  # see `close`

    @property
    def data(self) -> BinaryIO:
        """The file, from its beginning."""
        self._file.seek(0)
        return cast("BinaryIO", self._file)

    async def read(self, pieces: AsyncIterator[bytes], boundary: str) -> None:
        """Take in the body of a request. Raises InvalidRequest, and LibraryUnavailable."""
        try:
            with PushMultipartParser(boundary, max_segment_count=MOST_PARTS) as parser:
                part: MultipartSegment | None = None
                value = bytearray()
                async for piece in pieces:
                    for found in parser.parse(piece):
                        if isinstance(found, MultipartSegment):
                            part, value = found, bytearray()
                            self._begin(part)
                        elif part is not None and found and part.name == FILE:
                            await self._store(found)
                        elif part is not None and found:
                            value += found
                            _check_length(part, value)
                        elif part is not None and part.name != FILE:
                            self.fields[part.name or ""] = _text(part, value)
        except MultipartError as exc:
            raise InvalidRequest(f"The request body is no multipart form: {exc}") from exc

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _begin(self, part: MultipartSegment) -> None:
        name = part.name or ""
        if name in self.fields or (name == FILE and self.filename is not None):
            raise InvalidRequest(f"There is more than one {name[:100]!r}.", name[:100])
        if name == FILE:
            if not part.filename:
                raise InvalidRequest("Invalid value for 'file': it has no file name.", FILE)
            self.filename = part.filename

    async def _store(self, data: bytes | bytearray) -> None:
        self.bytes += len(data)
        try:
            if self.bytes <= IN_MEMORY_BYTES:
                self._file.write(data)
            else:
                await asyncio.to_thread(self._file.write, bytes(data))
        except OSError as exc:
            raise LibraryUnavailable(f"there is no room for an upload here: {exc}") from exc


def _check_length(part: MultipartSegment, value: bytearray) -> None:
    if len(value) > FIELD_MAX_BYTES:
        name = (part.name or "")[:100]
        raise InvalidRequest(f"Invalid value for {name!r}: it is too long.", name)


def _text(part: MultipartSegment, value: bytearray) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as exc:
        name = (part.name or "")[:100]
        raise InvalidRequest(f"Invalid value for {name!r}: it is no UTF-8.", name) from exc
