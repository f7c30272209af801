"""How many cores a runtime works on."""

from __future__ import annotations

import os


def cores(threads: int | None) -> int:
    """So many as were asked for, or those that this process may use, not all there are."""
    if threads is None and hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return threads or os.cpu_count() or 1
