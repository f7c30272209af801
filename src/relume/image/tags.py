"""EXIF and TIFF directories: read, corrected in place, moved into a TIFF file.

Both are the same structure ("TIFF 6.0", Adobe 1992; BigTIFF has wider fields). An EXIF block is
edited in place wherever possible, because a camera's maker note holds offsets that break when it
is moved. Damaged directories give what can be read of them; nothing here raises on bad bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

ORIENTATION, EXIF_IFD, GPS_IFD, INTEROP_IFD = 274, 34665, 34853, 40965
THUMBNAIL_AT, THUMBNAIL_LENGTH = 513, 514
PIXEL_SIZE = {40962: 0, 40963: 1}  # width, height
ICC, XMP, IPTC, RESOURCES = 34675, 700, 33723, 34377
RESOLUTION = (282, 283, 296)
# What IFD0 says about the photograph rather than about the storage of its samples.
DESCRIPTIVE = {270, 271, 272, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096)}
MOST_ENTRIES = 4096
"""Of one directory that are read; a page in ten thousand strips has some thirty."""
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SIZES |= {16: 8, 17: 8, 18: 8}
_SWAPS = {3: 2, 8: 2, 4: 4, 9: 4, 11: 4, 13: 4, 5: 4, 10: 4, 12: 8}  # bytes of one number


@dataclass(frozen=True)
class Entry:
    """One directory entry: the value's bytes in the file's own byte order, and where they lie."""

    kind: int
    count: int
    raw: bytes
    at: int

    def numbers(self, order: str) -> list[int]:
        letter = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}.get(self.kind)
        if letter is None or len(self.raw) != self.count * _SIZES[self.kind]:
            return []
        return list(struct.unpack(f"{order}{self.count}{letter}", self.raw))

    def ratio(self, order: str) -> float | None:
        if self.kind != 5 or len(self.raw) < 8:
            return None
        above, below = struct.unpack(f"{order}2I", self.raw[:8])
        return above / below if below else None


@dataclass(frozen=True)
class Directory:
    entries: dict[int, Entry]
    next: int  # offset of the following directory, 0 at the end
    next_at: int  # where that offset is stored

    def number(self, tag: int, order: str, default: int = 0) -> int:
        found = self.entries.get(tag)
        values = found.numbers(order) if found else []
        return values[0] if values else default


def byte_order(data: bytes) -> str | None:
    """ "<" or ">" of a TIFF structure, or None where it is not one."""
    if len(data) < 8:
        return None
    return {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}.get(bytes(data[:4]))


def first_offset(data: bytes, order: str) -> int:
    if is_big(data):
        return struct.unpack_from(f"{order}Q", data, 8)[0] if len(data) >= 16 else 0
    return struct.unpack_from(f"{order}I", data, 4)[0]


def is_big(data: bytes) -> bool:
    return bytes(data[:4]) in (b"II+\0", b"MM\0+")


def directory(data: bytes, order: str, offset: int) -> Directory | None:
    """The directory at an offset, as far as it can be read; None where there is none."""
    big = is_big(data)
    head, width, inline = ("Q", 20, 8) if big else ("H", 12, 4)
    start = offset + struct.calcsize(f"={head}")
    if offset < 8 or start > len(data):
        return None
    count = struct.unpack_from(f"{order}{head}", data, offset)[0]
    count = min(count, (len(data) - start) // width)
    entries: dict[int, Entry] = {}
    left = 2 * len(data) + 65536  # values of an honest file do not overlap
    for index in range(min(count, MOST_ENTRIES)):
        at = start + index * width
        tag, kind = struct.unpack_from(f"{order}HH", data, at)
        number = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, at + 4)[0]
        size = _SIZES.get(kind, 0) * number
        value_at = at + width - inline
        if size > inline:
            value_at = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, value_at)[0]
        if size == 0 or value_at + size > len(data) or tag in entries or size > left:
            continue
        left -= size
        entries[tag] = Entry(kind, number, bytes(data[value_at : value_at + size]), value_at)
    next_at = start + count * width
    has_next = next_at + inline <= len(data)
    offset = (
        struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, next_at)[0] if has_next else 0
    )
    return Directory(entries, offset, next_at if has_next else 0)


def directories(data: bytes, limit: int = 5000) -> list[Directory]:
    """The chain of a TIFF's pages; a loop or a broken link ends it."""
    order, seen, found = byte_order(data), set[int](), list[Directory]()
    offset = first_offset(data, order) if order else 0
    left = 4 * len(data) + 65536
    while order and offset and offset not in seen and len(found) < limit and left > 0:
        seen.add(offset)
        page = directory(data, order, offset)
        if page is None:
            break
        found.append(page)
        left -= sum(len(entry.raw) + 12 for entry in page.entries.values())
        offset = page.next
    return found


