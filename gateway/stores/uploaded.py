"""Files that clients have uploaded, whatever vector store they are in."""

import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any, BinaryIO

from gateway.errors import InvalidRequest
from gateway.stores import shapes
from gateway.stores.forms import Form
from gateway.stores.pages import Page, PageQuery, page
from gateway.uploads import Uploads
from indexer.index.errors import NotInLibrary
from indexer.index.library import Library, StoredFile, made_at

PURPOSES = ("assistants", "batch", "evals", "fine-tune", "user_data", "vision")
MOST = 10_000
"""Files in a page, and where a client does not say how many."""
PIECE_BYTES = 262_144
FILENAME_MAX_CHARS = 255
_EXPIRES_S = (3600, 2_592_000)
_ANCHOR, _SECONDS = "expires_after[anchor]", "expires_after[seconds]"
_FIELDS = ("purpose", _ANCHOR, _SECONDS)


class Download:
    """The bytes of a file, one piece after the other."""

    def __init__(
        self, uploads: Uploads, file: StoredFile, opened: ExitStack, data: BinaryIO
    ) -> None:
        self.file = file
        self._uploads = uploads
        self._opened = opened
        self._data = data

    async def pieces(self) -> AsyncIterator[bytes]:
        """Its bytes. Raises LibraryUnavailable."""
        try:
            while piece := await self._uploads.in_thread(lambda: self._data.read(PIECE_BYTES)):
                yield piece
        finally:
            await self.close()

    async def close(self) -> None:
        """Let go of the file; may be repeated."""
        await self._uploads.in_thread(self._opened.close)


class Files:
    """What the caller's tenant has uploaded."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads

    def check_change(self) -> None:
        """Raises PermissionDenied, and UploadsDisabled where nothing is taken."""
        self._uploads.check_change()

    async def upload(self, form: Form) -> dict[str, Any]:
        """Store the file of a form. Raises InvalidRequest, PermissionDenied, LibraryUnavailable."""
        purpose, expires_in = _said(form)
        if form.filename is None:
            raise InvalidRequest("Missing required parameter: 'file'.", "file")
        filename = checked_filename(form.filename)
        if not form.bytes:
            raise InvalidRequest("Invalid value for 'file': it is empty.", "file")
        expires_at = None if expires_in is None else int(time.time()) + expires_in
        stored = await self._uploads.change(
            Library.add_file, filename, purpose, form.data, expires_at=expires_at
        )
        return shapes.uploaded_file(stored)

    async def listed(self, query: PageQuery, purpose: str | None) -> dict[str, Any]:
        """A page of them. Raises InvalidRequest and LibraryUnavailable."""
        if not self._uploads.are_kept:
            return page([], query, lambda _: "", lambda _: 0).told(shapes.uploaded_file)
        return (await self._uploads.ask(_listed, query, purpose)).told(shapes.uploaded_file)

    async def retrieve(self, file_id: str) -> dict[str, Any]:
        """One of them. Raises NotInLibrary and LibraryUnavailable."""
        self._check_kept(file_id)
        return shapes.uploaded_file(await self._uploads.ask(usable_file, file_id))

    async def delete(self, file_id: str) -> dict[str, Any]:
        """Delete one; it leaves every vector store.

        Raises PermissionDenied, UploadsDisabled, NotInLibrary and LibraryUnavailable.
        """
        await self._uploads.change(Library.delete_file, file_id)
        return shapes.deleted(file_id, "file")

    async def content(self, file_id: str) -> Download:
        """The bytes of one; the caller closes it. Raises NotInLibrary and LibraryUnavailable."""
        self._check_kept(file_id)
        file, opened, data = await self._uploads.ask(_opened, file_id)
        return Download(self._uploads, file, opened, data)

    def _check_kept(self, file_id: str) -> None:
        if not self._uploads.are_kept:
            raise NotInLibrary("file", file_id)


def usable_file(library: Library, tenant: str, file_id: str) -> StoredFile:
    """A file that has not expired. Raises NotInLibrary and LibraryUnavailable."""
    file = library.file(tenant, file_id)
    if _is_expired(file):
        raise NotInLibrary("file", file_id)
    return file


def checked_filename(said: str) -> str:
    """What a file is called: its name tells how it is read. Raises InvalidRequest."""
    name = said.replace("\\", "/").rpartition("/")[2].strip()
    if not name.isprintable() or not 0 < len(name) <= FILENAME_MAX_CHARS or not name.strip("."):
        raise InvalidRequest(
            "Invalid value for 'file': its name has to be printable, with "
            f"{FILENAME_MAX_CHARS} characters at most.",
            "file",
        )
    return name


def _said(form: Form) -> tuple[str, int | None]:
    """Purpose, and how many seconds the file is to live. Raises InvalidRequest."""
    for name in form.fields:
        if name not in _FIELDS:
            raise InvalidRequest(f"Unknown parameter: {name[:100]!r}.", name[:100])
    purpose = form.fields.get("purpose")
    if purpose is None:
        raise InvalidRequest("Missing required parameter: 'purpose'.", "purpose")
    if purpose not in PURPOSES:
        raise InvalidRequest(
            f"Invalid value for 'purpose': it is one of {', '.join(PURPOSES)}.", "purpose"
        )
    anchor, seconds = form.fields.get(_ANCHOR), form.fields.get(_SECONDS)
    if anchor is None and seconds is None:
        return purpose, None
    if anchor != "created_at":
        raise InvalidRequest(f"Invalid value for {_ANCHOR!r}: it is 'created_at'.", _ANCHOR)
    shortest, longest = _EXPIRES_S
    if not (
        seconds is not None
        and seconds.isascii()
        and seconds.isdigit()
        and len(seconds) < 10
        and shortest <= int(seconds) <= longest
    ):
        raise InvalidRequest(
            f"Invalid value for {_SECONDS!r}: it is a whole number from {shortest} to {longest}.",
            _SECONDS,
        )
    return purpose, int(seconds)


def _listed(
    library: Library, tenant: str, query: PageQuery, purpose: str | None
) -> Page[StoredFile]:
    files = [
        file
        for file in reversed(library.files(tenant))
        if purpose in (None, file.purpose) and not _is_expired(file)
    ]

    def place(cursor: str) -> int | None:
        return None if made_at(cursor) is None else sum(file.id < cursor for file in files)

    return page(files, query, lambda file: file.id, place)


def _opened(library: Library, tenant: str, file_id: str) -> tuple[StoredFile, ExitStack, BinaryIO]:
    file = usable_file(library, tenant, file_id)
    with ExitStack() as stack:
        data = stack.enter_context(library.open_file(tenant, file_id))
        return file, stack.pop_all(), data


def _is_expired(file: StoredFile) -> bool:
    return file.expires_at is not None and file.expires_at <= time.time()
