"""The requests that are being answered, each with its response, and what ends one before its time.

A client that leaves ends its own: it is cancelled wherever it waits, and so is what it waits for.
The end of the process ends all that are left, and tells their clients.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import cast

from litestar.types import ASGIApp, HTTPReceiveMessage, Message, Receive, Scope, Send
from prometheus_client import Gauge

from gateway.errors import GatewayFailure

_LAST_WORDS_S = 1.0
"""How long a client that does not read is waited for, to be told that its answer was cut off."""
_WITHOUT_BODY = ("GET", "DELETE", "HEAD", "OPTIONS")
"""Methods whose bodies nobody here reads."""
_CLOSE = (b"connection", b"close")
_KEY = "exchange"
_IN_PROGRESS = Gauge(
    "groundserve_requests_in_progress",
    "Requests that are being answered, streams among them.",
    multiprocess_mode="livesum",
)

_log = logging.getLogger(__name__)


class Exchange:
    """One request and its response, and the task that answers it."""

    def __init__(self, exchanges: "Exchanges", receive: Receive, send: Send) -> None:
        self.tell: Callable[[Exception], bytes] | None = None
        """Makes an event of a failure, where the response is a stream of events."""
        self.heartbeat_s = exchanges.heartbeat_s
        self.has_begun = False
        """Whether the head of the response is on its way."""
        self.is_ended = False
        self._exchanges = exchanges
        self._receive = receive
        self._send = send
        self._task = cast("asyncio.Task[object]", asyncio.current_task())
        self._watch: asyncio.Task[None] | None = None
        self._is_complete = False
        self._failure: GatewayFailure | None = None

    async def receive(self) -> HTTPReceiveMessage:
        """ASGI's. Who calls it is cancelled when the client leaves."""
        if self._watch is None:
            message = cast("HTTPReceiveMessage", await self._receive())
            if message["type"] == "http.disconnect":
                self.end()
                await asyncio.sleep(0)  # where the cancellation arrives
            elif not message.get("more_body"):
                self.watch()
            return message
        await asyncio.wait({self._watch})
        return {"type": "http.disconnect"}

    def send(self, message: Message) -> Awaitable[None]:
        """ASGI's, with nothing of its own to wait for: each piece of a stream comes through it."""
        if message["type"] == "http.response.body":
            self._is_complete = not message.get("more_body")
        elif message["type"] == "http.response.start":
            self.has_begun = True
            if self._exchanges.are_draining:
                message["headers"] = [*message["headers"], _CLOSE]
        return self._send(message)

    def watch(self) -> None:
        """End it when the client leaves; there is nothing more to be read of the request."""
        self._watch = self._task.get_loop().create_task(self._watched())

    def end(self, failure: GatewayFailure | None = None) -> None:
        """Cancel it; the client, if it is still there, is told of `failure`."""
        if not (self.is_ended or self._is_complete):
            self.is_ended, self._failure = True, failure
            self._task.cancel()

    async def conclude(self) -> None:
        """What is left to do once it was cancelled: tell the client, in the way that is left.

        Raises the failure where the response has not begun.
        """
        self._task.uncancel()
        if self._failure is None:
            return
        if not self.has_begun:
            raise self._failure
        _log.warning("an answer was cut off: %s", self._failure)
        if self.tell is None:  # bytes that break off: the connection does, too
            return
        body: Message
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                for body in (
                    _body(self.tell(self._failure), more=True),
                    _body(b"", more=False),
                ):
                    await self.send(body)
        except TimeoutError:
            return

    def close(self) -> None:
        """Stop watching, and leave no circle behind for the garbage collector."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    async def _watched(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.end()


class Exchanges:
    """Those of one process."""

    def __init__(self, heartbeat_s: float = 15.0, *, counted: bool = True) -> None:
        """A stream is silent for `heartbeat_s` at most; `counted` in the metrics or not."""
        self.heartbeat_s = heartbeat_s
        self.are_draining = False
        """Whether clients are asked to connect anew, to another process, for their next request."""
        self._counted = counted
        self._running: set[Exchange] = set()

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """`app`, each of whose requests is one of these."""

        async def exchange(scope: Scope, receive: Receive, send: Send) -> None:
            one = Exchange(self, receive, send)
            state = scope.setdefault("state", {})
            state[_KEY] = one
            self._add(one)
            if scope.get("method") in _WITHOUT_BODY:
                one.watch()
            try:
                await app(scope, one.receive, one.send)
            except asyncio.CancelledError:
                if not one.is_ended:
                    raise
                await one.conclude()
            finally:
                one.close()
                del state[_KEY]
                self._remove(one)

        return exchange

    def end(self, failure: GatewayFailure) -> None:
        """End all that are left; clients are told of `failure`."""
        for one in list(self._running):
            one.end(failure)

    def _add(self, one: Exchange) -> None:
        self._running.add(one)
        if self._counted:
            _IN_PROGRESS.inc()

    def _remove(self, one: Exchange) -> None:
        self._running.discard(one)
        if self._counted:
            _IN_PROGRESS.dec()


def exchange_of(scope: Scope) -> Exchange:
    """The exchange that a request belongs to."""
    return cast("Exchange", scope["state"][_KEY])


def _body(content: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}
