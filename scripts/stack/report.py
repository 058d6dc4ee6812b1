"""What a person sees: one line for each step and how long it took, live on a terminal.

Also the one place where an error becomes a line on stderr and an exit code.
"""

import shutil
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from stack.errors import StackError
from stack.interrupts import Interrupted, interrupts

_REFRESH_S = 0.5


def say(text: str = "") -> None:
    """Print a line at once, whatever stdout is."""
    print(text, flush=True)


class Step:
    """A step with its duration. On a terminal its line is rewritten while it runs.

    `progress` is called from a thread and returns a few words, such as "87 of 189".
    `outcome` may be set inside the block; it stands in the closing line.
    """

    def __init__(self, title: str, progress: Callable[[], str] | None = None) -> None:
        self.title = title
        self.outcome = "done"
        self._progress = progress
        self._finished = threading.Event()
        self._painter: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Show that the step began."""
        self._started = time.monotonic()
        if sys.stdout.isatty():
            self._painter = threading.Thread(target=self._paint, daemon=True)
            self._painter.start()
        else:
            say(f"{self.title} ...")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Show how it ended, and after how long."""
        if self._painter is not None:
            self._finished.set()
            self._painter.join()
            print("\r\x1b[K", end="")
        if error is None:
            say(f"{self.title}: {self.outcome} ({self.elapsed_s():.1f} s)")
        else:
            ending = "stopped" if isinstance(error, Interrupted) else "failed"
            say(f"{self.title}: {ending} after {self.elapsed_s():.1f} s")

    def elapsed_s(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self._started

    def _paint(self) -> None:
        while True:
            detail = self._progress() if self._progress else ""
            line = f"{self.title} ... {self.elapsed_s():.0f} s" + (f", {detail}" if detail else "")
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{line[:width]}\x1b[K", end="", flush=True)
            if self._finished.wait(_REFRESH_S):
                return


def run(main: Callable[[], int]) -> int:
    """Run `main` and return its exit code: 1 after an error, 128 + its number after a signal."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A model may write what this terminal cannot show.
            stream.reconfigure(errors="replace")
    interrupts.install()
    try:
        return main()
    except Interrupted as stop:
        print(f"stopped by {stop}", file=sys.stderr)
        return stop.exit_code
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.detail:
            print("\n".join(f"  | {line}" for line in error.detail.splitlines()), file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Nobody reads on: leave without the complaint that the interpreter makes at its end.
        sys.stdout = None
        return 1
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
