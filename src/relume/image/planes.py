"""Gray and alpha of a TIFF in planes of their own, read one by one: libvips 8.18 confuses them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

from ..errors import PictureError
from . import tags

PER_SAMPLE = (258, 280, 281, 339)  # tags with a number for each channel
DROPPED = (284, 338)  # planes, and what further channels mean


def separate(data: bytes) -> bool:
    """Whether the first page has two channels, each in planes of its own."""
    order, pages = tags.byte_order(data), tags.directories(data, limit=1)
    if order is None or not pages:
        return False
    return [pages[0].number(tag, order, 1) for tag in (277, 284)] == [2, 2]


def each(data: bytes) -> Iterator[bytes]:
    """The file of each channel alone: the same samples, behind them a directory that tells of half.

    Raises:
        PictureError: Its directory is damaged, or it is a BigTIFF.
    """
    order, page = tags.byte_order(data) or "<", tags.directories(data, limit=1)[0]
    where, lengths = ((273, 279), (324, 325))[324 in page.entries]
    if data[2:4] in (b"+\0", b"\0+") or not {where, lengths} <= set(page.entries):
        raise PictureError("its gray and alpha lie in separate planes; save them together first")
    entries = {tag: entry for tag, entry in page.entries.items() if tag not in DROPPED}
    entries[277] = tags.Entry(3, 1, struct.pack(f"{order}H", 1), 0)
    for tag in PER_SAMPLE:
        if tag in entries and entries[tag].count == 2:
            entries[tag] = _part(entries[tag], 0)
    start = len(data) + len(data) % 2
    for plane in (0, 1):
        half = {tag: _part(page.entries[tag], plane) for tag in (where, lengths)}
        alone = bytearray(data.ljust(start, b"\0"))
        struct.pack_into(f"{order}I", alone, 4, start)
        yield bytes(alone) + tags.packed({**entries, **half}, {}, order, start)


def _part(entry: tags.Entry, half: int) -> tags.Entry:
    """The first or second half of an entry's numbers."""
    size = len(entry.raw) // 2
    return replace(entry, count=entry.count // 2, raw=entry.raw[half * size : (half + 1) * size])
