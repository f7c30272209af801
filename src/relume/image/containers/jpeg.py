"""JPEG: segments up to the first scan; metadata in application segments and comments."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from ...errors import PictureError
from .. import tags
from .quantisation import quality, subsampling, tables_in
from .resources import without_thumbnails
from .surveys import Parts, Survey


def shows(head: bytes) -> bool:
    return head[:3] == b"\xff\xd8\xff"


def walk(data: bytes, checked: bool) -> Survey:
    found, end = Survey("jpeg", data=data), 2
    tables: dict[int, tuple[int, ...]] = {}
    profile: dict[int, bytes] = {}
    dropped: set[str] = set()
    kept = [(0, 2)]
    components: list[tuple[int, int, int]] = []
    for marker, start, end in _segments(data):
        body = data[start:end]
        application = 0xE0 <= marker <= 0xEF
        if marker == 0xDB:
            tables |= tables_in(body)
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(body) >= 6:
            found.bits, found.height, found.width, count = struct.unpack_from(">BHHB", body)
            parts = (body[6 + 3 * i : 9 + 3 * i] for i in range(count))
            components = [(p[1] >> 4, p[1] & 15, p[2]) for p in parts if len(p) == 3]
        elif marker == 0xE0 and body[:5] == b"JFIF\0" and len(body) >= 12:
            unit, x, y = struct.unpack_from(">BHH", body, 7)
            inch = {1: 1.0, 2: 2.54}.get(unit)
            found.dpi = (x * inch, y * inch) if inch and x and y else found.dpi
        elif marker == 0xE1 and body[:6] == b"Exif\0\0":
            if found.exif is None or not tags.directories(found.exif, limit=1):
                found.exif = body[6:]
            elif tags.byte_order(body[6:]) is None:  # one block in several segments
                found.exif += body[6:]
        elif marker == 0xE1 and body.startswith(_XMP):
            found.xmp = found.xmp or body[len(_XMP) :]
        elif marker == 0xE1 and body.startswith(_XMP_MORE):
            found.carried.append(("xmp extension", body))
        elif marker == 0xE2 and body[:12] == b"ICC_PROFILE\0" and len(body) > 14:
            profile.setdefault(body[12], body[14:])
        elif marker == 0xE2 and body[:4] == b"MPF\0":
            found.frames = max(found.frames, _mpf_pictures(body[4:]))
        elif marker == 0xED and body.startswith(_PHOTOSHOP):
            found.iptc = (found.iptc or b"") + body[len(_PHOTOSHOP) :]
        elif marker == 0xFE:
            found.carried.append(("comment", body))
        elif application and marker not in (0xE0, 0xEE):
            name = re.sub(rb"[^ -~]", b"", body[:12].split(b"\0")[0]).decode() or "data"
            dropped.add(f"{name} (APP{marker - 0xE0})")
        if not application or marker == 0xEE:  # Adobe's APP14 tells how colours are stored
            kept.append((start - 4, end))
    if checked:
        kept.append((end, len(data)))
    if not components:
        raise PictureError("it holds no picture")
    if profile:
        found.icc = b"".join(profile[number] for number in sorted(profile))
    if found.dpi is None and found.exif and (order := tags.byte_order(found.exif)):
        pages = tags.directories(found.exif, limit=1)
        found.dpi = tags.resolution(pages[0], order) if pages else None
    if found.iptc:
        found.iptc = without_thumbnails(found.iptc)
    if dropped:
        found.notes.append(f"JPEG application data dropped: {', '.join(sorted(dropped))}")
    found.quality = quality(tables, [table for *_, table in components])
    found.subsampling = subsampling([(h, v) for h, v, _ in components])
    found.spans = kept
    return found


def pack(data: bytes, said: Survey) -> Parts:
    end = 2

    def segment(marker: int, body: bytes) -> bytes:
        if len(body) > 65533:
            raise _TooLongError
        return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body

    unit, x, y = (1, *map(round, said.dpi)) if said.dpi else (0, 1, 1)
    x, y = (min(65535, max(1, v)) for v in (x, y))
    parts: Parts = [
        b"\xff\xd8",
        segment(0xE0, b"JFIF\0" + struct.pack(">HBHHBB", 0x101, unit, x, y, 0, 0)),
    ]
    pieces: list[tuple[str, int, bytes]] = []
    if said.exif:
        pieces.append(("EXIF", 0xE1, b"Exif\0\0" + said.exif))
    if said.xmp:
        pieces.append(("XMP", 0xE1, _XMP + said.xmp))
    pieces += [("XMP", 0xE1, body) for kind, body in said.carried if kind == "xmp extension"]
    pieces += [
        ("IPTC", 0xED, _PHOTOSHOP + (said.iptc or b"")[at : at + 65000])
        for at in range(0, len(said.iptc or b""), 65000)
    ]
    chunks = [(said.icc or b"")[at : at + 65000] for at in range(0, len(said.icc or b""), 65000)]
    for number, chunk in enumerate(chunks, 1):
        pieces.append(("ICC", 0xE2, b"ICC_PROFILE\0" + bytes((number, len(chunks))) + chunk))
    pieces += [("comment", 0xFE, body) for kind, body in said.carried if kind == "comment"]
    for name, marker, body in pieces:
        try:
            parts.append(segment(marker, body))
        except _TooLongError:
            said.notes.append(f"{name} dropped: {len(body)} bytes do not fit in a JPEG")
    for marker, start, end in _segments(data):
        if not 0xE0 <= marker <= 0xEF or marker == 0xEE:
            parts.append((start - 4, end))
    return [*parts, (end, len(data))]


class _TooLongError(Exception):
    pass


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start of payload, end) up to and with the first scan; junk between is passed."""
    at = 2
    while True:
        at = data.find(b"\xff", at)
        while 0 <= at < len(data) - 1 and data[at + 1] == 0xFF:
            at += 1
        if at < 0 or at + 4 > len(data):
            raise PictureError("it ends before its picture begins")
        marker = data[at + 1]
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            at += 2
            continue
        if marker == 0xD9:
            raise PictureError("it holds no picture")
        end = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
        if end > len(data) or end < at + 4:
            raise PictureError("it ends before its picture begins")
        yield marker, at + 4, end
        if marker == 0xDA:
            return
        at = end


def _mpf_pictures(block: bytes) -> int:
    """How many pictures a multi-picture JPEG's index names (CIPA DC-007)."""
    order, pages = tags.byte_order(block), tags.directories(block, limit=1)
    return pages[0].number(0xB001, order, 1) if order and pages else 1


_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_MORE = b"http://ns.adobe.com/xmp/extension/\0"
_PHOTOSHOP = b"Photoshop 3.0\0"
