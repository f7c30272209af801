"""Files too large to be held: their bytes in order, a few megabytes at a time."""

from __future__ import annotations

import hashlib
import mmap
import os
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

PIECE = 4 << 20

LARGE = 64 << 20
"""Bytes from which a batch does not hold a file."""


class Pieces:
    """Bytes, and spans of a file, one after the other; read when they are asked for.

    Args:
        file: Open for reading; this object keeps it open for itself.
        parts: Bytes, or (start, end) in the file; None for all of it.
    """

    def __init__(
        self, file: BinaryIO, parts: Sequence[bytes | tuple[int, int]] | None = None
    ) -> None:
        self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)
        self._parts = [(0, os.fstat(self._file).st_size)] if parts is None else list(parts)

    def __len__(self) -> int:
        return sum(len(p) if isinstance(p, bytes) else p[1] - p[0] for p in self._parts)

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            if isinstance(part, bytes):
                yield part
                continue
            start, end = part
            for at in range(start, end, PIECE):
                yield _read(self._file, at, min(PIECE, end - at))

    def fileno(self) -> int:
        """Of the file."""
        return self._file


Data = bytes | Pieces
"""A whole file: held, or not."""


def sha256(data: Data) -> Any:
    """The hash of all of them."""
    whole = hashlib.sha256()
    for piece in [data] if isinstance(data, bytes) else data:
        whole.update(piece)
    return whole


def mapped(file: int) -> mmap.mmap:
    """A file as one buffer, without holding it.

    Raises:
        OSError, ValueError: It cannot be, or is empty.
    """
    return mmap.mmap(file, 0, access=mmap.ACCESS_READ)


def let_go(data: Any) -> None:
    """Give back the memory of what was read of a mapped file; nothing happens to bytes."""
    if isinstance(data, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        data.madvise(mmap.MADV_DONTNEED)


def _read(file: int, at: int, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = os.pread(file, size, at)
        if not part:
            raise OSError(5, "the file became shorter while it was read")
        parts.append(part)
        at, size = at + len(part), size - len(part)
    return b"".join(parts)
