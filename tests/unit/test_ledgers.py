"""Ledgers: all or nothing, slots that come free, and a shared one that goes away."""

import asyncio
import contextlib
import logging
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest

from gateway.access import shared_ledger
from gateway.access.ledger import (
    Charge,
    Entry,
    Give,
    LedgerAway,
    Renew,
    Slot,
    Standing,
    Take,
    Taken,
)
from gateway.access.local_ledger import LocalLedger
from gateway.access.machine_ledger import MachineLedger, keeping
from gateway.access.shared_ledger import ALONE, SharedLedger

pytestmark = pytest.mark.anyio
SLOT = Slot("slots", 2)


def take(lease: str, *charges: Charge, slots: tuple[Slot, ...] = ()) -> Take:
    return Take(lease, charges, slots)


def test_a_take_that_is_refused_for_one_limit_counts_for_none() -> None:
    ledger = LocalLedger(lambda: 1000.0)
    both = (Charge("requests", 5, 1), Charge("tokens", 10, 8))

    assert ledger.taken(take("a", *both, slots=(SLOT,))).refused == -1
    second = ledger.taken(take("b", *both, slots=(SLOT,)))

    assert (second.refused, second.wait_s) == (1, 61.0)
    assert second.standings == (Standing(4, 61.0), Standing(2, 61.0))
    third = ledger.taken(take("c", Charge("requests", 5, 1), slots=(SLOT,)))
    assert (third.refused, third.standings) == (-1, (Standing(3, 61.0),))
    fourth = ledger.taken(take("d", Charge("requests", 5, 1), slots=(SLOT,)))
    assert (fourth.refused, fourth.standings) == (1, (Standing(3, 61.0),))


def test_a_charge_of_nothing_is_refused_where_nothing_is_left() -> None:
    ledger = LocalLedger(lambda: 1000.0)

    assert ledger.taken(take("a", Charge("tokens", 10, 10))).refused == -1
    assert ledger.taken(take("b", Charge("tokens", 10, 0))).refused == 0


def test_what_was_not_used_is_given_back_and_what_was_used_beyond_is_charged() -> None:
    ledger = LocalLedger(lambda: 1000.0)
    taken = ledger.taken(take("a", Charge("tokens", 10, 8)))
    ledger.give(Give("a", (), taken.second, (("tokens", -6),)))
    assert ledger.taken(take("b", Charge("tokens", 10, 0))).standings[0].remaining == 8

    ledger.give(Give("b", (), taken.second, (("tokens", 20),)))
    assert ledger.taken(take("c", Charge("tokens", 10, 0))).standings[0].remaining == 0


def test_a_slot_is_given_back_once() -> None:
    ledger = LocalLedger()
    for lease in "ab":
        assert ledger.taken(take(lease, slots=(SLOT,))).refused == -1
    ledger.give(Give("a"))
    ledger.give(Give("a"))

    assert ledger.taken(take("c", slots=(SLOT,))).refused == -1
    assert ledger.taken(take("d", slots=(SLOT,))).refused == 0


class Elsewhere:
    """A ledger in another process, which goes away when it is told to."""

    def __init__(self) -> None:
        self.ledger = LocalLedger()
        self.failure: Exception | None = None
        self.hangs = False
        self.asked: list[list[Entry]] = []
        self.closed = 0

    async def ask(self, entries: list[Entry]) -> Sequence[Taken | None]:
        self.asked.append(entries)
        if self.hangs:
            await asyncio.Event().wait()
        if self.failure is not None:
            raise self.failure
        await asyncio.sleep(0)
        return [self.ledger.told(entry) for entry in entries]

    async def close(self) -> None:
        self.closed += 1


@pytest.fixture
def elsewhere() -> Elsewhere:
    return Elsewhere()


@pytest.fixture
def shared(elsewhere: Elsewhere) -> SharedLedger:
    return SharedLedger(elsewhere.ask, elsewhere.close, 0.05)


@contextlib.asynccontextmanager
async def running(ledger: SharedLedger) -> AsyncIterator[None]:
    task = asyncio.create_task(ledger.run())
    try:
        yield
    finally:
        task.cancel()


async def settled(condition: Callable[[], bool], within_s: float = 10) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)


