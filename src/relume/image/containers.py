"""The boxes that pictures come in: what a JPEG, PNG, WebP or TIFF file says besides its samples.

`survey` walks a file without decoding it; `packed` puts metadata around freshly encoded samples.
libvips only ever sees and writes samples here, so that metadata is carried byte for byte.
"""

from __future__ import annotations

import functools
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import PictureError
from . import tags
from .pieces import PIECE, let_go


@dataclass
class Survey:
    """What a file says of itself. `samples` is the part that the decoder needs to see: the spans
    of the file, or all of it."""

    format: str
    width: int = 0
    height: int = 0
    bits: int = 8
    frames: int = 1
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    dpi: tuple[float, float] | None = None
    quality: int | None = None
    subsampling: str | None = None
    premultiplied: bool = False
    carried: list[tuple[str, bytes]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    data: bytes = b""
    spans: list[tuple[int, int]] | None = None
    source: Any = None  # what libvips reads of a mapped file; pyvips itself does not hold it

    @property
    def samples(self) -> bytes:
        if self.spans is None:
            return bytes(self.data)
        return b"".join(self.data[start:end] for start, end in self.spans)

    @property
    def orientation(self) -> int:
        """EXIF's, else XMP's, else 1. HEIF and AVIF turn by boxes, which decoding applies."""
        if self.format in ("heif", "avif"):
            return 1
        turn = tags.orientation(self.exif) if self.exif else None
        if turn is None and self.xmp and (stated := _XMP_TURN.search(self.xmp)):
            turn = int(stated[2][:4])  # Python reads no number of ten thousand digits
        return turn if turn and 1 <= turn <= 8 else 1


def sniff(head: bytes) -> str | None:
    """The format that a file's first bytes show, of those that relume reads; else None."""
    if head[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if head[:8] == _PNG:
        return "png"
    if tags.byte_order(head):
        return "tiff"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if head[4:8] == b"ftyp":
        brands = {head[8:12], *(head[i : i + 4] for i in range(16, min(len(head), 64), 4))}
        if brands & {b"avif", b"avis"}:
            return "avif"
        if brands & {b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1", b"heim", b"heis"}:
            return "heif"
    return None


def survey(data: bytes, format: str, checked: bool = True) -> Survey:
    """Walk a file's structure. Formats without a walker here give an empty survey.

    Args:
        data: The whole file.
        format: As `sniff` names it.
        checked: Verify the checksums that the format has, and cut out `samples`; False where only
            the header matters.

    Raises:
        PictureError: The structure itself is broken, or the file ends too early.
    """
    walker = _WALKERS.get(format)
    try:
        found = walker(data, checked) if walker else Survey(format, data=data)
    except (struct.error, IndexError) as error:
        raise PictureError("its structure is damaged") from error
    if found.exif is not None and not tags.directories(found.exif, limit=1):
        found.exif = None
        found.notes.append("damaged EXIF dropped")
    return found


def upright_xmp(xmp: bytes) -> bytes:
    """The packet with tiff:Orientation 1, where it states one."""
    return _XMP_TURN.sub(lambda found: found[1] + b"1", xmp)


# JPEG


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


def _jpeg(data: bytes, checked: bool) -> Survey:
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
            tables |= _quantisation(body)
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
        elif marker == 0xE1 and body.startswith(_XMP_NAME):
            found.xmp = found.xmp or body[len(_XMP_NAME) :]
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
        found.iptc = _without_thumbnails(found.iptc)
    if dropped:
        found.notes.append(f"JPEG application data dropped: {', '.join(sorted(dropped))}")
    found.quality = _quality(tables, [table for *_, table in components])
    found.subsampling = _sampling([(h, v) for h, v, _ in components])
    found.spans = kept
    return found


def _quantisation(body: bytes) -> dict[int, tuple[int, ...]]:
    tables, at = {}, 0
    while at < len(body):
        wide, size = body[at] >> 4, 128 if body[at] >> 4 else 64
        values = body[at + 1 : at + 1 + size]
        if len(values) < size:
            break
        tables[body[at] & 15] = struct.unpack(">64H" if wide else "64B", values)
        at += 1 + size
    return tables


def _quality(tables: dict[int, tuple[int, ...]], used: list[int]) -> int | None:
    """The libjpeg quality whose tables are as fine as the finer of this file's.

    Tables are compared by their sums, which also ranks the tables of cameras and Photoshop.
    """
    estimates = []
    for kind, table in zip((0, 1), used, strict=False):  # brightness, first colour
        if table in tables:
            gaps = np.abs(_table_sums(kind) - sum(tables[table]))
            estimates.append(int(100 - np.argmin(gaps[::-1])))  # of equals the higher
    return max(estimates) if estimates else None


# ITU-T T.81, Annex K, tables K.1 and K.2, scaled as libjpeg does.
_K1 = "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 "
_K1 += "80 62 18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 "
_K1 += "92 95 98 112 100 103 99"
_K2 = "17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66" + " 99" * 38


@functools.cache
def _table_sums(kind: int) -> np.ndarray:
    """For quality 1 to 100, the sum of the brightness (0) or colour (1) table."""
    values = np.array([int(v) for v in (_K1, _K2)[kind].split()])
    scales = [5000 // q if q < 50 else 200 - 2 * q for q in range(1, 101)]
    return np.array([np.clip((values * s + 50) // 100, 1, 255).sum() for s in scales])


def _sampling(factors: list[tuple[int, int]]) -> str | None:
    if len(factors) < 3:
        return None
    (h, v), rest = factors[0], set(factors[1:])
    if len(rest) != 1:
        return "mixed"
    ratio = (h // max(1, factors[1][0]), v // max(1, factors[1][1]))
    names = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1"}
    return names.get(ratio, "mixed")


def _mpf_pictures(block: bytes) -> int:
    """How many pictures a multi-picture JPEG's index names (CIPA DC-007)."""
    order, pages = tags.byte_order(block), tags.directories(block, limit=1)
    return pages[0].number(0xB001, order, 1) if order and pages else 1


def _without_thumbnails(resources: bytes) -> bytes | None:
    """Photoshop resources less their pictures of the old pixels; None where none are left."""
    kept = [block for number, block in _resources(resources) if number not in (1033, 1036)]
    return b"".join(kept) or None


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


def _iptc_record(resources: bytes) -> bytes | None:
    """The IPTC data itself, resource 1028, out of the Photoshop resources around it."""
    for number, block in _resources(resources):
        if number == 1028:
            at = 6 + (block[6] + 2) // 2 * 2
            return block[at + 4 : at + 4 + struct.unpack_from(">I", block, at)[0]]
    return None


def _pack_jpeg(data: bytes, said: Survey) -> Parts:
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
        pieces.append(("XMP", 0xE1, _XMP_NAME + said.xmp))
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


# PNG


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


def _png(data: bytes, checked: bool) -> Survey:
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
        elif not sound or not _png_metadata(found, kind, data[start:end]):
            dropped.add(kind.decode("latin-1") if kind.isalpha() else "unknown")
    if not header:
        raise PictureError("its header is missing")
    if dropped:
        found.notes.append(f"PNG chunks dropped: {', '.join(sorted(dropped))}")
    found.spans = kept
    return found


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


def _png_metadata(found: Survey, kind: bytes, body: bytes) -> bool:
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
    if kind.decode("latin-1") in _PNG_CARRIED:
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


def _pack_png(data: bytes, said: Survey) -> Parts:
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


# WebP


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    if end > len(data) + 1:
        raise PictureError("it is cut short")
    at = 12
    while at + 8 <= min(end, len(data)):
        kind, size = struct.unpack_from("<4sI", data, at)
        yield kind, data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _webp(data: bytes, checked: bool) -> Survey:
    found, frames = Survey("webp", data=data), 0
    if len(data) < 20:
        raise PictureError("it is cut short")
    for kind, body in _webp_chunks(data):
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
            found.quality = _webp_quality(body)
        elif kind == b"VP8L" and len(body) >= 5:
            packed = int.from_bytes(body[1:5], "little")
            found.width = found.width or 1 + (packed & 0x3FFF)
            found.height = found.height or 1 + (packed >> 14 & 0x3FFF)
    found.frames = max(1, frames)
    return found


def _webp_quality(body: bytes) -> int:
    """libwebp's quality from the finest quantiser of a lossy frame's header (RFC 6386, 9.2-9.6)."""
    read = _BoolReader(body[10:])
    read.bits(2)  # colour space, clamping
    levels: list[tuple[bool, int]] = []
    absolute = False
    if read.bits(1):  # segmentation
        update_map, update_data = read.bits(1), read.bits(1)
        if update_data:
            absolute = bool(read.bits(1))
            levels = [(True, read.signed(7)) for _ in range(4)]
            for _ in range(4):
                read.signed(6)
        if update_map:
            for _ in range(3):
                if read.bits(1):
                    read.bits(8)
    read.bits(1 + 6 + 3)  # loop filter
    if read.bits(1) and read.bits(1):
        for _ in range(8):
            read.signed(6)
    read.bits(2)  # partitions
    base = read.bits(7)
    steps = [value if absolute else base + value for _, value in levels] or [base]
    coarse = 1 - min(127, max(0, min(steps))) / 127
    linear = coarse**3
    return min(100, round(100 * (linear * 1.5 if linear < 0.5 else (linear + 1) / 2)))


class _BoolReader:
    """The arithmetic decoder of RFC 6386, section 7, for bits of even odds."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.span, self.left = data, 2, 255, 0
        self.value = int.from_bytes(data[:2].ljust(2, b"\0"), "big")

    def bits(self, count: int) -> int:
        out = 0
        for _ in range(count):
            split = 1 + ((self.span - 1) * 128 >> 8)
            bit = self.value >= split << 8
            self.value -= split << 8 if bit else 0
            self.span = self.span - split if bit else split
            while self.span < 128:
                self.value, self.span, self.left = self.value << 1, self.span << 1, self.left + 1
                if self.left == 8:
                    self.left = 0
                    self.value |= self.data[self.at] if self.at < len(self.data) else 0
                    self.at += 1
            out = out << 1 | bit
        return out

    def signed(self, count: int) -> int:
        """An optional value with its sign behind it; 0 where it is not given."""
        if not self.bits(1):
            return 0
        size = self.bits(count)
        return -size if self.bits(1) else size


def _pack_webp(data: bytes, said: Survey) -> Parts:
    chunks = [(k, b) for k, b in _webp_chunks(data) if k in (b"ALPH", b"VP8 ", b"VP8L")]
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


# TIFF, GIF


def _tiff(data: bytes, checked: bool) -> Survey:
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
    blocks = {tag: first.entries[tag].raw for tag in _TIFF_BLOCKS if tag in first.entries}
    found.icc, found.xmp = blocks.get(tags.ICC), blocks.get(tags.XMP)
    found.iptc = _without_thumbnails(blocks.get(tags.RESOURCES, b""))
    if (record := blocks.get(tags.IPTC)) and not (found.iptc and _iptc_record(found.iptc)):
        block = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(record)) + record
        found.iptc = (found.iptc or b"") + block + bytes(len(record) % 2)
    found.dpi = tags.resolution(first, order)
    found.exif = tags.exif_of_tiff(data, first)
    return found


def _pack_tiff(data: bytes, said: Survey) -> Parts:
    blocks = [(tags.ICC, said.icc), (tags.XMP, said.xmp), (tags.RESOURCES, said.iptc)]
    blocks.append((tags.IPTC, _iptc_record(said.iptc) if said.iptc else None))
    return tags.into_tiff(data, said.exif, [(t, b) for t, b in blocks if b], said.dpi)


def _gif(data: bytes, checked: bool) -> Survey:
    if len(data) < 10:
        raise PictureError("it is cut short")
    width, height = struct.unpack_from("<HH", data, 6)
    return Survey("gif", width, height, data=data)


Parts = list[bytes | tuple[int, int]]
"""A file as bytes, and as spans of another."""


def packed(data: bytes, said: Survey) -> bytes:
    """Encoded samples with what `said` holds around them; what does not fit joins its notes."""
    parts = spliced(data, said)
    return b"".join(p if isinstance(p, bytes) else data[p[0] : p[1]] for p in parts)


def spliced(data: bytes, said: Survey) -> Parts:
    """As `packed`, for a file that is mapped and not held."""
    packer = _PACKERS.get(said.format)
    return packer(data, said) if packer else [(0, len(data))]


def carried_names(carried: Iterable[tuple[str, bytes]]) -> list[str]:
    """What of a container's own pieces would be a loss in another format."""
    harmless = {"pHYs", "sRGB", "tIME"}
    names = {"tEXt": "text", "zTXt": "text", "iTXt": "text"}
    told = [
        names.get(kind, kind)
        for kind, body in carried
        if kind not in harmless and not (kind == "gAMA" and body == struct.pack(">I", 45455))
    ]
    return sorted(set(told))


_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CARRIED = {"tEXt", "zTXt", "iTXt", "gAMA", "cHRM", "sRGB", "cICP", "mDCV", "cLLI", "tIME"}
_XMP_NAME = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_MORE = b"http://ns.adobe.com/xmp/extension/\0"
_XMP_TURN = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|>)\s*)(\d+)")
_PHOTOSHOP = b"Photoshop 3.0\0"
_TIFF_BLOCKS = (tags.ICC, tags.XMP, tags.IPTC, tags.RESOURCES)

_WALKERS = {"jpeg": _jpeg, "png": _png, "webp": _webp, "tiff": _tiff, "gif": _gif}
_PACKERS = {"jpeg": _pack_jpeg, "png": _pack_png, "webp": _pack_webp, "tiff": _pack_tiff}
