"""Photoshop's image resources, in which JPEG and TIFF files carry IPTC."""

from __future__ import annotations

import struct
from collections.abc import Iterator


def without_thumbnails(resources: bytes) -> bytes | None:
    """Photoshop resources less their pictures of the old pixels; None where none are left."""
    kept = [block for number, block in _resources(resources) if number not in (1033, 1036)]
    return b"".join(kept) or None


def iptc_record(resources: bytes) -> bytes | None:
    """The IPTC data itself, resource 1028, out of the Photoshop resources around it."""
    for number, block in _resources(resources):
        if number == 1028:
            at = 6 + (block[6] + 2) // 2 * 2
            return block[at + 4 : at + 4 + struct.unpack_from(">I", block, at)[0]]
    return None


def _resources(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while data[at : at + 4] == b"8BIM" and at + 7 <= len(data):
        name = at + 6 + (data[at + 6] + 2) // 2 * 2
        if name + 4 > len(data):
            return
        size = struct.unpack_from(">I", data, name)[0]
        end = name + 4 + size + size % 2
        yield struct.unpack_from(">H", data, at + 4)[0], data[at:end]
        at = end
