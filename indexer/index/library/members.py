"""Which file is in which vector store. Each change leaves a marker behind that the indexer finds.

A change is a new object with a new version in its name, so that one listing tells the members of
a store and their versions. Where two are there of one file, since a writer died or two wrote at
once, the later version counts.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from indexer.index.errors import NotInLibrary
from indexer.index.library import names
from indexer.index.library.files import KEPT_IN_MEMORY, Files
from indexer.index.library.objects import in_parallel
from indexer.index.library.records import Attributes, Membership


class _Said(msgspec.Struct, frozen=True):
    """What an object holds of a membership; the rest is its name."""

    attributes: Attributes = {}


class Members(Files):
    """The members of stores.

    Each method raises LibraryUnavailable, and NotInLibrary for ids that `tenant` has nothing of.
    """

    def __init__(self, root_url: str, storage_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(root_url, storage_options)
        self._kept_attributes = lru_cache(KEPT_IN_MEMORY)(self._read_attributes)

    def attach(
        self, tenant: str, store_id: str, file_id: str, attributes: Attributes | None = None
    ) -> Membership:
        """Put a file into a store, to be indexed. Where it is there already, it is put anew."""
        return self.attach_all(tenant, store_id, [(file_id, attributes or {})])[0]

    def attach_all(
        self, tenant: str, store_id: str, files: Sequence[tuple[str, Attributes]]
    ) -> list[Membership]:
        """Put files into a store, each with its attributes: all of them, or none."""
        self._check_store(tenant, store_id)
        in_parallel(lambda file: self.file(tenant, file[0]), files)
        earlier = self._objects_of(tenant, store_id)
        attributes = dict(files)
        attached = [
            Membership(
                store_id=store_id,
                file_id=file_id,
                version=_version_after(earlier.get(file_id, [])),
                created_at=int(time.time()),
                attributes=said,
            )
            for file_id, said in attributes.items()
        ]
        self._replace(tenant, attached, earlier)
        return attached

    def members(self, tenant: str, store_id: str) -> list[Membership]:
        """All files of a store, newest first, from one listing: attributes are not read."""
        self._check_store(tenant, store_id)
        found = [max(each, key=_rank) for each in self._objects_of(tenant, store_id).values()]
        return sorted(found, key=lambda each: (each.created_at, each.file_id), reverse=True)

    def described(self, tenant: str, members: Sequence[Membership]) -> list[Membership]:
        """The same with their attributes, but for those that went or changed meanwhile."""
        paths = [names.member_path(tenant, member) for member in members]
        said = in_parallel(self._kept_attributes, paths)
        return [
            msgspec.structs.replace(member, attributes=dict(attributes))
            for member, attributes in zip(members, said, strict=True)
            if attributes is not None
        ]

    def member(self, tenant: str, store_id: str, file_id: str) -> Membership:
        """A file in a store, with its attributes."""
        for _ in range(_LOOKS):
            there = self._objects_of(tenant, store_id).get(file_id)
            if not there:
                break
            if found := self.described(tenant, [max(there, key=_rank)]):
                self._check_store(tenant, store_id)
                return found[0]
        raise NotInLibrary("file in this vector store", file_id)

    def change_member(
        self, tenant: str, store_id: str, file_id: str, attributes: Attributes
    ) -> Membership:
        """Give a file in a store other attributes."""
        before = self.member(tenant, store_id, file_id)
        there = self._objects_of(tenant, store_id)
        changed = msgspec.structs.replace(
            before,
            version=_version_after([before, *there.get(file_id, [])]),
            attributes=attributes,
        )
        self._replace(tenant, [changed], there)
        return changed

    def detach(self, tenant: str, store_id: str, file_id: str) -> None:
        """Take a file out of a store; the file itself stays."""
        self._check_store(tenant, store_id)
        there = self._objects_of(tenant, store_id).get(names.checked("file", file_id))
        if not there:
            raise NotInLibrary("file in this vector store", file_id)
        self._drop(tenant, there)
        self._mark(tenant, store_id)

    def cancel(self, tenant: str, store_id: str, members: Iterable[Membership]) -> None:
        """Keep these versions of memberships from being indexed; they stay, as cancelled."""
        self._check_store(tenant, store_id)
        cancelled = [
            msgspec.structs.replace(each, is_cancelled=True)
            for each in self.described(tenant, [each for each in members if not each.is_cancelled])
        ]
        in_parallel(lambda each: self._write_member(tenant, each), cancelled)
        self._drop(
            tenant, [msgspec.structs.replace(each, is_cancelled=False) for each in cancelled]
        )
        self._mark(tenant, store_id)

    def _check_store(self, tenant: str, store_id: str) -> None:
        if not self._objects.exists(f"{names.store_folder(tenant, store_id)}/store.json"):
            raise NotInLibrary("vector store", store_id)

    def _objects_of(self, tenant: str, store_id: str) -> dict[str, list[Membership]]:
        """Every version that is there, by the ids of the files."""
        found: dict[str, list[Membership]] = {}
        for name in self._objects.names(names.members_of(tenant, store_id)):
            if (member := names.member_of(store_id, name)) is not None:
                found.setdefault(member.file_id, []).append(member)
        return found

    def _replace(
        self, tenant: str, written: Sequence[Membership], there: dict[str, list[Membership]]
    ) -> None:
        """Write memberships of one store, then drop what was there of these files before."""
        try:
            in_parallel(lambda each: self._write_member(tenant, each), written)
            self._drop(tenant, [old for each in written for old in there.get(each.file_id, [])])
        finally:
            # Some may have been written before one could not be.
            for store_id in {each.store_id for each in written}:
                self._mark(tenant, store_id)

    def _write_member(self, tenant: str, member: Membership) -> None:
        self._write(names.member_path(tenant, member), _Said(member.attributes))

    def _drop(self, tenant: str, members: Sequence[Membership]) -> None:
        in_parallel(lambda each: self._objects.delete(names.member_path(tenant, each)), members)

    def _read_attributes(self, path: str) -> Attributes | None:
        said = self._read(path, _Said)
        return None if said is None else said.attributes

    def _mark(self, tenant: str, store_id: str) -> None:
        """Tell the indexer that a store has changed. It comes after the change."""
        self._objects.write(names.new_marker(tenant, store_id), b"")


def _rank(member: Membership) -> tuple[str, bool]:
    return member.version, member.is_cancelled


def _version_after(members: Sequence[Membership]) -> str:
    return names.new_version(max((each.version for each in members), default=""))


_LOOKS = 3
"""A member that is listed and not there is being changed; it is listed once more."""
