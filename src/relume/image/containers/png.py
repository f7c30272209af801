"""PNG: chunks with checksums; what is compressed inside them is inflated within bounds."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from ...errors import PictureError
from ..pieces import PIECE, let_go
from .surveys import Parts, Survey


def shows(head: bytes) -> bool:
    return head[:8] == _SIGNATURE


def walk(data: bytes, checked: bool) -> Survey:
    found, dropped = Survey("png", data=data), set[str]()
    kept, header = [(0, 8)], False
    for kind, start, end in _chunks(data):
        critical = not kind[0] & 0x20
        stated = struct.unpack_from(">I", data, end)[0]
        sound = not checked or _crc(data, start - 4, end) == stated
        if critical and not sound:
            raise PictureError(f"the checksum of its {kind.decode('latin-1')} chunk is wrong")
        if checked and (critical or kind == b"tRNS"):
            kept.append((start - 8, end + 4))
        if kind == b"IHDR" and end - start == 13:
            found.width, found.height, found.bits = struct.unpack_from(">IIB", data, start)
            header = True
        elif kind == b"acTL" and end - start == 8:
            found.frames = max(found.frames, struct.unpack_from(">I", data, start)[0])
        elif critical or kind in (b"tRNS", b"fcTL", b"fdAT", b"acTL"):
            pass
        elif not sound or not _metadata(found, kind, data[start:end]):
            dropped.add(kind.decode("latin-1") if kind.isalpha() else "unknown")
    if not header:
        raise PictureError("its header is missing")
    if dropped:
        found.notes.append(f"PNG chunks dropped: {', '.join(sorted(dropped))}")
    found.spans = kept
    return found


def pack(data: bytes, said: Survey) -> Parts:
    def chunk(kind: str, body: bytes) -> bytes:
        named = kind.encode() + body
        return struct.pack(">I", len(body)) + named + struct.pack(">I", zlib.crc32(named))

    carried = list(said.carried)
    if said.dpi and not any(kind == "pHYs" for kind, _ in carried):
        per_metre = (max(1, round(value / 0.0254)) for value in said.dpi)
        carried.append(("pHYs", struct.pack(">IIB", *per_metre, 1)))
    before = [chunk(kind, body) for kind, body in carried]
    if said.icc:
        before.insert(0, chunk("iCCP", b"ICC profile\0\0" + zlib.compress(said.icc)))
    if said.exif:
        before.append(chunk("eXIf", said.exif))
    if said.xmp:
        before.append(chunk("iTXt", b"XML:com.adobe.xmp" + bytes(5) + said.xmp))
    parts: Parts = [(0, 8)]
    for kind, start, end in _chunks(data):
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            parts.append((start - 8, end + 4))
        if kind == b"IHDR":
            parts += before
    return parts


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start of payload, end) up to and with IEND."""
    at = 8
    while at + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if at + 12 + size > len(data):
            break
        yield kind, at + 8, at + 8 + size
        if kind == b"IEND":
            return
        at += 12 + size
    raise PictureError("it is cut short: the end of the PNG is missing")


def _crc(data: bytes, start: int, end: int) -> int:
    """Of data[start:end]; what of a mapped file has been read is let go, piece by piece."""
    if isinstance(data, bytes):
        return zlib.crc32(data[start:end])
    whole = 0
    for at in range(start, end, PIECE):
        stop = min(end, at + PIECE)
        whole = zlib.crc32(data[at:stop], whole)
        if at // PIECE != stop // PIECE:  # chunks are small; pages are given back now and then
            let_go(data)
    return whole


def _metadata(found: Survey, kind: bytes, body: bytes) -> bool:
    """Take what a chunk says; False where it cannot be kept."""
    if kind == b"iCCP":
        packed = body.partition(b"\0")[2]
        found.icc = _inflated(packed[1:], 16 << 20)
        return found.icc is not None
    if kind == b"eXIf":
        found.exif = body.removeprefix(b"Exif\0\0")
        return True
    if kind == b"pHYs" and len(body) == 9:
        x, y, unit = struct.unpack(">IIB", body)
        found.dpi = (x * 0.0254, y * 0.0254) if unit == 1 and x and y else None
        found.carried.append(("pHYs", body))
        return True
    if kind == b"iTXt" and body.startswith(b"XML:com.adobe.xmp\0") and len(body) > 22:
        packed, text = body[18], body[20:].split(b"\0", 2)[-1]
        text = _inflated(text, 64 << 20) if packed else text
        if text is not None:
            found.xmp = text
        return text is not None
    if kind in (b"zTXt", b"iTXt") and _grows(kind, body):
        return False
    if kind.decode("latin-1") in _CARRIED:
        found.carried.append((kind.decode(), body))
        return True
    return False


def _grows(kind: bytes, body: bytes) -> bool:
    """Whether compressed text is a bomb: over 1 MiB, or no text at all."""
    rest = body.partition(b"\0")[2]
    if kind == b"iTXt":
        if rest[:1] != b"\1":
            return False
        return _inflated(rest[2:].split(b"\0", 2)[-1], 1 << 20) is None
    return _inflated(rest[1:], 1 << 20) is None


def _inflated(packed: bytes, limit: int) -> bytes | None:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(packed, limit)
    except zlib.error:
        return None
    return text if unpacker.eof else None


_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CARRIED = {"tEXt", "zTXt", "iTXt", "gAMA", "cHRM", "sRGB", "cICP", "mDCV", "cLLI", "tIME"}
