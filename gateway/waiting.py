"""What waits for its turn: callers take turns, so that one's flood makes no other wait behind it.

Knows nothing of what is waited for.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

import msgspec


class QueueBounds(msgspec.Struct, frozen=True):
    """How much may wait."""

    items: int = 2000
    seconds: float = 10.0
    """As far as can be told from how long the last calls took."""


class Waiting(Protocol):
    """Something that waits."""

    @property
    def caller(self) -> str:
        """Whose it is."""

    @property
    def kind(self) -> Hashable:
        """Only what is of one kind is taken together."""


W = TypeVar("W", bound=Waiting)


class FairQueue(Generic[W]):
    """Of one caller what came first goes first; of several, one of each goes in turn."""

    def __init__(self) -> None:
        self._lines: dict[str, dict[Hashable, OrderedDict[W, None]]] = {}
        """By caller and kind; whose turn is next stands first."""
        self._counts: dict[str, int] = {}
        self._length = 0

    def __len__(self) -> int:
        """How many wait."""
        return self._length

    def put(self, entry: W) -> None:
        """Have `entry` wait."""
        lines = self._lines.setdefault(entry.caller, {})
        line = lines.get(entry.kind)
        if line is None:
            line = lines[entry.kind] = OrderedDict()
        line[entry] = None
        self._counts[entry.caller] = self._counts.get(entry.caller, 0) + 1
        self._length += 1

    def discard(self, entry: W) -> None:
        """Have it wait no more, if it does."""
        line = self._lines.get(entry.caller, {}).get(entry.kind)
        if line is not None and entry in line:
            del line[entry]
            self._took(entry.caller, entry.kind, 1)

    def take(self, most: int, may_go: Callable[[Hashable], bool]) -> list[W]:
        """Up to `most` of one kind that `may_go`, in turn; none, where there is no such kind.

        The kind is that of the caller whose turn it is.
        """
        for caller, lines in self._lines.items():
            for kind in lines:
                if may_go(kind):
                    return self._taken(caller, kind, most)
        return []

    def newest_of_longest(self, caller: str) -> W | None:
        """The last to come of the caller with most that wait; None where that is `caller`."""
        longest = max(self._counts, key=self._counts.__getitem__, default=caller)
        if self._counts.get(longest, 0) <= self._counts.get(caller, 0):
            return None
        line = next(reversed(self._lines[longest].values()))
        return next(reversed(line))

    def _taken(self, first: str, kind: Hashable, most: int) -> list[W]:
        others = [caller for caller in self._lines if caller != first]
        callers = [first, *(each for each in others if kind in self._lines[each])]
        taken: list[W] = []
        while callers and len(taken) < most:
            share = max(1, (most - len(taken)) // len(callers))
            for caller in callers[: most - len(taken)]:
                line = self._lines[caller][kind]
                count = min(share, len(line))
                taken += [line.popitem(last=False)[0] for _ in range(count)]
                self._took(caller, kind, count)
                if caller in self._lines:  # who had a turn has the next one last
                    self._lines[caller] = self._lines.pop(caller)
            callers = [each for each in callers if kind in self._lines.get(each, {})]
        return taken

    def _took(self, caller: str, kind: Hashable, count: int) -> None:
        self._length -= count
        self._counts[caller] -= count
        if not self._lines[caller][kind]:
            del self._lines[caller][kind]
        if not self._lines[caller]:
            del self._lines[caller], self._counts[caller]
