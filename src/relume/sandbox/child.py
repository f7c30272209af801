"""The inside of a sandbox: limits first, then one request after another, until nobody asks."""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import sys
import sysconfig
import time
from collections.abc import Generator
from typing import Any, BinaryIO

from .. import errors
from . import frames
from .landlock import shut_in

CAUGHT = 86
"""What the child ends with when something in it tried what nothing here may do."""

LEAST = 128 << 20
"""Bytes that are left to a child whose libraries take all of its `total`."""

# What no decoder and no weight file has to do; seen by the interpreter itself, whoever asks.
_FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen")
_FORBIDDEN += ("pty.spawn", "socket.", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link")
_FORBIDDEN += ("os.symlink", "os.truncate", "os.chmod", "os.kill", "os.putenv", "shutil.", "code.")
_FORBIDDEN += ("ctypes.dlopen", "webbrowser.open", "urllib.Request", "sys.addaudithook")


def serve(told: dict[str, Any]) -> None:
    """Answer requests on stdin until it closes.

    Args:
        told: `target`, "module:function", answers (request, buffers) with (answer, buffers), or is
            a generator of such, parts that are sent as they come, which returns the last;
            `warm`, "module:function" or "", is called once before the files are shut, and loads
            what the target would load later; `imports`, modules that are loaded before; `memory`,
            bytes beyond what is in use then; `total`, bytes with it, or 0;
            `readable`, files that it may open, or None for none at all, Python's own included;
            `watched`, whether the interpreter ends the child that runs a program or writes.
    """
    asked, answers = _streams()
    readable = told["readable"]
    if readable is None:
        # Threads that start while it warms inherit this; the second lock binds this one alone.
        shut_in(_system())
    target = _named(told["target"])
    for module in told["imports"]:
        with contextlib.suppress(ImportError):  # the target has words for what is missing
            importlib.import_module(module)
    if told["warm"]:
        _named(told["warm"])()
    _limit_memory(told["memory"], told["total"])
    # Some libraries write and run programs while they load (torch): theirs is the one lock here.
    shut_in([] if readable is None else [*_system(), *readable])
    if told["watched"]:
        sys.addaudithook(_watch)
    frames.send(answers, {"ready": True})
    while True:
        try:
            said, buffers = frames.receive(asked, sys.maxsize)
        except EOFError:
            return
        _limit_time(said["seconds"])
        given: list[Any] = []
        try:
            answered = target(said["request"], buffers)
            if isinstance(answered, Generator):
                answered = _last(answered, answers)
            answer, given = answered
        except MemoryError:
            answer = {"error": "MemoryError", "message": ""}
        except errors.RelumeError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        except Exception as error:
            words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            answer = {"error": "Exception", "message": words}
        del buffers
        frames.send(answers, answer, given)
        del given


def _last(parts: Generator[Any, None, Any], answers: BinaryIO) -> Any:
    """What a generator returns, after sending what it yields."""
    while True:
        try:
            part, given = next(parts)
        except StopIteration as end:
            return end.value
        frames.send(answers, {"part": part}, given)


def _streams() -> tuple[BinaryIO, BinaryIO]:
    """Requests and answers; what libraries print goes nowhere."""
    asked = os.fdopen(os.dup(0), "rb", buffering=1 << 16)
    answers = os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)
    return asked, answers


def _named(word: str) -> Any:
    module, _, name = word.partition(":")
    return getattr(importlib.import_module(module), name)


def _system() -> list[str]:
    """What Python and its libraries read when they load: never a person's own folders."""
    own = [path for path in sys.path if path]
    own += [sys.prefix, sys.base_prefix, *sysconfig.get_paths().values()]
    system = ["/usr", "/lib", "/lib64", "/lib32", "/opt", "/nix/store", "/etc/ld.so.cache"]
    system += ["/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload", "/etc/localtime"]
    system += ["/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/kernel"]
    system += ["/proc/sys/vm", "/sys/devices", "/sys/fs/cgroup", "/dev/null", "/dev/urandom"]
    return list(dict.fromkeys((*own, *system)))


def _limit_memory(memory: int, total: int) -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            used, held = (int(n) * resource.getpagesize() for n in file.read().split()[:2])
        if total:
            memory = max(LEAST, min(memory, total - held))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        most = used + memory if hard == resource.RLIM_INFINITY else min(used + memory, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _limit_time(seconds: float) -> None:
    """Of the processor, from now on; the kernel ends who takes more."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        used = math.ceil(time.process_time() + seconds)
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        soft = used if hard == resource.RLIM_INFINITY else min(used, hard)
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    written = event == "open" and _writes(arguments)
    if written or event.startswith(_FORBIDDEN):
        os._exit(CAUGHT)


def _writes(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = (*arguments, None, None, None)[:3]
    if isinstance(mode, str):
        return bool(set(mode) & set("wax+"))
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
