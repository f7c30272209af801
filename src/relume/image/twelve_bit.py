"""Packed 12-bit gray in TIFF files, which scanners write and libvips does not read."""

from __future__ import annotations

import numpy as np

from ..errors import PictureError
from . import tags
from .containers import Survey


def unpacked(found: Survey) -> np.ndarray | None:
    """Samples (H, W, 1) over 16 bits' range; None where the file is not of that kind.

    Raises:
        PictureError: It is cut short.
    """
    if found.format != "tiff" or found.bits != 12:
        return None
    order, page = tags.byte_order(found.samples), tags.directories(found.samples, limit=1)[0]
    if order is None or [page.number(tag, order, 1) for tag in (259, 277, 266)] != [1, 1, 1]:
        return None
    offsets, lengths = (page.entries.get(tag) for tag in (273, 279))
    if offsets is None or lengths is None:
        return None
    parts = zip(offsets.numbers(order), lengths.numbers(order), strict=False)
    packed = b"".join(found.samples[at : at + length] for at, length in parts)
    stride = (found.width * 12 + 7) // 8
    if len(packed) < stride * found.height:
        raise PictureError("it is cut short")
    rows = np.frombuffer(packed, np.uint8)[: stride * found.height].reshape(found.height, stride)
    rows = np.pad(rows, ((0, 0), (0, -stride % 3))).astype(np.uint16)
    first, middle, last = rows[:, 0::3], rows[:, 1::3], rows[:, 2::3]
    pairs = np.stack([first << 4 | middle >> 4, (middle & 15) << 8 | last], axis=2)
    values = pairs.reshape(found.height, -1)[:, : found.width, None]
    values = values if page.number(262, order, 1) else 4095 - values
    return values << 4 | values >> 8
