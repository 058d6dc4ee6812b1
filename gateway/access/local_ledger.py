"""A ledger in the memory of this process."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

from gateway.access.ledger import Entry, Give, Renew, Standing, Take, Taken
from gateway.access.windows import Window


class LocalLedger:
    """Counts what it is told, for one process or for all that tell it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: defaultdict[str, Window] = defaultdict(Window)
        self._held: defaultdict[str, int] = defaultdict(int)
        self._leases: dict[str, tuple[str, ...]] = {}
        """Which slots each request holds."""

    def taken(self, asked: Take) -> Taken:
        """What `take` returns, at once."""
        now = self._clock()
        refused, wait_s = self._refused(asked, now)
        if refused < 0:
            self._note(asked, now)
        standings = (self._windows[each.key].standing(now, each.limit) for each in asked.charges)
        return Taken(refused, wait_s, int(now), tuple(Standing(*each) for each in standings))

    def note(self, asked: Take) -> int:
        """Count what was taken elsewhere; the second in which it counts here."""
        now = self._clock()
        self._note(asked, now)
        return int(now)

    def give(self, given: Give) -> None:
        """Give back."""
        self._release(given.lease)
        if given.second < 0:
            return
        now = self._clock()
        for key, amount in given.settled:
            if amount < 0:
                self._windows[key].give_back(now, given.second, -amount)
            else:
                self._windows[key].charge(now, amount)

    def told(self, entry: Entry) -> Taken | None:
        """What the ledger answers to `entry`."""
        match entry:
            case Take():
                return self.taken(entry)
            case Give():
                self.give(entry)
            case Renew(lease, slots):
                if lease not in self._leases:
                    self._hold(lease, slots)
        return None

    def forget(self, leases: Iterable[str]) -> None:
        """Free the slots of requests that nobody answers any more."""
        for lease in leases:
            self._release(lease)

    async def take(self, asked: Take) -> Taken:
        """Take all of it, or nothing."""
        return self.taken(asked)

    async def run(self) -> None:
        """Nothing is to be done beside."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """There is nothing to close."""

    def _refused(self, asked: Take, now: float) -> tuple[int, float]:
        for place, each in enumerate(asked.charges):
            wait_s = self._windows[each.key].wait_s(now, each.limit, max(each.amount, 1))
            if wait_s:
                return place, wait_s
        for place, slot in enumerate(asked.slots, len(asked.charges)):
            if self._held[slot.key] >= slot.limit:
                return place, 0.0
        return -1, 0.0

    def _note(self, asked: Take, now: float) -> None:
        for each in asked.charges:
            self._windows[each.key].charge(now, each.amount)
        if asked.slots:
            self._hold(asked.lease, tuple(slot.key for slot in asked.slots))

    def _hold(self, lease: str, slots: tuple[str, ...]) -> None:
        self._leases[lease] = slots
        for key in slots:
            self._held[key] += 1

    def _release(self, lease: str) -> None:
        for key in self._leases.pop(lease, ()):
            self._held[key] -= 1