async def test_takes_that_come_at_once_go_in_few_messages(
    shared: SharedLedger, elsewhere: Elsewhere
) -> None:
    asked = [shared.take(take(str(at), Charge("requests", 50, 1))) for at in range(100)]
    taken = await asyncio.gather(*asked)

    assert sum(each.refused < 0 for each in taken) == 50
    assert len(elsewhere.asked) <= shared_ledger.MESSAGES
    assert sum(map(len, elsewhere.asked)) == 100


async def test_who_asks_in_the_moment_in_which_a_message_was_answered_is_answered_too(
    shared: SharedLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that came then waited for the next one: for ever, where none came."""
    monkeypatch.setattr(shared_ledger, "MESSAGES", 1)
    async with asyncio.timeout(5):
        for at in range(100):
            await shared.take(take(str(at), Charge("requests", 100, 1)))


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_limit_holds_in_each_process_while_the_shared_ledger_is_away(
    hangs: bool, shared: SharedLedger, elsewhere: Elsewhere, caplog: pytest.LogCaptureFixture
) -> None:
    before = ALONE._value.get()
    for lease in ("a", "b", "c"):
        assert (await shared.take(take(lease, Charge("requests", 5, 1)))).refused == -1
    elsewhere.hangs, elsewhere.failure = hangs, LedgerAway("Redis: refused")
    with caplog.at_level(logging.WARNING):
        asked = [shared.take(take(f"d{at}", Charge("requests", 5, 1))) for at in range(4)]
        taken = await asyncio.gather(*asked)

    assert [each.refused for each in taken] == [-1, -1, 0, 0]
    assert ALONE._value.get() == before + 4
    assert [record.message for record in caplog.records] == [
        "limits are counted by each process alone: "
        + ("the ledger that is shared is silent for too long" if hangs else "Redis: refused")
    ]


async def test_only_the_first_waits_for_a_ledger_that_hangs(
    shared: SharedLedger, elsewhere: Elsewhere
) -> None:
    elsewhere.hangs = True
    await shared.take(take("a", Charge("requests", 500, 1)))
    loop = asyncio.get_running_loop()
    started = loop.time()
    for at in range(100):
        await shared.take(take(f"b{at}", Charge("requests", 500, 1)))

    assert loop.time() - started < 2
    assert len(elsewhere.asked) == 1


async def test_slots_that_were_taken_alone_are_known_when_the_ledger_is_back(
    shared: SharedLedger, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_ledger, "LOOK_S", 0.01)
    elsewhere.failure = LedgerAway("gone")
    for lease in ("a", "b"):
        assert (await shared.take(take(lease, slots=(SLOT,)))).refused == -1
    async with running(shared):
        elsewhere.failure = None
        await settled(lambda: len(elsewhere.ledger._leases) == 2)
        assert (await shared.take(take("c", slots=(SLOT,)))).refused == 0
        shared.give(Give("a"))
        await settled(lambda: len(elsewhere.ledger._leases) == 1)
        assert (await shared.take(take("d", slots=(SLOT,)))).refused == -1
    await shared.close()
    assert elsewhere.closed == 1


async def test_tokens_are_settled_where_they_were_charged(
    shared: SharedLedger, elsewhere: Elsewhere
) -> None:
    tokens = Charge("tokens", 10, 8)
    taken = await shared.take(take("a", tokens))
    shared.give(Give("a", (), taken.second, (("tokens", -5),)))
    elsewhere.failure = LedgerAway("gone")
    alone = await shared.take(take("b", Charge("tokens", 10, 0)))
    assert alone.standings[0].remaining == 7

    taken = await shared.take(take("c", Charge("tokens", 10, 7)))
    shared.give(Give("c", (), taken.second, (("tokens", -7),)))
    alone = await shared.take(take("d", Charge("tokens", 10, 0)))
    assert alone.standings[0].remaining == 7


@pytest.mark.parametrize("answers", [0, 2])
async def test_who_waits_for_a_ledger_that_gives_too_few_or_too_many_answers_hears_of_it(
    answers: int, shared: SharedLedger, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask(_: list[Entry]) -> Sequence[Taken | None]:
        return [None] * answers

    monkeypatch.setattr(shared, "_ask", ask)
    async with asyncio.timeout(10):
        with pytest.raises(ValueError, match="zip"):
            await shared.take(take("a", Charge("requests", 5, 1)))
    monkeypatch.setattr(shared, "_ask", elsewhere.ask)

    assert (await shared.take(take("b", Charge("requests", 5, 1)))).refused == -1


async def test_who_gives_up_while_a_slot_is_taken_holds_none(
    shared: SharedLedger, elsewhere: Elsewhere
) -> None:
    async def given_up() -> None:
        asked = asyncio.ensure_future(shared.take(take("a", slots=(SLOT,))))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    await given_up()

    assert isinstance(elsewhere.asked[0][0], Take)
    await settled(lambda: len(elsewhere.asked) == 2 and elsewhere.ledger._leases == {})


async def test_only_what_is_held_for_long_is_renewed(
    shared: SharedLedger, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_ledger, "LOOK_S", 0.01)
    monkeypatch.setattr(shared_ledger, "LEASE_S", 0.3)
    async with running(shared):
        await shared.take(take("short", slots=(SLOT,)))
        await shared.take(take("long", slots=(SLOT,)))
        shared.give(Give("short"))
        renewed: Callable[[], list[str]] = lambda: [  # noqa: E731
            each.lease for entries in elsewhere.asked for each in entries if isinstance(each, Renew)
        ]
        await settled(lambda: len(renewed()) >= 2)

    assert set(renewed()) == {"long"}


@pytest.fixture
def socket(tmp_path: Path) -> Iterator[Path]:
    with keeping(tmp_path / "ledger.sock"):
        yield tmp_path / "ledger.sock"


def connected(socket: Path) -> SharedLedger:
    machine = MachineLedger(socket)
    return SharedLedger(machine.ask, machine.close, 5)


def test_two_processes_share_what_a_machine_may(socket: Path) -> None:
    async def asked() -> tuple[int, int]:
        one, other = connected(socket), connected(socket)
        takes = [
            ledger.take(take(f"{name}{at}", Charge("requests", 300, 1)))
            for at in range(400)
            for name, ledger in (("one", one), ("other", other))
        ]
        taken = await asyncio.gather(*takes)
        await one.close()
        await other.close()
        return sum(each.refused < 0 for each in taken), len(taken)

    assert asyncio.run(asked()) == (300, 800)


def test_the_slots_of_a_process_that_is_gone_are_free_at_once(socket: Path) -> None:
    async def asked() -> list[int]:
        one, other = connected(socket), connected(socket)
        for lease in ("a", "b"):
            await one.take(take(lease, slots=(SLOT,)))
        refused = [(await other.take(take("c", slots=(SLOT,)))).refused]
        await one.close()
        await asyncio.sleep(0.1)
        refused += [(await other.take(take(lease, slots=(SLOT,)))).refused for lease in "def"]
        await other.close()
        return refused

    assert asyncio.run(asked()) == [0, -1, -1, 0]


async def test_what_is_given_back_while_the_ledger_is_silent_is_free_when_it_answers(
    tmp_path: Path,
) -> None:
    script = "import sys; from pathlib import Path; from gateway.access.machine_ledger import *\n"
    script += "with keeping(Path(sys.argv[1])): print('up', flush=True); sys.stdin.read()"
    socket = tmp_path / "ledger.sock"
    elsewhere = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, str(socket)), stdin=PIPE, stdout=PIPE
    )
    assert elsewhere.stdout is not None
    assert await elsewhere.stdout.readline() == b"up\n"
    machine = MachineLedger(socket)
    shared = SharedLedger(machine.ask, machine.close, 0.5)
    try:
        async with running(shared):
            for lease in ("held", "given"):
                assert (await shared.take(take(lease, slots=(SLOT,)))).refused == -1
            elsewhere.send_signal(signal.SIGSTOP)
            assert (await shared.take(take("alone", slots=(SLOT,)))).refused == 0
            shared.give(Give("given"))
            elsewhere.send_signal(signal.SIGCONT)
            await settled(lambda: not shared._is_away, within_s=20)
            await asyncio.sleep(2 * shared_ledger.LOOK_S)  # what is held is renewed

            refused = [(await shared.take(take(each, slots=(SLOT,)))).refused for each in "ab"]
            assert refused == [-1, 0]
    finally:
        await shared.close()
        elsewhere.kill()
        await elsewhere.wait()


def test_a_machine_without_a_ledger_is_told_as_that(tmp_path: Path) -> None:
    async def asked() -> None:
        await MachineLedger(tmp_path / "none.sock").ask([])

    with pytest.raises(LedgerAway, match="cannot be reached"):
        asyncio.run(asked())
