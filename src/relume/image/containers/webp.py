"""WebP: chunks of a RIFF file, metadata among them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ...errors import PictureError
from .surveys import Parts, Survey
from .vp8 import quality


def shows(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def walk(data: bytes, checked: bool) -> Survey:
    found, frames = Survey("webp", data=data), 0
    if len(data) < 20:
        raise PictureError("it is cut short")
    for kind, body in _chunks(data):
        if kind == b"VP8X" and len(body) >= 10:
            found.width = 1 + int.from_bytes(body[4:7], "little")
            found.height = 1 + int.from_bytes(body[7:10], "little")
        elif kind == b"ICCP":
            found.icc = body
        elif kind == b"EXIF":
            found.exif = body.removeprefix(b"Exif\0\0")
        elif kind == b"XMP ":
            found.xmp = body
        elif kind == b"ANMF":
            frames += 1
        elif kind == b"VP8 " and len(body) >= 10:
            w, h = struct.unpack_from("<HH", body, 6)
            found.width, found.height = found.width or w & 0x3FFF, found.height or h & 0x3FFF
            found.quality = quality(body)
        elif kind == b"VP8L" and len(body) >= 5:
            packed = int.from_bytes(body[1:5], "little")
            found.width = found.width or 1 + (packed & 0x3FFF)
            found.height = found.height or 1 + (packed >> 14 & 0x3FFF)
    found.frames = max(1, frames)
    return found


def pack(data: bytes, said: Survey) -> Parts:
    chunks = [(k, b) for k, b in _chunks(data) if k in (b"ALPH", b"VP8 ", b"VP8L")]
    kinds = {kind for kind, _ in chunks}
    alpha = b"ALPH" in kinds or any(k == b"VP8L" and b[4] >> 4 & 1 for k, b in chunks)
    extra = [(b"EXIF", said.exif), (b"XMP ", said.xmp)]
    flags = (0x20 if said.icc else 0) | (0x10 if alpha else 0)
    flags |= (0x08 if said.exif else 0) | (0x04 if said.xmp else 0)
    if flags & ~0x10 or b"ALPH" in kinds:
        size = (said.width - 1).to_bytes(3, "little") + (said.height - 1).to_bytes(3, "little")
        head = [(b"VP8X", bytes((flags, 0, 0, 0)) + size)]
        head += [(b"ICCP", said.icc)] if said.icc else []
        chunks = head + chunks + [(kind, body) for kind, body in extra if body]
    packed = (kind + struct.pack("<I", len(b)) + b + bytes(len(b) % 2) for kind, b in chunks)
    body = b"WEBP" + b"".join(packed)
    return [b"RIFF" + struct.pack("<I", len(body)) + body]


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    if end > len(data) + 1:
        raise PictureError("it is cut short")
    at = 12
    while at + 8 <= min(end, len(data)):
        kind, size = struct.unpack_from("<4sI", data, at)
        yield kind, data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
