"""Files of several pictures: pages of a TIFF, frames of a GIF, WebP or PNG; apart, and joined.

Frames come as they are shown: whole, each with what earlier ones left standing. Joined they are
whole frames that replace each other. A GIF's become an animated PNG's, whose colours are not 256.
Sources: TIFF 6.0; the PNG specification, third edition (acTL, fcTL, fdAT); WebP container
specification (ANIM, ANMF).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import OutputError, PictureError
from . import reader, tags
from .libvips import pyvips, reason, turns
from .limits import LIMITS, Limits
from .picture import Picture

JOINED = {"tiff": "tiff", "gif": "png", "png": "png", "webp": "webp"}
"""Format of a file of several pictures -> the one that holds them again."""


@dataclass(frozen=True)
class Timing:
    """How an animation runs.

    Attributes:
        delays: Seconds of each frame, as (numerator, denominator).
        plays: How often, 0 = for ever.
        still: The first picture is shown where animations are not, and is no frame of it.
    """

    delays: tuple[tuple[int, int], ...] = ()
    plays: int = 0
    still: bool = False


def timing(data: bytes, format: str) -> Timing:
    """Of a file's bytes; nothing for pages, which have none."""
    if format == "png":
        shown = _Apng(data)
        return Timing(tuple(f.delay for f in shown.frames), shown.plays, shown.still is not None)
    if format == "tiff":
        return Timing()
    image = _roll(data, format)
    said = set(image.get_fields())
    delays = image.get("delay") if "delay" in said else []
    return Timing(
        tuple((max(0, delay), 1000) for delay in delays), image.get("loop") if "loop" in said else 0
    )


def each(
    data: bytes, first: Picture, name: str = "the picture", limits: Limits = LIMITS
) -> Iterator[Picture]:
    """Every picture of a file in order, in this process; `apart` does it in another.

    Args:
        data: Its bytes.
        first: What `decode` gave of them: metadata of an animation are its.
        name: What messages call it.
        limits: Of the pixels of all of them together.

    Raises:
        PictureError: One of them cannot be decoded, or they are too many pixels together.
    """
    check_together(first, name, limits)
    if first.format == "tiff":
        yield from _pages(data, name, limits)
    elif first.format == "png":
        yield from _Apng(data).shown(first, name, limits)
    else:
        yield from _frames(data, first, name)


def check_together(first: Picture, name: str, limits: Limits) -> None:
    """Raise PictureError where the pictures of a file are too many pixels together."""
    if first.frames * first.width * first.height > limits.input:
        raise PictureError(
            f"{name}: its {first.frames} pictures of {first.width} x {first.height} pixels are "
            f"more than {limits.input // 1_000_000} million together; split it first."
        )


def count(data: bytes) -> int:
    """How many pictures a file holds, each of them decoded.

    Raises:
        PictureError: One cannot be.
    """
    return sum(1 for _ in each(data, reader.decode(data)))


def joined(parts: Sequence[bytes], format: str, run: Timing) -> bytes:
    """One file of several, each encoded as a file of its own; the first one's metadata stays.

    Args:
        parts: As `render` wrote them; those of an animation are of one size, depth and colour.
        format: "tiff", "png" or "webp".
        run: Of an animation.

    Raises:
        OutputError: They do not fit in one.
    """
    return {"tiff": _joined_tiff, "png": _joined_png, "webp": _joined_webp}[format](parts, run)


# TIFF


def _pages(data: bytes, name: str, limits: Limits) -> Iterator[Picture]:
    """Each page is read as the only one of a file."""
    order = tags.byte_order(data) or "<"
    offset, total = tags.first_offset(data, order), 0
    for number, page in enumerate(tags.directories(data), 1):
        at, offset = offset, page.next
        if page.number(254, order) & 1:
            continue  # a small copy of another page
        alone = _cut_out(data, page, order, at) or _led_to(data, page, order, at)
        picture = reader.decode(alone, f"{name}, page {number}", limits)
        total += picture.width * picture.height
        if total > limits.input:
            raise PictureError(f"{name}: its pages are too many pixels together; split it first.")
        yield picture


def _led_to(data: bytes, page: tags.Directory, order: str, at: int) -> bytes:
    """The whole file, whose header leads to the page at an offset, and which leads nowhere."""
    alone = bytearray(data)
    where, letter = (8, "Q") if tags.is_big(data) else (4, "I")
    struct.pack_into(f"{order}{letter}", alone, where, at)
    if page.next_at:
        struct.pack_into(f"{order}{letter}", alone, page.next_at, 0)
    return bytes(alone)