def orientation(exif: bytes) -> int | None:
    """The tag of an EXIF block: 1 to 8, or None where it is absent or says something else."""
    pages = directories(exif, limit=1)
    order = byte_order(exif)
    value = pages[0].number(ORIENTATION, order) if pages and order else 0
    return value if 1 <= value <= 8 else None


def resolution(page: Directory, order: str) -> tuple[float, float] | None:
    """Pixels per inch, or None where the directory does not say."""
    x, y = (page.entries[tag].ratio(order) if tag in page.entries else None for tag in (282, 283))
    unit = {2: 1.0, 3: 2.54}.get(page.number(296, order, 2))
    return (x * unit, y * unit) if x and y and unit else None


def corrected(
    exif: bytes, size: tuple[int, int], thumbnail: Callable[[int], bytes | None]
) -> bytes | None:
    """An EXIF block that agrees with upright pixels, edited in place.

    Orientation becomes 1, the pixel size is the picture's, and the embedded thumbnail is replaced
    by one of this picture, or removed where a new one does not fit in the old one's place.

    Args:
        exif: The TIFF structure.
        size: (width, height) in pixels.
        thumbnail: Gives a JPEG of at most so many bytes, or None.

    Returns:
        The block, or None where it is too damaged to be read.
    """
    order, pages = byte_order(exif), directories(exif, limit=1)
    if order is None or not pages or is_big(exif):
        return None
    out, first = bytearray(exif), pages[0]

    def put(entry: Entry | None, value: int) -> None:
        if entry and entry.count == 1 and entry.kind in (3, 4):
            struct.pack_into(f"{order}{'H' if entry.kind == 3 else 'I'}", out, entry.at, value)

    put(first.entries.get(ORIENTATION), 1)
    sub = directory(exif, order, first.number(EXIF_IFD, order))
    for tag, axis in PIXEL_SIZE.items():
        entry = sub.entries.get(tag) if sub else None
        if entry and (entry.kind == 4 or size[axis] < 65536):
            put(entry, size[axis])
    second = directory(exif, order, first.next) if first.next else None
    if second is not None:
        at, length = (second.number(tag, order) for tag in (THUMBNAIL_AT, THUMBNAIL_LENGTH))
        inside = at > 0 and at + length <= len(out)
        new = thumbnail(length) if length and inside else None
        if inside:
            out[at : at + length] = (new or b"").ljust(length, b"\0")
        if new:
            put(second.entries.get(THUMBNAIL_LENGTH), len(new))
            put(second.entries.get(ORIENTATION), 1)
        elif first.next_at:
            struct.pack_into(f"{order}I", out, first.next_at, 0)
    return bytes(out)


def exif_of_tiff(data: bytes, page: Directory) -> bytes | None:
    """What a TIFF says about its photograph, as an EXIF block of its own."""
    order = byte_order(data)
    if order is None:
        return None
    turned = page.number(ORIENTATION, order, 1) != 1
    told = DESCRIPTIVE | {ORIENTATION} if turned else DESCRIPTIVE
    entries = {tag: entry for tag, entry in page.entries.items() if tag in told}
    subs = {
        tag: sub.entries
        for tag in (EXIF_IFD, GPS_IFD)
        if (sub := directory(data, order, page.number(tag, order))) and sub.entries
    }
    if not entries and not subs:
        return None
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return head + packed(entries, subs, order, 8)


