"""Arrays too large for memory: in files without a name, whose pages are let go as strips pass.

Such a file lies in a folder that the caller gives, on a disk with room, and goes with its array,
however the process ends.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OutputError

LARGE = 128 << 20
"""Bytes of samples from which a picture of a batch lies in a file: 45 megapixels of 8-bit RGB."""

STRIP = 16 << 20
"""Bytes of a strip, about."""


class _Mapping(mmap.mmap):
    """A file in memory, and the folder that it lies in."""

    folder: Path


def empty(shape: tuple[int, ...], kind: Any, folder: Path) -> np.ndarray:
    """An array of zeros in a file in `folder`.

    Raises:
        OutputError: There is not the room on the disk.
    """
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            reserve(file.fileno(), size)
            mapping = _Mapping(file.fileno(), size)
    except OSError as error:
        raise OutputError(
            f"{folder}: {size >> 20} MB for a large picture do not fit there while it is restored "
            f"({error.strerror or error})."
        ) from error
    mapping.folder = folder
    return np.ndarray(shape, kind, mapping)


def reserve(file: int, size: int) -> None:
    """Make a file that long, with room on the disk for all of it.

    A page that is written where there is no room would end the process.

    Raises:
        OSError: There is not the room.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    zeros = bytes(STRIP)
    for at in range(0, size, STRIP):
        os.write(file, zeros[: size - at])


def like(array: np.ndarray, shape: tuple[int, ...], kind: Any) -> np.ndarray:
    """A new array where `array` lies: in a file beside its own, or in memory.

    Raises:
        OutputError: There is not the room on the disk.
    """
    folder = folder_of(array)
    return np.empty(shape, kind) if folder is None else empty(shape, kind, folder)


def folder_of(array: np.ndarray) -> Path | None:
    """Where an array's file lies; None for what lies in memory."""
    mapping = _mapping(array)
    return None if mapping is None else mapping.folder


def let_go(*arrays: np.ndarray | None) -> None:
    """Give the memory of pages back that were read or written; their files keep them.

    Nothing happens to arrays in memory.
    """
    for array in arrays:
        mapping = None if array is None else _mapping(array)
        if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapping.madvise(mmap.MADV_DONTNEED)


def strips(array: np.ndarray) -> Iterator[tuple[int, int]]:
    """(first row, one after the last) of strips of about STRIP bytes, from top to bottom, all of an
    array in memory at once; the rows of the strip before are let go."""
    height = array.shape[0]
    step = max(1, STRIP // max(1, array[:1].nbytes))
    if folder_of(array) is None:
        step = height
    for top in range(0, height, step):
        yield top, min(height, top + step)
        let_go(array)


def contiguous(array: np.ndarray) -> np.ndarray:
    """The array itself, or a copy of a turned or sliced one, where it lies."""
    if array.flags.c_contiguous or folder_of(array) is None:
        return np.ascontiguousarray(array)
    out = like(array, array.shape, array.dtype)
    # A turned picture is read across: blocks touch few pages of either.
    side = max(64, int((STRIP / max(1, array[:1, :1].nbytes)) ** 0.5))
    for top in range(0, array.shape[0], side):
        for left in range(0, array.shape[1], side):
            block = slice(top, top + side), slice(left, left + side)
            out[block] = array[block]
        let_go(array, out)
    return out


def _mapping(array: np.ndarray) -> _Mapping | None:
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, _Mapping) else None
