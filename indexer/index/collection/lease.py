"""One writer at a time: a lease on a knowledge base, kept in Milvus, with fencing.

Creating a collection is the one thing in Milvus that exactly one of several contenders can do,
so a lease *is* a collection, `NAME__lease_N`: who creates it is run N. Its properties say who
that is and until when; a thread moves that time on. A lease whose time is past belongs to
nobody, and the next run creates N + 1 and drops N, so that run N, should it wake up, can no
longer renew. What it was building is renamed or dropped by the run that follows, so that it
cannot publish either: the name that it would publish is gone.

Times are those of the machines' clocks, which must agree to within a part of the duration.
"""

import os
import re
import socket
import threading
import time
import uuid
from typing import Any

import msgspec
from pymilvus import DataType, MilvusClient

from indexer.index.collection.failures import translated_errors
from indexer.index.errors import (
    IndexFailure,
    IndexRefused,
    KnowledgeBaseMissing,
    LeaseHeld,
    LeaseLost,
)

RENEWALS = 4
"""Attempts to renew within the duration of a lease, so that one that fails is no loss."""
_PROPERTY = "groundserve.lease"
_CONTENTIONS = 5
_LOOKS, _LOOK_S = 20, 0.1


class LeaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Who has a lease, and until when."""

    owner: str
    """Host, process and a random part, for people and to tell two contenders apart."""
    expires_at: float
    """Seconds since the epoch; 0 once it was given back."""


class Lease:
    """A lease of `duration_s` seconds on the knowledge base `name`, renewed until released.

    The constructor raises LeaseHeld when another run has it, IndexUnavailable or IndexRefused.
    """

    def __init__(
        self, client: MilvusClient, name: str, *, duration_s: float, timeout_s: float
    ) -> None:
        self._client = client
        self._name = name
        self._duration_s = duration_s
        self._timeout_s = min(timeout_s, duration_s / 2)
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._released = threading.Event()
        self._valid_until = time.monotonic() + duration_s
        self.run = self._acquire()
        """Number of this run: higher than that of every run before."""
        self._renewing = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._renewing.start()

    def check(self) -> None:
        """Raises LeaseLost when the lease was not renewed in time. Asks nobody: it is cheap."""
        if time.monotonic() >= self._valid_until:
            raise LeaseLost(
                f"run {self.run} lost its lease on {self._name!r}: it was paused, or Milvus was "
                "away, for too long; the next run goes on from here"
            )

    def release(self) -> None:
        """Give it back; the next run need not wait. A Milvus that is away is no reason to fail."""
        self._released.set()
        self._renewing.join()
        if time.monotonic() < self._valid_until:
            self._valid_until = 0.0
            try:
                self._write(expires_at=0.0)
            except IndexFailure:
                return  # it expires by itself

    def _acquire(self) -> int:
        for _ in range(_CONTENTIONS):
            taken = self._numbers("lease")
            last = max(taken, default=0)
            if last and (record := self._read(last)) is not None:
                _refuse_if_held(record)
            number = max(last, *self._numbers("g"), 0) + 1
            self._valid_until = time.monotonic() + self._duration_s
            if self._create(number):
                for older in taken:
                    self._drop(older)
                return number
        raise LeaseHeld("other runs take the lease at this moment")

    def _create(self, number: int) -> bool:
        """Whether this contender made lease `number`."""
        # A field of a name of its own: Milvus lets a collection be created twice when both agree.
        fields = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        fields.add_field("id", DataType.VARCHAR, max_length=1, is_primary=True)
        fields.add_field(f"by_{uuid.uuid4().hex}", DataType.FLOAT_VECTOR, dim=2)
        try:
            with translated_errors():
                self._client.create_collection(
                    self._collection(number),
                    schema=fields,
                    properties=self._property(time.time() + self._duration_s),
                    timeout=self._timeout_s,
                )
        except IndexFailure:
            # Codes differ between Milvus and Milvus Lite; what counts is whose it is now.
            record = self._seen(number)
            if record is None:
                raise
            return record.owner == self._owner
        record = self._read(number)
        return record is not None and record.owner == self._owner

    def _renew(self) -> None:
        while not self._released.wait(self._duration_s / RENEWALS):
            started = time.monotonic()
            if started >= self._valid_until:
                return
            try:
                self._write(expires_at=time.time() + self._duration_s)
            except KnowledgeBaseMissing:
                self._valid_until = 0.0  # a later run has dropped it
                return
            except IndexFailure:
                continue
            self._valid_until = started + self._duration_s

    def _write(self, *, expires_at: float) -> None:
        with translated_errors():
            self._client.alter_collection_properties(
                self._collection(self.run), self._property(expires_at), timeout=self._timeout_s
            )

    def _read(self, number: int) -> LeaseRecord | None:
        return read_lease(self._client, self._collection(number), self._timeout_s)

    def _seen(self, number: int) -> LeaseRecord | None:
        """Lease `number` that another is making: its name is taken before it can be read."""
        for _ in range(_LOOKS):
            if (record := self._read(number)) is not None:
                return record
            time.sleep(_LOOK_S)
        return None

    def _drop(self, number: int) -> None:
        with translated_errors():
            self._client.drop_collection(self._collection(number), timeout=self._timeout_s)

    def _collection(self, number: int) -> str:
        return f"{self._name}__lease_{number}"

    def _property(self, expires_at: float) -> dict[str, str]:
        record = LeaseRecord(owner=self._owner, expires_at=expires_at)
        return {_PROPERTY: msgspec.json.encode(record).decode()}

    def _numbers(self, kind: str) -> list[int]:
        with translated_errors():
            names = self._client.list_collections(timeout=self._timeout_s)
        return numbered(names, f"{self._name}__{'lease_' if kind == 'lease' else 'g'}")


def numbered(collections: list[str], prefix: str) -> list[int]:
    """The numbers behind `prefix` in names of collections, lowest first."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)")
    return sorted(int(match[1]) for name in collections if (match := pattern.fullmatch(name)))


def read_lease(client: MilvusClient, collection: str, timeout_s: float) -> LeaseRecord | None:
    """What a lease says; None where it is gone. Raises IndexUnavailable or IndexRefused."""
    try:
        with translated_errors():
            described: dict[str, Any] = client.describe_collection(collection, timeout=timeout_s)
    except KnowledgeBaseMissing:
        return None
    stated = described.get("properties", {}).get(_PROPERTY)
    if stated is None:
        raise IndexRefused(f"collection {collection!r} is no lease: its name is needed for one")
    return msgspec.json.decode(stated, type=LeaseRecord)


def _refuse_if_held(record: LeaseRecord) -> None:
    remaining_s = record.expires_at - time.time()
    if remaining_s > 0:
        raise LeaseHeld(
            f"another run has the lease: {record.owner}, for {remaining_s:.0f} s more "
            "unless it goes on renewing"
        )
