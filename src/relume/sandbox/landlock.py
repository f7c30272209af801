"""Landlock (Linux 5.13 and later): a process gives up the right to open files, for good.

By system calls, because no wheel for it is worth a dependency: linux/landlock.h and
Documentation/userspace-api/landlock.rst.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterable

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same on every architecture
_NO_NEW_PRIVILEGES = 38
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_FILES = {1: 13, 2: 14, 3: 15, 5: 16}  # from a version on: how many rights to files there are


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("files", ctypes.c_uint64),
        ("net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def version() -> int:
    """Of this kernel's Landlock; 0 where there is none."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(0, _libc().syscall(_CREATE, None, 0, 1))


def shut_in(readable: Iterable[str] = ()) -> bool:
    """Give up opening files, for this thread and all that it starts from now on.

    Also given up where the kernel knows how: starting programs, TCP, signals to other processes.

    Args:
        readable: Files and folders that may still be read.

    Returns:
        Whether the kernel could do it.
    """
    known = version()
    if not known:
        return False
    rights = (1 << max(bits for since, bits in _FILES.items() if since <= known)) - 1
    rules = _Ruleset(rights, 3 if known >= 4 else 0, 3 if known >= 6 else 0)
    size = 24 if known >= 6 else 16 if known >= 4 else 8
    libc = _libc()
    ruleset = libc.syscall(_CREATE, ctypes.byref(rules), size, 0)
    if ruleset < 0:
        return False
    try:
        for path in readable:
            with contextlib.suppress(OSError):
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
                allowed = _READ_FILE | (_READ_FOLDER if os.path.isdir(path) else 0)  # noqa: PTH112
                libc.syscall(_ADD, ruleset, 1, ctypes.byref(_Beneath(allowed, fd)), 0)
                os.close(fd)
        libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        return libc.syscall(_RESTRICT, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
