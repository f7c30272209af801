"""VP8, the lossy coding of WebP: the quality at which a frame was encoded."""

from __future__ import annotations


def quality(body: bytes) -> int:
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
