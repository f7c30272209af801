"""Files that were cut behind their last sample: an end marker is missing, not the picture."""

from __future__ import annotations

import struct


def png(data: bytes) -> bytes:
    """A PNG whose samples came whole chunks, with the IEND that it lacks; else the data itself.

    Whether the samples are all there the decoder tells.
    """
    at, samples = 8, False
    while at + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if at + 12 + size > len(data):
            break
        if kind == b"IEND":
            return data
        samples = samples or kind == b"IDAT"
        at += 12 + size
    return data[:at] + b"\0\0\0\0IEND\xaeB`\x82" if samples else data


def one_scan(data: bytes) -> bool:
    """Whether a JPEG is sequential, with all components in its first scan: then a marker that is
    missing can hide no further scan."""
    at, components = 2, 0
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, size = data[at + 1], struct.unpack_from(">H", data, at + 2)[0]
        if marker in (0xC0, 0xC1) and at + 10 <= len(data):
            components = data[at + 9]
        if marker == 0xDA:
            return components > 0 and data[at + 4] == components
        at += 2 + size
    return False
