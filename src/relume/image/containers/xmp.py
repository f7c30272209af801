"""XMP packets: the orientation that one states, read and made upright."""

from __future__ import annotations

import re


def stated_orientation(xmp: bytes) -> int | None:
    """What tiff:Orientation says, whatever that is; None where the packet has none."""
    stated = _TURN.search(xmp)
    return int(stated[2][:4]) if stated else None  # Python reads no number of ten thousand digits


def upright_xmp(xmp: bytes) -> bytes:
    """The packet with tiff:Orientation 1, where it states one."""
    return _TURN.sub(lambda found: found[1] + b"1", xmp)


_TURN = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|>)\s*)(\d+)")
