"""A ledger that several processes share, and what counts while it is away.

A limit never vanishes: where the shared ledger does not answer, each process holds the whole limit
by itself, and says so. It has counted all along what it let in, so none of them lets in more than
the limit in any minute, whenever the others are lost.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

import msgspec
from prometheus_client import Counter

from gateway.access.ledger import LEASE_S, Entry, Give, LedgerAway, Renew, Take, Taken
from gateway.access.local_ledger import LocalLedger

AT_ONCE = 256
"""Most entries in one message."""
MESSAGES = 4
"""Most messages that are under way at a time."""
LOOK_S = 1.0
"""Between looks at a ledger that did not answer; no request waits for it meanwhile."""

ALONE = Counter(
    "groundserve_limits_counted_alone_total",
    "Requests whose limits one process counted by itself: the shared ledger was away.",
)
Ask = Callable[[list[Entry]], Awaitable[Sequence[Taken | None]]]
_log = logging.getLogger(__name__)


class _Held(msgspec.Struct):
    slots: tuple[str, ...]
    heard_s: float
    """When the ledger last heard of it."""
    second: int = -1
    """When its tokens were charged there, by that ledger's time."""
    alone_second: int = -1
    """The same by this process's time."""


class SharedLedger:
    """Tells another process what this one takes and gives."""

    def __init__(self, ask: Ask, close: Callable[[], Awaitable[None]], timeout_s: float) -> None:
        """`ask` raises LedgerAway; what takes longer than `timeout_s` counts as that too."""
        self._ask = ask
        self._close = close
        self._timeout_s = timeout_s
        self._alone = LocalLedger()
        self._held: dict[str, _Held] = {}
        self._waiting: list[tuple[Entry, asyncio.Future[Taken | None]]] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._is_away = False

    async def take(self, asked: Take) -> Taken:
        """Take all of it, or nothing; from this process's own limits where it must be."""
        taken: Taken | None = None
        if not self._is_away:
            try:
                taken = await self._put(asked)
            except LedgerAway:
                pass
            except asyncio.CancelledError:  # it is taken there all the same
                self._tell(Give(asked.lease, _keys(asked)))
                raise
        if taken is None:
            return self._taken_alone(asked)
        if taken.refused < 0:
            self._hold(asked, taken.second, self._alone.note(asked))
        return taken

    def give(self, given: Give) -> None:
        """Give back, here and there, without waiting for it."""
        held = self._held.pop(given.lease, None)
        if held is None:
            return
        self._alone.give(msgspec.structs.replace(given, second=held.alone_second))
        if held.slots or given.settled:
            self._tell(msgspec.structs.replace(given, slots=held.slots, second=held.second))

    async def run(self) -> None:
        """Renew what is held for long, and look for a ledger that is away."""
        with contextlib.suppress(LedgerAway):
            await self._asked([])  # connected before the first request has to wait for that
        while True:
            await asyncio.sleep(LOOK_S)
            if self._is_away:
                await self._look()
            oldest = _now() - LEASE_S / 3
            for lease, held in self._held.items():
                if held.slots and held.heard_s < oldest:
                    held.heard_s = _now()
                    self._tell(Renew(lease, held.slots))

    async def close(self) -> None:
        """Tell what is still to be told, and close the connection."""
        await asyncio.gather(*self._sending, return_exceptions=True)
        await self._close()

    def _taken_alone(self, asked: Take) -> Taken:
        ALONE.inc()
        taken = self._alone.taken(asked)
        if taken.refused < 0:
            self._hold(asked, -1, taken.second)
        return taken

    def _hold(self, asked: Take, second: int, alone_second: int) -> None:
        held = self._held.get(asked.lease)
        if held is None:
            held = self._held[asked.lease] = _Held(_keys(asked), _now())
        held.second, held.alone_second = second, alone_second

    def _tell(self, entry: Give | Renew) -> None:
        if not self._is_away:  # leases end by themselves
            self._put(entry).add_done_callback(_heard)

    def _put(self, entry: Entry) -> asyncio.Future[Taken | None]:
        """What becomes of `entry`. What waits while messages are under way goes in the next."""
        answered: asyncio.Future[Taken | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, answered))
        if len(self._sending) < MESSAGES:
            self._sending.add(asyncio.create_task(self._send()))
        return answered

    async def _send(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
                await self._deliver(batch)
        finally:
            # Not in a callback, which comes later: what is put meanwhile would wait for nobody.
            self._sending.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _deliver(self, batch: Sequence[tuple[Entry, asyncio.Future[Taken | None]]]) -> None:
        try:
            answers = await self._asked([entry for entry, _ in batch])
            given = list(zip(batch, answers, strict=True))
        except Exception as exc:  # noqa: BLE001 - whatever it is, who waits must hear of it
            for _, answered in batch:
                if not answered.done():
                    answered.set_exception(exc)
        else:
            for (_, answered), answer in given:
                if not answered.done():
                    answered.set_result(answer)

    async def _asked(self, entries: list[Entry]) -> Sequence[Taken | None]:
        if self._is_away:  # it went while these waited
            raise LedgerAway
        try:
            return await self._answered(entries)
        except LedgerAway as exc:
            if not self._is_away:
                self._is_away = True
                _log.warning("limits are counted by each process alone: %s", exc)
            raise

    async def _answered(self, entries: list[Entry]) -> Sequence[Taken | None]:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._ask(entries)
        except TimeoutError as exc:
            raise LedgerAway("the ledger that is shared is silent for too long") from exc

    async def _look(self) -> None:
        try:
            await self._answered([])
        except LedgerAway:
            return
        self._is_away = False
        for held in self._held.values():
            held.heard_s = -math.inf  # it may have lost everything
        _log.warning("limits are counted together again")


def _heard(answered: asyncio.Future[Taken | None]) -> None:
    if not answered.cancelled():
        answered.exception()  # asyncio complains of one that nobody looks at


def _keys(asked: Take) -> tuple[str, ...]:
    return tuple(slot.key for slot in asked.slots)


def _now() -> float:
    return asyncio.get_running_loop().time()
