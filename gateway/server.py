"""uvicorn as the gateway runs it: its settings in one place, and patience that ends.

Left to itself, uvicorn waits for ever for a client that sends its request byte by byte, or reads
nothing of its answer. Knows no application.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from gateway.draining import GRACE_S, Draining
from gateway.errors import Refused
from gateway.request_heads import HeadProtocol, refusal
from gateway.settings import GatewaySettings

BYTES_A_SECOND = 500
"""A request that comes at least as fast may take as long as it needs: some have many megabytes."""

_log = logging.getLogger(__name__)


class ServerConfig(uvicorn.Config):
    """How every process serves."""

    def __init__(self, settings: GatewaySettings, app: Callable[..., Any], **more: Any) -> None:
        """`more` is what uvicorn is told beside that."""
        client_ca = settings.listen_client_ca_file
        super().__init__(
            app,
            host=settings.listen_host,
            port=settings.listen_port,
            http=Protocol,
            ws="none",
            log_config=None,
            access_log=False,
            timeout_keep_alive=settings.keep_alive_timeout_s,
            # What runs longer has been cut off by then, see draining.
            timeout_graceful_shutdown=settings.drain_timeout_s + int(GRACE_S / 2),
            ssl_certfile=settings.listen_cert_file,
            ssl_keyfile=settings.listen_key_file,
            ssl_ca_certs=client_ca and str(client_ca),
            ssl_cert_reqs=ssl.CERT_REQUIRED if client_ca else ssl.CERT_NONE,
            **more,
        )
        self.client_timeout_s = settings.client_timeout_s
        self.max_header_bytes = settings.max_header_bytes


class Server(uvicorn.Server):
    """Serves in this process, and ends as it is told by `draining`."""

    def __init__(self, config: ServerConfig, draining: Draining) -> None:
        super().__init__(config)
        self._draining = draining

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Have them taken by who knows what is running."""
        self._draining.take_signals(self._stop)
        yield

    def _stop(self) -> None:
        self.should_exit = True


class Protocol(HeadProtocol):
    """One connection of a client, which is closed where the client stalls for too long.

    A request has to be there within that time, or come at a rate that is worth waiting for. One
    timer looks after all requests of a connection.
    """

    def __init__(self, config: ServerConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config.max_header_bytes, config, *args, **kwargs)
        self._patience_s = config.client_timeout_s
        self._awaited_since: float | None = None
        """On the loop's clock, in seconds; None while no request is being sent."""
        self._came = 0
        """Bytes since then."""
        self._alarm: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Part of asyncio's protocol."""
        super().connection_made(transport)
        self._await_request()

    def data_received(self, data: bytes) -> None:
        """Part of asyncio's protocol."""
        self._came += len(data)
        super().data_received(data)

    def pause_writing(self) -> None:
        """Part of asyncio's protocol."""
        super().pause_writing()
        self._unread = self.loop.call_later(self._patience_s, self._abandon)

    def resume_writing(self) -> None:
        """Part of asyncio's protocol."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio's protocol."""
        super().connection_lost(exc)
        for timer in (self._alarm, self._unread):
            if timer is not None:
                timer.cancel()

    def on_message_begin(self) -> None:
        """Part of httptools' protocol."""
        super().on_message_begin()
        self._await_request()

    def on_message_complete(self) -> None:
        """Part of httptools' protocol."""
        super().on_message_complete()
        self._awaited_since = None

    def _await_request(self) -> None:
        self._awaited_since, self._came = self.loop.time(), 0
        if self._alarm is None:
            self._alarm = self.loop.call_later(self._patience_s, self._look)

    def _look(self) -> None:
        """Whether the client has stalled."""
        self._alarm = None
        if self._awaited_since is None:
            return
        now = self.loop.time()
        is_fast = self._came >= self._patience_s * BYTES_A_SECOND
        if self.flow.read_paused or is_fast:  # where it is paused, we are the ones to be awaited
            self._awaited_since, self._came = now, 0
        elif now - self._awaited_since >= self._patience_s:
            self._refuse()
            return
        self._alarm = self.loop.call_at(self._awaited_since + self._patience_s, self._look)

    def _refuse(self) -> None:
        """Close the connection; who had begun to say something is told why."""
        _log.info("a client took longer than %g s to send its request", self._patience_s)
        if self._came and not self._is_answering():
            said = f"The request was not there after {self._patience_s:g} s."
            self.transport.write(refusal(Refused(said, 408, "client_too_slow")))
        self.transport.close()

    def _is_answering(self) -> bool:
        """Whether a response is on its way, or went out before its request was there."""
        last = self.cycle
        return (
            last is not None
            and last.response_started
            and (last.more_body or not last.response_complete)
        )

    def _abandon(self) -> None:
        """Close the connection of a client that does not read."""
        _log.info("a client read nothing for %g s", self._patience_s)
        self.transport.abort()
