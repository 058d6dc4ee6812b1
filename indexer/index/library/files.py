"""The files of a library: uploaded once, never changed. Knows nothing of vector stores."""

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, BinaryIO, TypeVar

import msgspec

from indexer.index.errors import LibraryUnavailable, NotInLibrary
from indexer.index.library import names
from indexer.index.library.objects import Objects, in_parallel
from indexer.index.library.records import StoredFile

T = TypeVar("T")

KEPT_IN_MEMORY = 65_536
"""Records that never change, and need not be read twice."""
LOST_AFTER_S = 86_400
"""An upload that has not ended by then never will."""
_FILENAME_MAX_CHARS = 512


class Files:
    """What was uploaded. Each method raises LibraryUnavailable, and blocks. Safe for threads."""

    def __init__(self, root_url: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self._objects = Objects(root_url, storage_options or {})
        self._kept_file = lru_cache(KEPT_IN_MEMORY)(self._read_file)

    def add_file(
        self,
        tenant: str,
        filename: str,
        purpose: str,
        data: BinaryIO,
        *,
        expires_at: int | None = None,
    ) -> StoredFile:
        """Store what `data` gives; memory holds little of it.

        What reading `data` raises is raised as it is, and nothing is stored.
        """
        self._know(tenant)
        file_id = names.new_id("file")
        # The file is there once its record is, which therefore comes last.
        size = self._objects.write_stream(names.content_path(tenant, file_id), data)
        file = StoredFile(
            id=file_id,
            filename=_without_folders(filename),
            bytes=size,
            created_at=int(time.time()),
            purpose=purpose,
            expires_at=expires_at,
        )
        self._write(names.file_path(tenant, file_id), file)
        return file

    def file(self, tenant: str, file_id: str) -> StoredFile:
        """What is known of a file. Raises NotInLibrary."""
        found = self._read(names.file_path(tenant, file_id), StoredFile)
        if found is None:
            raise NotInLibrary("file", file_id)
        return found

    def files(self, tenant: str) -> list[StoredFile]:
        """All files of `tenant`, newest first."""
        found = self.listed_files(tenant, self.file_ids(tenant)).values()
        return sorted(found, key=lambda file: (file.created_at, file.id), reverse=True)

    def file_ids(self, tenant: str) -> set[str]:
        """The ids of all files of `tenant`, from one listing."""
        ids = (name.removesuffix(".json") for name in self._objects.names(names.files_of(tenant)))
        return {each for each in ids if names.is_id("file", each)}

    def listed_files(self, tenant: str, file_ids: Iterable[str]) -> dict[str, StoredFile]:
        """Files that were listed, by their ids; memory may know one after it was deleted."""
        found = in_parallel(lambda each: self._kept_file(tenant, each), file_ids)
        return {file.id: file for file in found if file is not None}

    @contextmanager
    def open_file(self, tenant: str, file_id: str) -> Iterator[BinaryIO]:
        """The bytes of a file. Raises NotInLibrary."""
        with self._objects.open(names.content_path(tenant, file_id)) as file:
            if file is None:
                raise NotInLibrary("file", file_id)
            yield file

    def tenants(self) -> list[str]:
        """All that have stored something."""
        found = in_parallel(self._tenant, self._objects.names(names.TENANTS))
        return sorted(tenant for tenant in found if tenant is not None)

    def sweep_uploads(self, tenant: str) -> None:
        """Delete the bytes of uploads that were cut off long ago, and of which nothing is known."""
        folder = names.contents_of(tenant)
        contents = {name for name in self._objects.names(folder) if names.is_id("file", name)}
        for file_id in contents - self.file_ids(tenant):
            written = self._objects.modified(f"{folder}/{file_id}")
            if written is not None and written < time.time() - LOST_AFTER_S:
                self._objects.delete(f"{folder}/{file_id}")

    def _read_file(self, tenant: str, file_id: str) -> StoredFile | None:
        return self._read(names.file_path(tenant, file_id), StoredFile)

    def _know(self, tenant: str) -> None:
        """See that the tenant's name can be told from its folder."""
        folder = names.tenant_folder(tenant)
        if names.tenant_of(folder) is None:
            self._write(f"{names.TENANTS}/{folder}/{names.TENANT_FILE}", tenant)

    def _tenant(self, folder: str) -> str | None:
        tenant = names.tenant_of(folder)
        if tenant is None:
            return self._read(f"{names.TENANTS}/{folder}/{names.TENANT_FILE}", str)
        return tenant

    def _write(self, path: str, record: Any) -> None:
        self._objects.write(path, msgspec.json.encode(record))

    def _read(self, path: str, kind: type[T]) -> T | None:
        data = self._objects.read(path)
        if data is None:
            return None
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.DecodeError as exc:
            raise LibraryUnavailable(f"{path} in the library cannot be read: {exc}") from exc


def _without_folders(filename: str) -> str:
    """The last part of what a client calls a file, as a name that can be stored and shown."""
    last = re.split(r"[/\\]", filename.encode(errors="replace").decode())[-1]
    printable = "".join(character for character in last if character.isprintable()).strip()
    if len(printable) > _FILENAME_MAX_CHARS:
        stem, dot, suffix = printable.rpartition(".")
        room = _FILENAME_MAX_CHARS - len(suffix) - 1
        is_suffix = bool(dot) and len(suffix) < _SUFFIX_MAX_CHARS
        printable = f"{stem[:room]}.{suffix}" if is_suffix else printable[:_FILENAME_MAX_CHARS]
    return printable or "file"


_SUFFIX_MAX_CHARS = 32