def _cut_out(data: bytes, page: tags.Directory, order: str, at: int) -> bytes | None:
    """A file of the page alone, so that thousands of pages take no longer than they are large; None
    where the page points at more than its samples, or anything about it is odd."""
    where, lengths = ((273, 279), (324, 325))[324 in page.entries]
    if (
        tags.is_big(data)
        or not {where, lengths} <= set(page.entries)
        or _POINTS & set(page.entries)
    ):
        return None
    count = struct.unpack_from(f"{order}H", data, at)[0]
    if len(page.entries) != count or list(page.entries) != sorted(page.entries):
        return None  # whoever decodes shall see it
    offsets, sizes = (page.entries[tag].numbers(order) for tag in (where, lengths))
    inside = all(begin + size <= len(data) for begin, size in zip(offsets, sizes, strict=False))
    if not inside or len(offsets) != len(sizes) or not 0 < sum(sizes) <= len(data):
        return None
    out, moved = bytearray(data[:8]), list[int]()
    for begin, size in zip(offsets, sizes, strict=True):
        moved.append(len(out))
        out += data[begin : begin + size]
    out += bytes(len(out) % 2)
    struct.pack_into(f"{order}I", out, 4, len(out))
    stored = tags.Entry(4, len(moved), struct.pack(f"{order}{len(moved)}I", *moved), 0)
    return bytes(out) + tags.packed({**page.entries, where: stored}, {}, order, len(out))


def _joined_tiff(parts: Sequence[bytes], run: Timing) -> bytes:
    """The files one after the other, and behind them their directories, a chain."""
    order = tags.byte_order(parts[0])
    out = bytearray(parts[0])
    last = 4  # where the offset of the next directory is to be written
    for number, part in enumerate(parts):
        base = len(out) + len(out) % 2 if number else 0
        if number:
            out += bytes(base - len(out)) + part  # in place: it may have thousands
        page = tags.directory(part, order or "<", tags.first_offset(part, order or "<"))
        if order is None or tags.byte_order(part) != order or page is None or part[2:4] in _BIG:
            raise OutputError("The pages are too large to lie in one TIFF.")
        entries = {tag: _moved(tag, entry, order, base) for tag, entry in page.entries.items()}
        subs = {
            tag: sub.entries
            for tag in (tags.EXIF_IFD, tags.GPS_IFD)
            if (sub := tags.directory(part, order, page.number(tag, order))) and sub.entries
        }
        start = len(out) + len(out) % 2
        packed = tags.packed(entries, subs, order, start)
        out += bytes(start - len(out)) + packed
        if len(out) >= 1 << 32:
            raise OutputError("The pages are too large to lie in one TIFF.")
        struct.pack_into(f"{order}I", out, last, start)
        last = start + 2 + 12 * struct.unpack_from(f"{order}H", packed)[0]
    return bytes(out)


def _moved(tag: int, entry: tags.Entry, order: str, base: int) -> tags.Entry:
    """An entry of a file that now begins at `base`: where its samples lie."""
    if tag not in (273, 324) or not base:
        return entry
    offsets = [offset + base for offset in entry.numbers(order)]
    return tags.Entry(4, len(offsets), struct.pack(f"{order}{len(offsets)}I", *offsets), 0)


# GIF and WebP


def _roll(data: bytes, format: str) -> Any:
    """All frames below each other."""
    load = {"gif": pyvips.Image.gifload_buffer, "webp": pyvips.Image.webpload_buffer}[format]
    return load(data, n=-1, access="sequential", fail_on="warning")


