"""What limits are counted in: what is taken, and what is given back.

A ledger may be in this process, in the one that the workers of a machine share, or in Redis. All
of them are told the same, and a `Take` is one step: all of it is taken, or nothing.
"""

from typing import Protocol

import msgspec

LEASE_S = 30
"""A slot that is not renewed for so long is free again: who held it is taken for dead."""


class Charge(msgspec.Struct, array_like=True, frozen=True):
    """What is to count in the window of the last minute."""

    key: str
    limit: int
    amount: int
    """With 0 nothing counts, and it is refused where nothing at all is left."""


class Slot(msgspec.Struct, array_like=True, frozen=True):
    """One of the requests that may be answered at a time."""

    key: str
    limit: int


class Take(msgspec.Struct, array_like=True, tag="take", frozen=True):
    """What a request needs."""

    lease: str
    """Names the request; what it holds is given back by this name."""
    charges: tuple[Charge, ...] = ()
    slots: tuple[Slot, ...] = ()


class Standing(msgspec.Struct, array_like=True, frozen=True):
    """How a window stands after a `Take`."""

    remaining: int
    reset_s: float
    """Until the whole limit is there again."""


class Taken(msgspec.Struct, array_like=True, frozen=True):
    """What became of a `Take`."""

    refused: int
    """Which of its charges, then slots, there was no room for; -1 where everything was taken."""
    wait_s: float
    """Until there is room for that charge; negative where there never is."""
    second: int
    """The ledger's own time, by which charges are given back."""
    standings: tuple[Standing, ...]
    """Of each charge."""


class Give(msgspec.Struct, array_like=True, tag="give", frozen=True):
    """The end of a request."""

    lease: str
    slots: tuple[str, ...] = ()
    """Keys of those that it held."""
    second: int = -1
    """When `settled` was charged; -1 where it was not charged in this ledger."""
    settled: tuple[tuple[str, int], ...] = ()
    """By key, how much more, or less, was used than was charged."""


class Renew(msgspec.Struct, array_like=True, tag="renew", frozen=True):
    """A request goes on."""

    lease: str
    slots: tuple[str, ...]


Entry = Take | Give | Renew
"""What a ledger is told. Only a `Take` is answered with something, the others with None."""


class LedgerAway(Exception):
    """A ledger in another process does not answer."""


class Ledger(Protocol):
    """Counts."""

    async def take(self, asked: Take) -> Taken:
        """Take all of it, or nothing."""

    def give(self, given: Give) -> None:
        """Give back, without waiting for it."""

    async def run(self) -> None:
        """What is to go on beside the requests, for as long as the task lives."""

    async def close(self) -> None:
        """Let go of connections."""
