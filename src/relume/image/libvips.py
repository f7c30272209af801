"""libvips, opened once and quietly: its own warnings off, loaders that were never hardened blocked.

relume turns what libvips finds into one line of its own, so nothing of libvips reaches stderr.
"""

import contextlib
import os
import threading
from collections.abc import Iterator

os.environ.setdefault("VIPS_WARNING", "0")  # read when the library starts; any value silences it
os.environ.setdefault("VIPS_BLOCK_UNTRUSTED", "1")

import pyvips

pyvips.cache_set_max(0)  # a photograph is decoded once; the cache would only hold memory


class _Turns:
    """Many at once, or one alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._many, self._one = 0, False

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._one)
            self._many += 1
        try:
            yield
        finally:
            with self._changed:
                self._many -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._one)
            self._one = True
            self._changed.wait_for(lambda: not self._many)
        try:
            yield
        finally:
            with self._changed:
                self._one = False
                self._changed.notify_all()


turns = _Turns()
"""libvips has one text of errors for all threads. Where it decides something, nobody else may be
at work: what fails in `shared` is tried again `alone`."""


def reason(error: pyvips.Error) -> str:
    """What libvips said first, in one line without its class names."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines[1:] if line] or ["its data is damaged"]
    telling = [line for line in said if "bad seek" not in line] or said
    return telling[0].split(": ", 1)[-1]