def into_tiff(
    data: bytes,
    exif: bytes | None,
    blocks: Iterable[tuple[int, bytes]],
    dpi: tuple[float, float] | None,
) -> list[bytes | tuple[int, int]]:
    """A TIFF as libvips wrote it, with a directory at its end that also says what the file said:
    bytes, and spans of `data`.

    Args:
        data: A TIFF of one page, classic or big.
        exif: An EXIF block; its descriptive tags, EXIF and GPS directories go in.
        blocks: (tag, bytes): profile, XMP, IPTC.
        dpi: Pixels per inch; None leaves the resolution out.
    """
    order = byte_order(data)
    page = directory(data, order or "<", first_offset(data, order or "<"))
    if order is None or page is None:
        return [(0, len(data))]
    big = is_big(data)
    entries = {tag: e for tag, e in page.entries.items() if tag not in (*RESOLUTION, ORIENTATION)}
    entries[ORIENTATION] = Entry(3, 1, struct.pack(f"{order}H", 1), 0)
    if dpi:
        for tag, value in zip((282, 283), dpi, strict=True):
            raw = struct.pack(f"{order}2I", round(value * 1000), 1000)
            entries[tag] = Entry(5, 1, raw, 0)
        entries[296] = Entry(3, 1, struct.pack(f"{order}H", 2), 0)
    for tag, block in blocks:
        entries[tag] = Entry(1 if tag == XMP else 7, len(block), block, 0)
    subs: dict[int, dict[int, Entry]] = {}
    source = byte_order(exif) if exif else None
    if exif and source and (pages := directories(exif, limit=1)):
        swap = source != order
        for tag, entry in pages[0].entries.items():
            if tag in DESCRIPTIVE:
                entries[tag] = _swapped(entry) if swap else entry
        for tag in (EXIF_IFD, GPS_IFD):
            sub = directory(exif, source, pages[0].number(tag, source))
            if sub and sub.entries:
                subs[tag] = {t: _swapped(e) if swap else e for t, e in sub.entries.items()}
    start = len(data) + len(data) % 2
    head = bytes(data[:8]) + struct.pack("<Q" if order == "<" else ">Q", start) if big else b""
    head = head or bytes(data[:4]) + struct.pack(f"{order}I", start)
    tail = bytes(start - len(data)) + packed(entries, subs, order, start, big)
    return [head, (len(head), len(data)), tail]


def _swapped(entry: Entry) -> Entry:
    size = _SWAPS.get(entry.kind, 1)
    parts = (entry.raw[i : i + size][::-1] for i in range(0, len(entry.raw), size))
    return Entry(entry.kind, entry.count, b"".join(parts), 0)


def packed(
    entries: dict[int, Entry],
    subs: dict[int, dict[int, Entry]],
    order: str,
    start: int,
    big: bool = False,
) -> bytes:
    """A directory with its values and sub-directories behind it, to lie at offset `start`."""
    word, head, width = ("Q", "Q", 20) if big else ("I", "H", 12)
    room = struct.calcsize(f"={word}")
    pointers = {tag: Entry(18 if big else 4, 1, bytes(room), 0) for tag in subs}
    entries = {t: e for t, e in entries.items() if t not in (EXIF_IFD, GPS_IFD)} | pointers
    table, values = bytearray(struct.pack(f"{order}{head}", len(entries))), bytearray()
    free = start + struct.calcsize(f"={head}") + width * len(entries) + room
    for tag, entry in sorted(entries.items()):
        raw = entry.raw
        if tag in subs:
            held = {t: e for t, e in subs[tag].items() if t != INTEROP_IFD}
            raw = struct.pack(f"{order}{word}", free + len(values))
            values += packed(held, {}, order, free + len(values), big)
        elif len(raw) > room:
            raw = struct.pack(f"{order}{word}", free + len(values))
            values += entry.raw + bytes(len(entry.raw) % 2)
        told = struct.pack(f"{order}HH{word}", tag, entry.kind, entry.count)
        table += told + raw.ljust(room, b"\0")
    return bytes(table) + bytes(room) + bytes(values)
