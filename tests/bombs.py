"""Pictures that promise, repeat or swell: small files, each made here, that cost a reader much."""

# ruff: noqa: E501 (rows of a table, which are read across)
from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np

from relume.image import Picture, encode

Bomb = tuple[str, Callable[[], bytes], bool]
"""Name with its suffix, what makes it, and whether its header alone suffices to refuse it."""


def _plain(format: str, side: int = 16) -> bytes:
    rng = np.random.default_rng(0)
    return encode(Picture(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)), format)


# PNG


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int, height: int, *, depth: int = 8, kind: int = 0, lace: int = 0, data: bytes = b"",
    extra: bytes = b"",
) -> bytes:  # fmt: skip
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, lace)
    parts = [_chunk(b"IHDR", head), extra, _chunk(b"IDAT", data), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def zeros(megabytes: float) -> bytes:
    """Compressed nothing: a thousandth of what it grows to. One piece, as often as it takes."""
    size = round(megabytes * 2**20)
    pieces, rest = divmod(size, 1 << 20)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    last = zlib.compressobj(9, zlib.DEFLATED, -15)
    end = last.compress(bytes(rest)) + last.flush()
    return b"\x78\xda" + piece * pieces + end + struct.pack(">I", size % 65521 << 16 | 1)


def _with(extra: bytes) -> bytes:
    return png(4, 4, data=zlib.compress(bytes(20)), extra=extra)


def _overlapping_directory(big: int = 4000) -> bytes:
    """A TIFF structure of which each value is nearly the whole file."""
    body = b"".join(struct.pack("<HHII", tag, 7, big * 10, 8) for tag in range(1000, 1000 + big))
    return b"II*\0" + struct.pack("<IH", 8, big) + body + bytes(4)


# JPEG


def _sized(width: int, height: int) -> bytes:
    data = bytearray(_plain("jpeg"))
    at = data.find(b"\xff\xc0")
    struct.pack_into(">HH", data, at + 5, height, width)
    return bytes(data)


def _scans(side: int, times: int) -> bytes:
    """A progressive JPEG whose scans come again and again."""
    from relume.image.libvips import pyvips

    flat = pyvips.Image.black(side, side) + 99
    data = flat.cast("uchar").jpegsave_buffer(interlace=True, Q=90)
    first = data.find(b"\xff\xc4", data.find(b"\xff\xc2"))
    scans = data[first:-2]
    return data[:first] + scans * times + b"\xff\xd9"


def _segments(count: int, body: bytes) -> bytes:
    data = _plain("jpeg")
    piece = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    return data[:2] + piece * count + data[2:]


# TIFF


def tiff(entries: dict[int, tuple[int, int, int]], tail: bytes = b"", again: int = 0) -> bytes:
    """tag -> (kind, count, value or offset)."""
    table = b"".join(struct.pack("<HHII", tag, *said) for tag, said in sorted(entries.items()))
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    return head + table + struct.pack("<I", again) + tail


def _gray(width: int, height: int, **more: tuple[int, int, int]) -> dict[int, tuple[int, int, int]]:
    base = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1)}
    base |= {262: (3, 1, 1), 273: (4, 1, 200), 277: (3, 1, 1), 278: (4, 1, height), 279: (4, 1, 9)}
    return base | {int(tag[1:]): said for tag, said in more.items()}


def _deflated_strip(side: int) -> bytes:
    body = zeros(side * side / (1 << 20))
    entries = _gray(side, side, t259=(3, 1, 8), t273=(4, 1, 122), t279=(4, 1, len(body)))
    return tiff(entries, body)


def _ring(pages: int, entries: int) -> bytes:
    """Pages that lie over each other, every one of many entries."""
    body = struct.pack("<HHII", 270, 1, 4, 0) * (pages + entries)
    links = bytearray(struct.pack("<H", entries) + body)
    out = bytearray(b"II*\0" + struct.pack("<I", 8)) + links
    return bytes(out)


# Others


def _webp(width: int, height: int, frames: int = 0) -> bytes:
    flags = 2 if frames else 0
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"VP8X" + struct.pack("<I", 10) + bytes((flags, 0, 0, 0)) + sides
    if frames:
        body += b"ANIM" + struct.pack("<I", 6) + bytes(6)
        inner = bytes(6) + sides + bytes(4) + _plain("webp", 8)[12:]
        body += (b"ANMF" + struct.pack("<I", len(inner)) + inner + bytes(len(inner) % 2)) * frames
    else:
        body += _plain("webp", 8)[12:]
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def gif(width: int, height: int, frames: int = 1, comments: int = 0) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(3) + b"\xff" * 3
    note = b"\x21\xfe\x04spam\0"
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    return head + note * comments + frame * frames + b"\x3b"


