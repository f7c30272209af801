"""What a file says besides its samples, and where in it those lie."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .. import tags
from .xmp import stated_orientation


@dataclass
class Survey:
    """What a file says of itself. `samples` is the part that the decoder needs to see: the spans
    of the file, or all of it."""

    format: str
    width: int = 0
    height: int = 0
    bits: int = 8
    frames: int = 1
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    dpi: tuple[float, float] | None = None
    quality: int | None = None
    subsampling: str | None = None
    premultiplied: bool = False
    carried: list[tuple[str, bytes]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    data: bytes = b""
    spans: list[tuple[int, int]] | None = None
    source: Any = None  # what libvips reads of a mapped file; pyvips itself does not hold it

    @property
    def samples(self) -> bytes:
        if self.spans is None:
            return bytes(self.data)
        return b"".join(self.data[start:end] for start, end in self.spans)

    @property
    def orientation(self) -> int:
        """EXIF's, else XMP's, else 1. HEIF and AVIF turn by boxes, which decoding applies."""
        if self.format in ("heif", "avif"):
            return 1
        turn = tags.orientation(self.exif) if self.exif else None
        if turn is None and self.xmp:
            turn = stated_orientation(self.xmp)
        return turn if turn and 1 <= turn <= 8 else 1


def carried_names(carried: Iterable[tuple[str, bytes]]) -> list[str]:
    """What of a container's own pieces would be a loss in another format."""
    harmless = {"pHYs", "sRGB", "tIME"}
    names = {"tEXt": "text", "zTXt": "text", "iTXt": "text"}
    told = [
        names.get(kind, kind)
        for kind, body in carried
        if kind not in harmless and not (kind == "gAMA" and body == struct.pack(">I", 45455))
    ]
    return sorted(set(told))


Parts = list[bytes | tuple[int, int]]
"""A file as bytes, and as spans of another."""
