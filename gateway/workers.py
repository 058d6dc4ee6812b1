"""Several processes that answer requests, and one with the embedding model that all of them ask.

uvicorn's own supervisor starts the workers, and starts them again when they die. The process that
it runs in answers nothing, and loads nothing of what does.
"""

import logging
import multiprocessing
import os
import signal
import tempfile
import time
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from socket import socket
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from gateway import encoder_process
from gateway.processes import end_with_parent, log_to_stderr, release_signals, signals_held
from gateway.prompt import PromptTemplate
from gateway.settings import GatewaySettings, share_metrics
from indexer.index.library import Library

HUNG_S = 15
"""A worker that does not answer its supervisor for so long is killed; starting takes seconds."""
RESTART_S = 1.0
"""Least time between two starts of the encoder process."""
END_S = 5.0
"""How long it may take to end."""

_log = logging.getLogger(__name__)
_spawn = multiprocessing.get_context("spawn")


def check(settings: GatewaySettings) -> None:
    """Raises BadTemplate and LibraryUnavailable, as every worker would."""
    PromptTemplate(settings.prompt_template)
    if settings.library_url is not None:
        Library(settings.library_url, settings.library_storage_options)


def serve(settings: GatewaySettings) -> int:
    """Serve with `settings.workers` processes until SIGTERM or SIGINT; the exit code."""
    # It would be started with the first process, and let signals through that are held then.
    resource_tracker.ensure_running()
    # No other process gets our side of it: it closes with us, however we end.
    lifeline, ours = _spawn.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="groundserve-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        share_metrics(folder)
        config = uvicorn.Config(
            partial(worker, settings, folder, lifeline),
            factory=True,
            host=settings.listen_host,
            port=settings.listen_port,
            workers=settings.workers,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=settings.drain_timeout_s,
            timeout_worker_healthcheck=HUNG_S,
        )
        encoder = _EncoderProcess(settings, folder, lifeline)
        supervisor = _Supervisor(config, [config.bind_socket()], encoder)
        try:
            supervisor.run()
        finally:
            ours.close()
            encoder.join()
    failed = any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes)
    return STARTUP_FAILURE if failed else 0


def worker(settings: GatewaySettings, folder: Path, lifeline: Connection) -> Any:
    """The application of one worker, made in its process."""
    from gateway.app import create_app

    log_to_stderr(settings)
    end_with_parent(lifeline, folder, lambda: os.kill(os.getpid(), signal.SIGTERM))
    app = create_app(settings, shared=folder)
    release_signals()  # uvicorn has its handlers by now
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
        self, config: uvicorn.Config, sockets: list[socket], encoder: _EncoderProcess
    ) -> None:
        super().__init__(config, sockets)
        self._encoder = encoder

    def init_processes(self) -> None:
        with signals_held():
            self._encoder.keep_alive()
            super().init_processes()

    def keep_subprocess_alive(self) -> None:
        with signals_held():
            self._encoder.keep_alive()
            super().keep_subprocess_alive()
