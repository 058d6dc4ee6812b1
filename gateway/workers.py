"""Several processes that answer requests, and one with the embedding model that all of them ask.

uvicorn's own supervisor starts the workers, and starts them again when they die. The process that
it runs in answers nothing, and loads nothing of what does.
"""

import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from socket import socket
from types import FrameType
from typing import Any, cast

from prometheus_client.multiprocess import mark_process_dead
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from gateway import encoder_process
from gateway.access import machine_ledger
from gateway.access.keyring import configured_keyring
from gateway.access.keys import KeysUnusable
from gateway.draining import GRACE_S, Draining
from gateway.exchanges import Exchanges
from gateway.processes import (
    FOLDER_PREFIX,
    check_temporary_folder,
    end_with_parent,
    ledger_socket,
    log_to_stderr,
    release_signals,
    signals_held,
)
from gateway.prompt import PromptTemplate
from gateway.server import ServerConfig
from gateway.settings import GatewaySettings, share_metrics
from indexer.index.library import Library

HUNG_S = 15
"""A worker that does not answer its supervisor for so long is killed; starting takes seconds."""
RESTART_S = 1.0
"""Least time between two starts of the encoder process."""
END_S = 5.0
"""How long it may take to end."""
AT_ONCE_S = 2.0
"""How long a worker may take to end at once."""
LOOK_S = 0.1
"""Between two looks at whether the workers have ended."""

_log = logging.getLogger(__name__)
_spawn = multiprocessing.get_context("spawn")


def check(settings: GatewaySettings) -> None:
    """Whether workers can start.

    Raises NoSharedFolder, and what each of them would: KeysUnusable, BadTemplate and
    LibraryUnavailable.
    """
    check_temporary_folder()
    configured_keyring(settings)
    PromptTemplate(settings.prompt_template)
    if settings.library_url is not None:
        Library(settings.library_url, settings.library_storage_options)


def serve(settings: GatewaySettings) -> int:
    """Serve with `settings.workers` processes until SIGTERM or SIGINT; the exit code."""
    # It would be started with the first process, and let signals through that are held then.
    resource_tracker.ensure_running()
    # No other process gets our side of it: it closes with us, however we end.
    lifeline, ours = _spawn.Pipe(duplex=False)
    temporary = tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX, ignore_cleanup_errors=True)
    with temporary as name, machine_ledger.keeping(ledger_socket(Path(name))):
        folder = Path(name)
        share_metrics(folder)
        config = ServerConfig(
            settings,
            partial(worker, settings, folder, lifeline),
            factory=True,
            workers=settings.workers,
            timeout_worker_healthcheck=HUNG_S,
        )
        encoder = _EncoderProcess(settings, folder, lifeline)
        patience_s = settings.shutdown_delay_s + settings.drain_timeout_s + 2 * GRACE_S
        supervisor = _Supervisor(config, [config.bind_socket()], encoder, folder, patience_s)
        try:
            supervisor.run()
        finally:
            ours.close()
            encoder.join()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        return STARTUP_FAILURE
    return 128 + supervisor.asked_by[-1] if len(supervisor.asked_by) > 1 else 0


def worker(settings: GatewaySettings, folder: Path, lifeline: Connection) -> Any:
    """The application of one worker, made in its process."""
    from gateway.app import create_app

    log_to_stderr(settings)
    # Without the encoder there is nothing to be taken on any more.
    end_with_parent(lifeline, folder, lambda: os.kill(os.getpid(), signal.SIGINT))
    exchanges = Exchanges(settings.heartbeat_s)
    try:
        app = create_app(settings, shared=folder, exchanges=exchanges)
    except KeysUnusable as exc:
        # It was fine when the gateway started. The other workers go on with what they have read.
        _log.error("a worker cannot start: %s", exc)
        sys.exit(1)
    # uvicorn has its handler by now, which has it stop.
    stop = cast("Callable[[int, None], None]", signal.getsignal(signal.SIGTERM))
    draining = Draining(settings, exchanges)
    draining.take_signals(lambda: stop(signal.SIGTERM, None), supervised=True)
    release_signals()
    return app


class _EncoderProcess:
    """Runs where the settings name no embeddings server."""

    def __init__(self, settings: GatewaySettings, folder: Path, lifeline: Connection) -> None:
        self._is_wanted = settings.encoder_url is None
        self._arguments = (settings, folder, lifeline)
        self._process: SpawnProcess | None = None
        self._started_at = 0.0

    def keep_alive(self) -> None:
        """Start it, if it does not run."""
        if not self._is_wanted or (self._process is not None and self._process.is_alive()):
            return
        if time.monotonic() - self._started_at < RESTART_S:
            return
        if self._process is not None:
            _log.error("the encoder process ended with exit code %s", self._process.exitcode)
        self._started_at = time.monotonic()
        self._process = _spawn.Process(target=encoder_process.serve, args=self._arguments)
        self._process.start()

    def join(self) -> None:
        """Wait until it has ended, which it does by itself when its lifeline is closed."""
        if self._process is None:
            return
        self._process.join(END_S)
        self._process.kill()
        self._process.join()


class _Supervisor(Multiprocess):
    def __init__(
        self,
        config: ServerConfig,
        sockets: list[socket],
        encoder: _EncoderProcess,
        folder: Path,
        patience_s: float,
    ) -> None:
        """Its workers end by themselves within `patience_s` of being told."""
        super().__init__(config, sockets)
        self._encoder = encoder
        self._folder = folder
        self._patience_s = patience_s
        self.asked_by: list[signal.Signals] = []
        """The signals that asked for the end."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked)

    def init_processes(self) -> None:
        with signals_held():
            self._encoder.keep_alive()
            super().init_processes()

    def keep_subprocess_alive(self) -> None:
        before = {process.pid for process in self.processes}
        with signals_held():
            self._encoder.keep_alive()
            super().keep_subprocess_alive()
        for pid in before - {process.pid for process in self.processes}:
            # What it was doing when it died is done by nobody.
            mark_process_dead(pid, str(self._folder))  # type: ignore[no-untyped-call]

    def terminate_all(self) -> None:
        """Have the workers end. They alone listen from now on, for as long as they want to."""
        self._tell(self.asked_by[0] if self.asked_by else signal.SIGTERM)
        for listening in self.sockets:
            listening.close()

    def join_all(self) -> None:
        """Wait until they have ended, which a second signal has them do at once.

        One that does neither, since it is stopped, is killed.
        """
        told = 1
        ends = time.monotonic() + self._patience_s
        while any(process.exitcode is None for process in self.processes):
            if len(self.asked_by) > told:
                told = len(self.asked_by)
                self._tell(signal.SIGQUIT)
                ends = min(ends, time.monotonic() + AT_ONCE_S)
            if time.monotonic() > ends:
                _log.error("a worker did not end in time")
                self._tell(signal.SIGKILL)
            for process in self.processes:
                process.process.join(LOOK_S)

    def _asked(self, number: int, _: FrameType | None) -> None:
        self.asked_by.append(signal.Signals(number))
        self.should_exit.set()

    def _tell(self, number: signal.Signals) -> None:
        for process in self.processes:
            if process.exitcode is None and process.pid is not None:
                os.kill(process.pid, number)
