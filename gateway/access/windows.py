"""How much was asked for within the last minute, in memory that does not grow with it."""

from collections import deque

WINDOW_S = 60
"""A limit is never exceeded in any span of so many seconds, wherever it begins."""

NEVER = -1.0
"""How long to wait for more than a limit allows at all."""


class Window:
    """A moving window that counts by the second.

    What was charged leaves it at the end of its own second, WINDOW_S later: up to one second late,
    never early. So the limit holds in every minute, not only in those of the clock, and requests
    and tokens cost the same: 61 numbers, however many there are.
    """

    def __init__(self) -> None:
        self._charged: deque[list[int]] = deque()
        """Second and amount, oldest first."""
        self._total = 0

    def wait_s(self, now_s: float, limit: int, amount: int) -> float:
        """Seconds until `amount` fits in; 0 where it does now, NEVER where it never will."""
        self._forget(now_s)
        missing = self._total + amount - limit
        if missing <= 0:
            return 0.0
        if amount > limit:
            return NEVER
        for second, charged in self._charged:
            missing -= charged
            if missing <= 0:
                return _left_s(second, now_s)
        raise AssertionError("unreachable: an empty window has room for the whole limit")

    def charge(self, now_s: float, amount: int) -> None:
        """Count `amount`, whether it fits or not."""
        if amount <= 0:
            return
        self._forget(now_s)
        second = int(now_s)
        if self._charged and self._charged[-1][0] == second:
            self._charged[-1][1] += amount
        else:
            self._charged.append([second, amount])
        self._total += amount

    def give_back(self, now_s: float, second: int, amount: int) -> None:
        """Take back what was charged in `second`, as far as it still counts."""
        self._forget(now_s)
        for entry in reversed(self._charged):
            if entry[0] <= second:
                if entry[0] == second:
                    less = min(amount, entry[1])
                    entry[1] -= less
                    self._total -= less
                return

    def standing(self, now_s: float, limit: int) -> tuple[int, float]:
        """What is left of `limit`, and the seconds until all of it is there again."""
        self._forget(now_s)
        reset_s = _left_s(self._charged[-1][0], now_s) if self._total else 0.0
        return max(0, limit - self._total), reset_s

    def _forget(self, now_s: float) -> None:
        oldest = int(now_s) - WINDOW_S
        while self._charged and self._charged[0][0] < oldest:
            self._total -= self._charged.popleft()[1]


def _left_s(second: int, now_s: float) -> float:
    """How long what was charged in `second` still counts."""
    return second + WINDOW_S + 1 - now_s