def _lzw(side: int) -> bytes:
    """A whole canvas of one colour, whose codes stand for ever longer runs."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("P", (side, side)).save(file, "GIF")
    return file.getvalue()


def _avif(width: int, height: int) -> bytes:
    data = bytearray(_plain("avif"))
    at = data.find(b"ispe")
    struct.pack_into(">II", data, at + 8, width, height)
    return bytes(data)


def _boxes(depth: int) -> bytes:
    inner = b""
    for _ in range(depth):
        inner = struct.pack(">I", len(inner) + 8) + b"moov" + inner
    return struct.pack(">I", 20) + b"ftypavif\0\0\0\0avif" + inner


BOMBS: list[Bomb] = [
    ("promise.png", lambda: png(2**31 - 1, 2**31 - 1), True),
    ("promise-1bit.png", lambda: png(40_000, 40_000, depth=1, data=zeros(190)), True),
    ("promise-16bit.png", lambda: png(65_535, 65_535, depth=16, kind=6), True),
    ("no-data.png", lambda: png(14_000, 14_000, data=zlib.compress(b"")), False),
    ("no-data-laced.png", lambda: png(14_000, 14_000, lace=1, kind=6, depth=16), False),
    ("full.png", lambda: png(13_000, 13_000, data=zeros(162)), False),
    ("full-laced.png", lambda: png(9_000, 9_000, lace=1, data=zeros(80)), False),
    ("more-data.png", lambda: png(8, 8, data=zeros(1000)), False),
    ("ztxt.png", lambda: _with(_chunk(b"zTXt", b"a\0\0" + zeros(500))), False),
    ("itxt.png", lambda: _with(_chunk(b"iTXt", b"a\0\1\0\0\0" + zeros(500))), False),
    ("itxt-xmp.png", lambda: _with(_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zeros(500))), False),
    ("iccp.png", lambda: _with(_chunk(b"iCCP", b"a\0\0" + zeros(500))), False),
    ("texts.png", lambda: _with(_chunk(b"zTXt", b"a\0\0" + zeros(0.99)) * 3000), False),
    ("chunks.png", lambda: _with(_chunk(b"tEXt", b"a\0b") * 200_000), False),
    ("frames.png", lambda: _with(_chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))), False),
    ("exif.png", lambda: _with(_chunk(b"eXIf", _overlapping_directory())), False),
    ("xmp-number.png", lambda: _with(_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<a tiff:Orientation='" + b"9" * 9999 + b"'/>")), False),
    ("promise.jpg", lambda: _sized(65_500, 65_500), True),
    ("no-data.jpg", lambda: _sized(14_000, 14_000), False),
    ("scans.jpg", lambda: _scans(2000, 400), False),
    ("segments.jpg", lambda: _segments(100_000, b"Exif\0\0"), False),
    ("exifs.jpg", lambda: _segments(100, b"Exif\0\0" + _overlapping_directory(4000)[:60_000]), False),
    ("promise.tif", lambda: tiff(_gray(200_000, 200_000)), True),
    ("strip.tif", lambda: tiff(_gray(13_000, 13_000, t279=(4, 1, 2**32 - 1))), False),
    ("strips.tif", lambda: tiff(_gray(13_000, 13_000, t278=(4, 1, 1), t273=(4, 2**30, 8))), False),
    ("tile.tif", lambda: tiff(_gray(64, 64, t322=(4, 1, 2**20), t323=(4, 1, 2**20), t324=(4, 1, 8), t325=(4, 1, 9))), False),
    ("channels.tif", lambda: tiff(_gray(2000, 2000, t277=(3, 1, 60_000))), False),
    ("full.tif", lambda: _deflated_strip(13_000), False),
    ("loop.tif", lambda: tiff(_gray(8, 8), bytes(400), again=8), False),
    ("sub-loop.tif", lambda: tiff(_gray(8, 8, t34665=(4, 1, 8), t330=(4, 1, 8)), bytes(400)), False),
    ("ring.tif", lambda: _ring(5000, 60_000), False),
    ("overlap.tif", lambda: _overlapping_directory(60_000), False),
    ("promise.webp", lambda: _webp(2**24, 2**24), True),
    ("canvas.webp", lambda: _webp(14_000, 14_000), False),
    ("frames.webp", lambda: _webp(8_000, 8_000, frames=2000), False),
    ("promise.gif", lambda: gif(65_535, 65_535), False),
    ("frames.gif", lambda: gif(14_000, 14_000, frames=5000), False),
    ("comments.gif", lambda: gif(8, 8, comments=300_000), False),
    ("full.gif", lambda: _lzw(4_000), False),
    ("promise.avif", lambda: _avif(65_535, 65_535), True),
    ("lie.avif", lambda: _avif(14_000, 14_000), False),
    ("nested.avif", lambda: _boxes(5000), False),
]  # fmt: skip
