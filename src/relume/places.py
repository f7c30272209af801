"""Where relume keeps what it can make again."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path


def default_folder() -> Path | None:
    """$RELUME_CACHE, else the system's place for caches; None where there is no home."""
    with contextlib.suppress(RuntimeError):
        if os.environ.get("RELUME_CACHE"):
            return Path(os.environ["RELUME_CACHE"]).expanduser()
        if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
            return Path(os.environ["LOCALAPPDATA"], "relume", "cache")
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "relume"
        xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
        return (xdg if xdg.is_absolute() else Path.home() / ".cache") / "relume"
    return None
