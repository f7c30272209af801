"""Stopping: at the first signal in good order, at the second at once, and in any case soon.

Python hears of a signal only between two of its own steps, and one call into a library (a large
picture encoded, a tile computed) may take minutes. So a thread listens beside it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from types import FrameType

GRACE = 3.0  # seconds that a command has to end by itself; 5 is what people are promised


class Stop:
    """SIGINT and SIGTERM become a KeyboardInterrupt; `code` is then the exit code, else None."""

    def __init__(self) -> None:
        self.code: int | None = None
        with contextlib.suppress(ValueError, OSError):  # not the main thread, or not a POSIX system
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._interrupt)
            heard, told = os.pipe()
            os.set_blocking(told, False)
            signal.set_wakeup_fd(told, warn_on_full_buffer=False)
            threading.Thread(target=_watch, args=(heard,), daemon=True).start()
            # What is sent to a forked child is not meant for us, and would come by the same pipe.
            os.register_at_fork(after_in_child=_deaf)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.code = 128 + number
        raise KeyboardInterrupt


def _deaf() -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _watch(heard: int) -> None:
    number = _next(heard)
    select.select([heard], [], [], GRACE)
    os.write(2, b"relume: stopped at once.\n")
    os._exit(128 + number)


def _next(heard: int) -> int:
    while True:
        for number in os.read(heard, 64):
            if number in (signal.SIGINT, signal.SIGTERM):
                return number