def _frames(data: bytes, first: Picture, name: str) -> Iterator[Picture]:
    with turns.shared():
        roll = _roll(data, first.format)
        # libvips gives every animated GIF an alpha; it is one where something shows through.
        opaque = roll.bands in (2, 4) and roll[roll.bands - 1].min() == 255
        roll = _roll(data, first.format)
    if opaque:
        roll, first = roll[: roll.bands - 1], replace(first, alpha=None)
    height = roll.get("page-height")
    for top in range(0, roll.height, height):
        try:
            with turns.shared():
                samples = roll.crop(0, top, roll.width, height).numpy()
        except pyvips.Error as error:
            number = top // height + 1
            raise PictureError(
                f"{name}, frame {number}: it cannot be decoded ({reason(error)})."
            ) from error
        samples = samples.reshape(height, roll.width, -1)
        alpha = np.ascontiguousarray(samples[..., -1]) if samples.shape[2] in (2, 4) else None
        colours = samples if alpha is None else samples[..., :-1]
        turned = reader.turned(colours, first.orientation)
        if alpha is not None:
            alpha = np.ascontiguousarray(reader.turned(alpha[..., None], first.orientation)[..., 0])
        yield replace(first, pixels=np.ascontiguousarray(turned), alpha=alpha)


def _joined_webp(parts: Sequence[bytes], run: Timing) -> bytes:
    head: dict[bytes, bytes] = {}
    frames: list[tuple[bytes, bytes]] = []
    size, transparent = b"", False
    for part, (above, below) in zip(parts, _delays(parts, run), strict=True):
        held = list(_riff(part))
        image = [(kind, body) for kind, body in held if kind in (b"ALPH", b"VP8 ", b"VP8L")]
        head = head or dict(held)
        transparent |= any(k == b"ALPH" or (k == b"VP8L" and b[4] >> 4 & 1) for k, b in image)
        width, height = _webp_size(image[-1])
        size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        length = min(round(1000 * above / below), 0xFFFFFF).to_bytes(3, "little")
        body = bytes(6) + size + length + b"\2"  # at the corner; replaces what was there
        frames.append((b"ANMF", body + b"".join(_riff_chunk(*chunk) for chunk in image)))
    kept = [(kind, head[kind]) for kind in (b"ICCP", b"EXIF", b"XMP ") if kind in head]
    flags = 0x02 | 0x10 * transparent
    flags |= sum({b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}[kind] for kind, _ in kept)
    chunks = [(b"VP8X", bytes((flags, 0, 0, 0)) + size)]
    chunks += [one for one in kept if one[0] == b"ICCP"]
    chunks += [(b"ANIM", bytes(4) + struct.pack("<H", min(run.plays, 0xFFFF))), *frames]
    chunks += [one for one in kept if one[0] != b"ICCP"]
    body = b"WEBP" + b"".join(_riff_chunk(*chunk) for chunk in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _riff(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        yield kind, data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _riff_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def _webp_size(chunk: tuple[bytes, bytes]) -> tuple[int, int]:
    kind, body = chunk
    if kind == b"VP8L":
        packed = int.from_bytes(body[1:5], "little")
        return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", body, 6)
    return width & 0x3FFF, height & 0x3FFF


# Animated PNG


@dataclass
class _Frame:
    width: int
    height: int
    x: int
    y: int
    delay: tuple[int, int]
    dispose: int
    blend: int
    packed: bytes = b""


class _Apng:
    """The frames of an animated PNG, as they are stored: parts of the canvas."""

    def __init__(self, data: bytes) -> None:
        self.header, self.before = b"", b""
        self.promised, self.plays = 0, 0
        self.frames: list[_Frame] = []
        self.still: bytes | None = None
        for kind, body in _png_chunks(data):
            if kind == b"IHDR":
                self.header = body
            elif kind == b"acTL":
                self.promised, self.plays = struct.unpack(">II", body[:8])
            elif kind in (b"PLTE", b"tRNS"):
                self.before += _png_chunk(kind, body)
            elif kind == b"fcTL":
                w, h, x, y, above, below, dispose, blend = struct.unpack_from(">IIIIHHBB", body, 4)
                frame = _Frame(w, h, x, y, (above, below or 100), dispose, blend)
                self.frames.append(frame)
            elif kind == b"IDAT" and not self.frames:
                self.still = (self.still or b"") + body
            elif kind in (b"IDAT", b"fdAT") and self.frames:
                self.frames[-1].packed += body if kind == b"IDAT" else body[4:]

    def shown(self, first: Picture, name: str, limits: Limits) -> Iterator[Picture]:
        """The default picture where it is no frame, then each frame over what stands."""
        width, height = struct.unpack_from(">II", self.header)
        if len(self.frames) != self.promised:
            raise PictureError(
                f"{name}: it promises {self.promised} frames, and has another number."
            )
        if self.still is not None:
            yield first
        canvas: np.ndarray | None = None
        for number, frame in enumerate(self.frames, 1):
            inside = frame.x + frame.width <= width and frame.y + frame.height <= height
            if not (frame.packed and frame.width and frame.height and inside):
                raise PictureError(f"{name}, frame {number}: it does not lie inside the picture.")
            part = self._part(frame, f"{name}, frame {number}", limits)
            if canvas is None:
                canvas = np.zeros((height, width, part.shape[2]), part.dtype)
            place = canvas[frame.y : frame.y + frame.height, frame.x : frame.x + frame.width]
            before = place.copy()
            place[...] = _over(part, place) if frame.blend else part
            colours = reader.turned(canvas[..., : first.pixels.shape[2]], first.orientation)
            alpha = None
            if first.alpha is not None:
                alpha = reader.turned(canvas[..., -1:], first.orientation)[..., 0].copy()
            yield replace(first, pixels=colours.copy(), alpha=alpha)
            if frame.dispose == 1:
                place[...] = 0
            elif frame.dispose == 2:
                place[...] = before

    def _part(self, frame: _Frame, name: str, limits: Limits) -> np.ndarray:
        """Samples (h, w, C), alpha last, of a frame as a PNG of its own."""
        header = struct.pack(">II", frame.width, frame.height) + self.header[8:]
        whole = _PNG + _png_chunk(b"IHDR", header) + self.before
        whole += _png_chunk(b"IDAT", frame.packed) + _png_chunk(b"IEND", b"")
        picture = reader.decode(whole, name, limits)
        parts = [picture.pixels, *([] if picture.alpha is None else [picture.alpha[..., None]])]
        return np.concatenate(parts, axis=2)


def _over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Straight alpha over straight alpha; exact where the upper one is opaque or clear."""
    if above.shape[2] not in (2, 4):
        return above
    peak = np.iinfo(above.dtype).max
    a, b = (x[..., -1:].astype(np.float64) / peak for x in (above, below))
    alpha = a + b * (1 - a)
    mixed = (above[..., :-1] * a + below[..., :-1] * b * (1 - a)) / np.maximum(alpha, 1e-12)
    out = np.concatenate([mixed, alpha * peak], axis=2)
    out = np.rint(out).astype(above.dtype)
    out = np.where(a == 1, above, out)
    return np.where(a == 0, below, out)


def _joined_png(parts: Sequence[bytes], run: Timing) -> bytes:
    delays = _delays(parts, run)
    out, sequence = [_PNG], 0
    for number, part in enumerate(parts):
        stands = run.still and not number
        chunks = list(_png_chunks(part))
        control = b""
        if not stands:
            above, below = _in_16_bits(*delays[number])
            width, height = struct.unpack_from(">II", chunks[0][1])
            control = struct.pack(">5I2H2B", sequence, width, height, 0, 0, above, below, 0, 0)
            control, sequence = _png_chunk(b"fcTL", control), sequence + 1
        for kind, body in chunks:
            if kind == b"IDAT":
                out.append(control)
                control = b""
                if number:
                    kind, body = b"fdAT", struct.pack(">I", sequence) + body
                    sequence += 1
                out.append(_png_chunk(kind, body))
            elif not number and kind != b"IEND":
                out.append(_png_chunk(kind, body))
                if kind == b"IHDR":
                    counted = struct.pack(">II", len(parts) - run.still, run.plays)
                    out.append(_png_chunk(b"acTL", counted))
    return b"".join((*out, _png_chunk(b"IEND", b"")))


def _delays(parts: Sequence[bytes], run: Timing) -> list[tuple[int, int]]:
    """Of each part; a still picture has none, and a frame without one has a tenth of a second."""
    told = [(0, 1)] * run.still + list(run.delays)
    return (told + [(1, 10)] * len(parts))[: len(parts)]


def _in_16_bits(above: int, below: int) -> tuple[int, int]:
    if above < 65536 and below < 65536:
        return above, below
    return min(65535, round(above / below)), 1


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at + 8 : at + 8 + size]
        at += 12 + size


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


_POINTS = {tags.EXIF_IFD, tags.GPS_IFD, 330, 288, 289, *range(512, 522)}
"""Tags of a page whose values are places in the file; the last are of JPEG before TIFF's notes."""
_PNG = b"\x89PNG\r\n\x1a\n"
_BIG = (b"+\0", b"\0+")
