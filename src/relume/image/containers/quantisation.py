"""How finely a JPEG keeps its samples: the quality that its tables show, and its subsampling."""

from __future__ import annotations

import functools
import struct

import numpy as np


def tables_in(body: bytes) -> dict[int, tuple[int, ...]]:
    """A DQT segment's quantisation tables: number -> 64 steps; what is cut short is left out."""
    tables, at = {}, 0
    while at < len(body):
        wide, size = body[at] >> 4, 128 if body[at] >> 4 else 64
        values = body[at + 1 : at + 1 + size]
        if len(values) < size:
            break
        tables[body[at] & 15] = struct.unpack(">64H" if wide else "64B", values)
        at += 1 + size
    return tables


def quality(tables: dict[int, tuple[int, ...]], used: list[int]) -> int | None:
    """The libjpeg quality whose tables are as fine as the finer of this file's.

    Tables are compared by their sums, which also ranks the tables of cameras and Photoshop.
    """
    estimates = []
    for kind, table in zip((0, 1), used, strict=False):  # brightness, first colour
        if table in tables:
            gaps = np.abs(_table_sums(kind) - sum(tables[table]))
            estimates.append(int(100 - np.argmin(gaps[::-1])))  # of equals the higher
    return max(estimates) if estimates else None


def subsampling(factors: list[tuple[int, int]]) -> str | None:
    """As J:a:b, from each component's sampling factors (H, V); None where there are no colours."""
    if len(factors) < 3:
        return None
    (h, v), rest = factors[0], set(factors[1:])
    if len(rest) != 1:
        return "mixed"
    ratio = (h // max(1, factors[1][0]), v // max(1, factors[1][1]))
    names = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1"}
    return names.get(ratio, "mixed")


@functools.cache
def _table_sums(kind: int) -> np.ndarray:
    """For quality 1 to 100, the sum of the brightness (0) or colour (1) table."""
    values = np.array([int(v) for v in (_K1, _K2)[kind].split()])
    scales = [5000 // q if q < 50 else 200 - 2 * q for q in range(1, 101)]
    return np.array([np.clip((values * s + 50) // 100, 1, 255).sum() for s in scales])


# ITU-T T.81, Annex K, tables K.1 and K.2, scaled as libjpeg does.
_K1 = "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 "
_K1 += "80 62 18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 "
_K1 += "92 95 98 112 100 103 99"
_K2 = "17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66" + " 99" * 38
