"""The situations that both sides are put into, and what is found in Milvus during and after them.

Right is what a clean run of the same side makes of the same sources. What a clean run makes is
found out with made-up vectors, since the texts do not depend on them.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from stack.comparison.bench import NOTHING_DONE, Bench, Chunks, Figures, Kill, chunks
from stack.comparison.corpus import Corpus, Variant
from stack.comparison.sides import Row
from stack.errors import Unsuitable

_INDEXED = "indexed"
"""The stores after a first run that nothing happened to."""


@dataclass(frozen=True)
class Outcome:
    """What one side made of one situation."""

    figures: Figures
    """Of the last run."""
    rows: int
    """In Milvus, afterwards."""
    wrong: str
    """How that differs from a clean run; empty where it does not."""
    meanwhile: str = ""
    """What readers found between the kill and the next run."""


class Trial:
    """One side in every situation. `first_run` comes first: the others start from what it left."""

    def __init__(self, bench: Bench, corpus: Corpus) -> None:
        self._bench = bench
        self._corpus = corpus
        self._clean: dict[Variant, Chunks] = {}
        self._first = NOTHING_DONE

    def learn(self) -> None:
        """Find out what clean runs make. Raises Unsuitable when a change would not be seen."""
        for variant in Variant:
            self._show(variant)
            with self._bench.started():
                self._bench.complete(pretend=True)
                self._clean[variant] = chunks(self._bench.rows())
        if self._clean[Variant.CHANGED] == self._clean[Variant.ORIGINAL]:
            raise Unsuitable(
                f"{self._bench.side.name} does not index the paragraph of {self._corpus.changed} "
                "that is changed: take other documents"
            )

    def first_run(self) -> Outcome:
        """Everything is new."""
        self._show(Variant.ORIGINAL)
        with self._bench.started():
            outcome = self._completed(Variant.ORIGINAL)
        self._first = outcome.figures
        self._bench.save(_INDEXED)
        return outcome

    def rerun(self, variant: Variant) -> Outcome:
        """The second run, over sources in `variant`."""
        self._show(variant)
        with self._bench.started(_INDEXED):
            return self._completed(variant)

    def killed_first_run(self, kill: Callable[[Figures], Kill]) -> Outcome:
        """A first run that is killed, and the next one."""
        self._show(Variant.ORIGINAL)
        with self._bench.started():
            killed = self._bench.run(kill(self._first)) is None
            seen = found(self._served(), self._clean[Variant.ORIGINAL])
            return self._completed(Variant.ORIGINAL, seen if killed else "it was done before")

    def killed_rerun(self, after_writes: int, then: Variant = Variant.CHANGED) -> Outcome:
        """A run with one changed document that is killed, and the next one, of sources `then`."""
        self._show(Variant.CHANGED)
        with self._bench.started(_INDEXED):
            killed = self._bench.run(Kill(after_writes=after_writes)) is None
            seen = self._versions_found()
            self._show(then)
            return self._completed(then, seen if killed else "it was done before")

    def records_lost(self) -> Outcome | None:
        """The file beside Milvus is gone, and so is one document; None where there is no file."""
        if not self._bench.side.records:
            return None
        self._show(Variant.REMOVED)
        with self._bench.started(_INDEXED, lost=self._bench.side.records):
            return self._completed(Variant.REMOVED)

    def milvus_lost(self) -> Outcome:
        """Milvus was set up anew and is empty."""
        self._show(Variant.ORIGINAL)
        with self._bench.started(_INDEXED, lost="milvus"):
            return self._completed(Variant.ORIGINAL)

    def _show(self, variant: Variant) -> None:
        self._corpus.show(variant, self._bench.documents)

    def _completed(self, variant: Variant, meanwhile: str = "") -> Outcome:
        figures = self._bench.complete()
        rows = self._bench.rows()
        return Outcome(
            figures, len(rows), difference(chunks(rows), self._clean[variant]), meanwhile
        )

    def _served(self) -> list[Row]:
        return self._bench.side.served(self._bench.rows())

    def _versions_found(self) -> str:
        """Which version of the changed document a search finds, for each chunk that differs."""
        old, new = self._clean[Variant.ORIGINAL], self._clean[Variant.CHANGED]
        stale = {text for _, text in old - new}
        fresh = {text for _, text in new - old}
        rows = self._bench.rows(with_vectors=True)
        questions = [row for row in rows if row.text in stale | fresh]
        return versions(self._bench.answers(questions), stale, fresh)


class Scenario(NamedTuple):
    """A row of the table."""

    title: str
    play: Callable[[Trial], Outcome | None]


SCENARIOS = (
    Scenario("first run", Trial.first_run),
    Scenario("nothing changed", lambda trial: trial.rerun(Variant.ORIGINAL)),
    Scenario("one paragraph changed", lambda trial: trial.rerun(Variant.CHANGED)),
    Scenario("one document removed", lambda trial: trial.rerun(Variant.REMOVED)),
    Scenario("one document renamed", lambda trial: trial.rerun(Variant.RENAMED)),
    Scenario(
        "first run killed half-way",
        lambda trial: trial.killed_first_run(lambda first: Kill(after_s=first.seconds / 2)),
    ),
    Scenario(
        "first run killed after half of its writes",
        lambda trial: trial.killed_first_run(
            lambda first: Kill(after_writes=ceil(first.writes / 2))
        ),
    ),
    Scenario(
        "one paragraph changed, killed after its first write",
        lambda trial: trial.killed_rerun(1),
    ),
    Scenario(
        "one paragraph changed, killed after its second write",
        lambda trial: trial.killed_rerun(2),
    ),
    Scenario(
        "one paragraph changed, killed after its first write, then changed back",
        lambda trial: trial.killed_rerun(1, then=Variant.ORIGINAL),
    ),
    Scenario("record manager's database lost, one document removed", Trial.records_lost),
    Scenario("Milvus' data lost", Trial.milvus_lost),
)


def difference(stored: Chunks, clean: Chunks) -> str:
    """In words; empty where both are the same."""
    missing, surplus = (clean - stored).total(), (stored - clean).total()
    parts = [
        f"{count} {'chunk' if count == 1 else 'chunks'} {what}"
        for count, what in ((missing, "missing"), (surplus, "too many"))
        if count
    ]
    return ", ".join(parts)


def found(served: Iterable[Row], clean: Chunks) -> str:
    """How much of what a clean run makes a reader finds."""
    here, all_of_it = _by_source(chunks(list(served))), _by_source(clean)
    if not here:
        return "nothing"
    complete = sum(here.get(source) == texts for source, texts in all_of_it.items())
    in_part = len(here) - complete
    return f"{complete} of {len(all_of_it)} documents" + (
        f" and {in_part} in part" if in_part else ""
    )


def versions(answers: list[list[str]], stale: set[str], fresh: set[str]) -> str:
    """Which version of a document these answers are from, and whether one answer mixes them."""
    kinds = {(not stale.isdisjoint(answer), not fresh.isdisjoint(answer)) for answer in answers}
    if (True, True) in kinds:
        return "both versions in one answer"
    if {(True, False), (False, True)} <= kinds:
        return "one version in an answer, which one depends on the question"
    if (False, True) in kinds:
        return "the new version"
    return "the old version" if (True, False) in kinds else "neither version"


def _by_source(stored: Chunks) -> dict[str, Counter[str]]:
    grouped: dict[str, Counter[str]] = defaultdict(Counter)
    for (source, text), count in stored.items():
        grouped[source][text] += count
    return dict(grouped)
