"""The outside of a sandbox: starts the child, asks it, and ends it when it takes too much."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, BinaryIO, cast

from .. import errors
from . import child, frames
from .frames import Buffer

START = 120.0
"""Seconds that a child may take to be ready: it loads libraries, on whatever the machine is."""
PATIENCE = 4
"""Seconds of waiting for each second of the processor: on a busy machine they are not the same."""

_PIPE = 1 << 20
"""Bytes that a pipe holds where the system allows it: pictures go through in fewer turns."""

_BEGIN = "import json, sys; told = json.loads(sys.argv[1]); sys.path[:] = told['path']; "
_BEGIN += "from relume.sandbox.child import serve; serve(told)"


class StoppedError(Exception):
    """The child was ended, or ended itself; the message says why, in words that follow "it"."""


class Sandbox:
    """One child process, started when it is first needed, and again after it was ended.

    One request at a time: who has several threads takes a Sandbox for each.

    Args:
        target: "module:function", (request, buffers) -> (answer, buffers), called in the child.
        warm: "module:function" that loads what the target needs, before files are shut; or "".
        files: Numbers of open files that the child has too. Not on Windows.
        imports: Modules that the child loads beside the target's own, before files are shut.
        memory: Bytes that the child may take beyond what its libraries take. Held where the system
            has limits of address space (Linux); elsewhere only time is.
        total: Bytes that it may take with its libraries; what these leave of it is less than
            `memory` where they are large. 0 = as much as they need.
        readable: Files that the child may open, and what Python and its libraries load late; None
            for a child that opens nothing once it is warm.
        watched: The interpreter itself ends the child when something in it runs a program, opens
            a socket or writes a file: for what might be made to run code. Python's libraries do
            such things too when they load, so they have to be loaded before.
    """

    def __init__(
        self,
        target: str,
        *,
        warm: str = "",
        imports: Sequence[str] = (),
        memory: int,
        total: int = 0,
        readable: Sequence[str] | None = None,
        files: Sequence[int] = (),
        watched: bool = False,
    ) -> None:
        self.target, self.warm, self.memory, self.total = target, warm, memory, total
        self.readable = None if readable is None else list(readable)
        self.files = tuple(files)
        self.imports, self.watched = list(imports), watched
        self._child: subprocess.Popen[bytes] | None = None
        self._ready = self._late = False

    def start(self) -> None:
        """Begin to load what the child needs, and do not wait for it."""
        if self._child is not None and self._child.poll() is None:
            return
        self.close()
        told = {"target": self.target, "warm": self.warm, "memory": self.memory}
        told["total"] = self.total
        told |= {"readable": self.readable, "imports": self.imports, "watched": self.watched}
        told["path"] = sys.path
        # Children of many threads on few cores only wait for each other.
        plain = {"MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        plain["HF_HUB_OFFLINE"] = "1"
        # glibc keeps what one picture took for the next; its pages are not faulted in again.
        plain |= {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-c", _BEGIN, json.dumps(told)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **plain},
            pass_fds=self.files,
            start_new_session=True,  # Ctrl-C is for the parent, which knows what to do
        )
        for stream in (self._child.stdin, self._child.stdout):
            _widen(cast(BinaryIO, stream))
        self._ready = False

    def call(
        self,
        request: dict[str, Any],
        buffers: Sequence[Buffer] = (),
        *,
        seconds: float,
        most: int,
        take: Callable[[dict[str, Any], list[bytearray]], None] | None = None,
    ) -> tuple[dict[str, Any], list[bytearray]]:
        """The target's answer.

        Args:
            request: JSON.
            buffers: What goes with it.
            seconds: Of the processor, and PATIENCE times as many on the clock.
            most: Bytes of buffers that the answer may hold, or any part of it.
            take: Is given the parts that come before the answer, one after the other.

        Raises:
            StoppedError: The child took too long or too much, crashed, or was caught.
            RelumeError: What the target raised, of the same class and with the same words.
        """
        with contextlib.closing(self.parts(request, buffers, seconds=seconds, most=most)) as parts:
            for said, given in parts:
                if "part" not in said:
                    return said, given
                if take is not None:
                    take(said["part"], given)
        raise StoppedError("gave no answer")

    def parts(
        self,
        request: dict[str, Any],
        buffers: Sequence[Buffer] = (),
        *,
        seconds: float,
        most: int,
    ) -> Generator[tuple[dict[str, Any], list[bytearray]]]:
        """What a target says, as it comes: {"part": said} of each part, and the answer at last.

        The child waits with the next part while the one before is worked on, which counts as none
        of its time. Who leaves before the answer ends it.

        Args, Raises:
            As for `call`.
        """
        self.start()
        running = cast(subprocess.Popen[bytes], self._child)
        asked, answers = cast(BinaryIO, running.stdin), cast(BinaryIO, running.stdout)
        left, whole = PATIENCE * seconds, False
        answer: dict[str, Any] = {}
        try:
            if not self._ready:
                with self._watched(running, START):
                    self._ready = bool(frames.receive(answers, 0)[0].get("ready"))
            with self._watched(running, left):
                frames.send(asked, {"request": request, "seconds": seconds}, buffers)
                answer, given = frames.receive(answers, most)
            while "part" in answer:
                yield answer, given
                began = time.monotonic()
                with self._watched(running, left):
                    answer, given = frames.receive(answers, most)
                left = max(0.0, left - (time.monotonic() - began))
            whole = True
            if "error" not in answer:
                yield answer, given
        except (EOFError, OSError, frames.BrokenFrameError) as error:
            raise StoppedError(self._why(running, seconds, error)) from None
        except BaseException:  # of who asks: what the child would answer, nobody hears
            if not whole:
                self.close()
            raise
        if "error" in answer:
            self._raise(str(answer["error"]), str(answer.get("message", "")))

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child."""
        running, self._child = self._child, None
        if running is not None:
            running.kill()
            for stream in (running.stdin, running.stdout):
                with contextlib.suppress(OSError):
                    cast(BinaryIO, stream).close()
            running.wait()

    @contextlib.contextmanager
    def _watched(self, running: subprocess.Popen[bytes], seconds: float) -> Any:
        def end() -> None:
            self._late = True
            running.kill()

        self._late = False
        watch = threading.Timer(seconds, end)
        watch.daemon = True
        watch.start()
        try:
            yield
        finally:
            watch.cancel()

    def _why(self, running: subprocess.Popen[bytes], seconds: float, error: Exception) -> str:
        late, ready = self._late, self._ready
        broken = isinstance(error, frames.BrokenFrameError)
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(0 if broken else 5)
        code = running.poll()
        self.close()
        if not ready:
            return "could not be looked at: the process that looks at it did not start"
        if late or code == -getattr(signal, "SIGXCPU", 24):
            return f"takes longer than {seconds:g} s"
        if code == child.CAUGHT:
            return "tried to do what no such file may do"
        if broken:
            return "gave more than it may"
        said = signal.Signals(-code).name if code and code < 0 else f"code {code}"
        return f"stopped its reader ({said}), or needs more than {self._room} MB of memory"

    @property
    def _room(self) -> int:
        return min(self.memory, self.total or self.memory) >> 20

    def _raise(self, kind: str, message: str) -> None:
        if kind == "MemoryError":
            raise StoppedError(f"needs more than {self._room} MB of memory")
        known = getattr(errors, kind, None)
        if isinstance(known, type) and issubclass(known, errors.RelumeError):
            raise known(message)
        raise StoppedError(f"cannot be read ({message})")


def _widen(stream: BinaryIO) -> None:
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        size = getattr(fcntl, "F_SETPIPE_SZ", None)
        if size is not None:
            fcntl.fcntl(stream, size, _PIPE)
