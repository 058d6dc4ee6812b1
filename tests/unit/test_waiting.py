"""Whose turn it is: nobody waits behind another's flood, and nothing is lost or mixed."""

from collections import Counter
from collections.abc import Hashable

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.waiting import FairQueue

CALLERS = st.sampled_from(["a", "b", "c"])
KINDS = st.sampled_from([1, 2])


class Entry:
    def __init__(self, caller: str, kind: Hashable) -> None:
        self.caller = caller
        self.kind = kind


class Queue(RuleBasedStateMachine):
    """Against a list, whatever is done in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: FairQueue[Entry] = FairQueue()
        self.waiting: list[Entry] = []

    @rule(caller=CALLERS, kind=KINDS)
    def put(self, caller: str, kind: int) -> None:
        entry = Entry(caller, kind)
        self.queue.put(entry)
        self.waiting.append(entry)

    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        if self.waiting:
            entry = data.draw(st.sampled_from(self.waiting))
            self.queue.discard(entry)
            self.queue.discard(entry)  # it waits no more, and nothing happens
            self.waiting.remove(entry)

    @rule(most=st.integers(1, 5), kinds=st.sets(KINDS))
    def take(self, most: int, kinds: set[int]) -> None:
        taken = self.queue.take(most, kinds.__contains__)
        may_go = [entry for entry in self.waiting if entry.kind in kinds]
        assert bool(taken) == bool(may_go)
        assert len({entry.kind for entry in taken}) <= 1
        if taken:
            of_kind = [entry for entry in self.waiting if entry.kind == taken[0].kind]
            assert len(taken) == min(most, len(of_kind))
            _check_shares(taken, of_kind, most)
            _check_order(taken, of_kind)
        for entry in taken:
            self.waiting.remove(entry)

    @rule(caller=CALLERS)
    def newest_of_longest(self, caller: str) -> None:
        counts = Counter(entry.caller for entry in self.waiting)
        newest = self.queue.newest_of_longest(caller)
        if max(counts.values(), default=0) <= counts[caller]:
            assert newest is None
        else:
            assert newest is not None
            assert counts[newest.caller] == max(counts.values())
            of_kind = [
                entry
                for entry in self.waiting
                if (entry.caller, entry.kind) == (newest.caller, newest.kind)
            ]
            assert newest is of_kind[-1]

    @invariant()
    def length(self) -> None:
        assert len(self.queue) == len(self.waiting)


def _check_shares(taken: list[Entry], of_kind: list[Entry], most: int) -> None:
    """Who waits with less than an equal share gets all of it, and nobody more than others wait."""
    waited = Counter(entry.caller for entry in of_kind)
    got = Counter(entry.caller for entry in taken)
    share = most // len(waited)
    for caller, count in waited.items():
        assert got[caller] >= min(count, share)


def _check_order(taken: list[Entry], of_kind: list[Entry]) -> None:
    """Of one caller, those that came first."""
    for caller in {entry.caller for entry in taken}:
        came = [entry for entry in of_kind if entry.caller == caller]
        gone = [entry for entry in taken if entry.caller == caller]
        assert gone == came[: len(gone)]


TestQueue = Queue.TestCase


@given(st.integers(1, 200), st.integers(1, 20), st.integers(1, 32))
def test_who_comes_with_one_goes_in_one_of_the_next_calls_whatever_others_have(
    flood: int, others: int, most: int
) -> None:
    queue: FairQueue[Entry] = FairQueue()
    for _ in range(flood):
        queue.put(Entry("flooder", None))
    for number in range(others):
        queue.put(Entry(f"other {number}", None))
    rounds = -(-(others + 1) // most)  # each caller once
    taken = [entry for _ in range(rounds) for entry in queue.take(most, lambda _: True)]

    assert {entry.caller for entry in taken} == {
        "flooder",
        *(f"other {number}" for number in range(others)),
    }
