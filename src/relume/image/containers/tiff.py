"""TIFF: what the first page's directory says; metadata in its tags (`tags`)."""

from __future__ import annotations

import struct

from ...errors import PictureError
from .. import tags
from .resources import iptc_record, without_thumbnails
from .surveys import Parts, Survey


def shows(head: bytes) -> bool:
    return tags.byte_order(head) is not None


def walk(data: bytes, checked: bool) -> Survey:
    order, pages = tags.byte_order(data), tags.directories(data)
    if order is None or not pages:
        raise PictureError("it holds no picture")
    first, found = pages[0], Survey("tiff", data=data)
    found.width, found.height = first.number(256, order), first.number(257, order)
    found.bits = first.number(258, order, 1)
    # Small copies of a page are marked as such, and are not pages of their own.
    found.frames = max(1, sum(not page.number(254, order) & 1 for page in pages))
    extra = first.entries.get(338)
    found.premultiplied = extra is not None and extra.numbers(order)[:1] == [1]
    blocks = {tag: first.entries[tag].raw for tag in _BLOCKS if tag in first.entries}
    found.icc, found.xmp = blocks.get(tags.ICC), blocks.get(tags.XMP)
    found.iptc = without_thumbnails(blocks.get(tags.RESOURCES, b""))
    if (record := blocks.get(tags.IPTC)) and not (found.iptc and iptc_record(found.iptc)):
        block = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(record)) + record
        found.iptc = (found.iptc or b"") + block + bytes(len(record) % 2)
    found.dpi = tags.resolution(first, order)
    found.exif = tags.exif_of_tiff(data, first)
    return found


def pack(data: bytes, said: Survey) -> Parts:
    blocks = [(tags.ICC, said.icc), (tags.XMP, said.xmp), (tags.RESOURCES, said.iptc)]
    blocks.append((tags.IPTC, iptc_record(said.iptc) if said.iptc else None))
    return tags.into_tiff(data, said.exif, [(t, b) for t, b in blocks if b], said.dpi)


_BLOCKS = (tags.ICC, tags.XMP, tags.IPTC, tags.RESOURCES)
