"""One ledger for the workers of a machine: kept by the process that watches over them.

They ask it over a Unix socket. It lives as long as the gateway, so nothing is lost when a worker
dies, and the slots of one that does are free at once: its connection is closed.
"""

import asyncio
import contextlib
import struct
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import msgspec

from gateway.access.ledger import Entry, Give, LedgerAway, Renew, Take, Taken
from gateway.access.local_ledger import LocalLedger
from gateway.processes import signals_held

_LENGTH = struct.Struct("!I")
_ENTRIES = msgspec.msgpack.Decoder(list[Entry])
_ANSWERS = msgspec.msgpack.Decoder(list[Taken | None])


@contextlib.contextmanager
def keeping(socket: Path) -> Iterator[None]:
    """Keep a ledger that processes can ask at `socket`, in a thread, while the block lasts."""
    loop = asyncio.new_event_loop()
    kept = _Kept()
    server = loop.run_until_complete(loop.create_unix_server(kept.served, str(socket)))
    thread = threading.Thread(target=loop.run_until_complete, args=[kept.until_ended(server)])
    with signals_held():  # they are for the thread that waits for them
        thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(kept.ended.set)
        thread.join()
        loop.close()


class _Kept:
    """The ledger, and who asks it."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self._ledger = LocalLedger()
        self._asking: set[_Served] = set()

    def served(self) -> "_Served":
        return _Served(self._ledger, self._asking)

    async def until_ended(self, server: asyncio.Server) -> None:
        await self.ended.wait()
        server.close()
        while self._asking:
            for each in self._asking:
                each.close()
            await asyncio.sleep(0)  # they are closed in the next round of the loop


class _Messages(asyncio.Protocol):
    """Messages that begin with their length."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._waiting = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        while len(self._waiting) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._waiting)[0]
            if len(self._waiting) < end:
                return
            message = bytes(self._waiting[_LENGTH.size : end])
            del self._waiting[:end]
            self.received(message)

    def received(self, message: bytes) -> None:
        """A whole one has come."""
        raise NotImplementedError

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def send(self, content: Sequence[Entry | Taken | None]) -> None:
        message = msgspec.msgpack.encode(content)
        if self.transport is not None:
            self.transport.write(_LENGTH.pack(len(message)) + message)


class _Served(_Messages):
    """A process that asks."""

    def __init__(self, ledger: LocalLedger, asking: set["_Served"]) -> None:
        super().__init__()
        self._ledger = ledger
        self._asking = asking
        self._leases: set[str] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._asking.add(self)

    def received(self, message: bytes) -> None:
        self.send([self._answer(entry) for entry in _ENTRIES.decode(message)])

    def connection_lost(self, _: Exception | None) -> None:
        self._asking.discard(self)
        self._ledger.forget(self._leases)

    def _answer(self, entry: Entry) -> Taken | None:
        taken = self._ledger.told(entry)
        match entry:
            case Give(lease):
                self._leases.discard(lease)
            case Renew(lease):
                self._leases.add(lease)
            case Take(lease) if entry.slots and taken is not None and taken.refused < 0:
                self._leases.add(lease)
        return taken


class MachineLedger:
    """Asks the ledger of this machine, over one connection."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._connection: _Asking | None = None
        self._connecting = asyncio.Lock()

    async def ask(self, entries: list[Entry]) -> Sequence[Taken | None]:
        """What it answers. Raises LedgerAway."""
        async with self._connecting:  # what is held belongs to one connection
            if self._connection is None or self._connection.is_lost:
                self._connection = await self._connected()
            connection = self._connection
        try:
            return await connection.ask(entries)
        except asyncio.CancelledError:
            # It is silent for too long, and is told nothing until it answers again. What is held
            # over this connection comes free with it, and what is in use still is renewed.
            connection.is_lost = True
            connection.close()
            raise

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            await asyncio.sleep(0)  # where it is closed

    async def _connected(self) -> "_Asking":
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_unix_connection(_Asking, str(self._socket))
        except OSError as exc:
            raise LedgerAway(f"the ledger of this machine cannot be reached: {exc}") from exc
        return connection


class _Asking(_Messages):
    def __init__(self) -> None:
        super().__init__()
        self.is_lost = False
        self._asked: deque[asyncio.Future[list[Taken | None]]] = deque()

    async def ask(self, entries: list[Entry]) -> list[Taken | None]:
        """Answers come in the order of the questions. Raises LedgerAway."""
        answered: asyncio.Future[list[Taken | None]] = asyncio.get_running_loop().create_future()
        self._asked.append(answered)
        self.send(entries)
        return await answered

    def received(self, message: bytes) -> None:
        answered = self._asked.popleft()
        if not answered.done():  # it was waited for too long
            answered.set_result(_ANSWERS.decode(message))

    def connection_lost(self, _: Exception | None) -> None:
        self.is_lost = True
        for answered in self._asked:
            if not answered.done():
                answered.set_exception(LedgerAway("the ledger of this machine has gone"))
