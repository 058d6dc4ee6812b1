"""The end of a process that answers requests, from the signal on.

At once it is not ready any more and asks clients to connect anew, but takes what still comes: who
balances the load needs a moment to notice. Then it stops listening, and what runs may finish. What
does not is cut off, and its client told so.
"""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable

from gateway.errors import GatewayStopping
from gateway.exchanges import Exchanges
from gateway.settings import GatewaySettings

GRACE_S = 5.0
"""How long the rest may take when no request is left: closing connections, ending threads."""
_GOODBYE_S = 0.25
"""Between cutting off what runs and the end, where the end is wanted at once."""

_log = logging.getLogger(__name__)


class Draining:
    """That of one process."""

    def __init__(self, settings: GatewaySettings, exchanges: Exchanges) -> None:
        self._delay_s = settings.shutdown_delay_s
        self._drain_s = settings.drain_timeout_s
        self._exchanges = exchanges
        self._stop: Callable[[], None] = lambda: None
        self.exit_code = 0
        """Of the process: as a shell tells of a signal, where it was not left time to drain."""

    def take_signals(self, stop: Callable[[], None], *, supervised: bool = False) -> None:
        """Begin with SIGTERM or SIGINT, in the event loop that runs; `stop` stops listening.

        The second of them ends the process at once. Where it is `supervised`, it gets them from
        its supervisor and from who signals the whole group: there only SIGQUIT does that.
        """
        self._stop = stop
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked, number, supervised)
        loop.add_signal_handler(signal.SIGQUIT, self._end_at_once, signal.SIGTERM)

    def _asked(self, number: signal.Signals, supervised: bool) -> None:
        if not self._exchanges.are_draining:
            self._begin(number)
        elif not supervised:
            self._end_at_once(number)

    def _begin(self, number: signal.Signals) -> None:
        _log.info("%s: ending", number.name)
        self._exchanges.are_draining = True
        # Nobody balances the load of who presses Ctrl-C.
        delay_s = 0.0 if number == signal.SIGINT else self._delay_s
        asyncio.get_running_loop().call_later(delay_s, self._close)
        _after(delay_s + self._drain_s + GRACE_S, _give_up)

    def _close(self) -> None:
        self._stop()
        asyncio.get_running_loop().call_later(self._drain_s, self._cut_off)

    def _cut_off(self) -> None:
        self._exchanges.end(GatewayStopping("This gateway is being stopped. Please try again."))

    def _end_at_once(self, number: signal.Signals) -> None:
        _log.warning("%s: ending at once", number.name)
        self.exit_code = 128 + number
        self._cut_off()
        _after(_GOODBYE_S, lambda: os._exit(self.exit_code))


def _give_up() -> None:
    """Whatever still runs, a thread that waits for a storage for one, has had its time."""
    _log.error("something did not end in time")
    os._exit(1)


def _after(seconds: float, end: Callable[[], None]) -> None:
    """Call `end` then, unless the process has ended, and whatever holds the event loop up."""
    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
