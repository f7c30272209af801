"""Memory that one picture took is kept for the next: for a process of ours, never for a library's.

glibc gives large blocks back to the system at once and asks for them again; half of the time of a
small picture then goes into faulting pages in.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGE = 32 << 20  # the most that glibc takes; blocks beyond are given back at once as before
KEPT = 64 << 20


def keep_small() -> bool:
    """Keep up to KEPT bytes of freed blocks below LARGE.

    Returns:
        Whether this is glibc on Linux, which alone is told. Elsewhere nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        asked = ((_M_MMAP_THRESHOLD, LARGE), (_M_TRIM_THRESHOLD, KEPT))
        return all(libc.mallopt(key, value) == 1 for key, value in asked)
    return False
