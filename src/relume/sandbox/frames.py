"""What parent and child say to each other: a JSON object, then buffers, each with its length."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

Buffer = bytes | bytearray | memoryview

WORDS = 16 << 20  # bytes of JSON, at most


class BrokenFrameError(Exception):
    """The other side said something that is no frame, or more than was allowed."""


def send(stream: BinaryIO, said: dict[str, Any], buffers: Sequence[Buffer] = ()) -> None:
    """Write one frame.

    Raises:
        OSError: The other side is gone.
    """
    views = [memoryview(buffer).cast("B") for buffer in buffers]
    words = json.dumps({"said": said, "sizes": [len(view) for view in views]}).encode()
    stream.write(struct.pack("<Q", len(words)) + words)
    for view in views:
        stream.write(view)
    stream.flush()


def receive(stream: BinaryIO, most: int) -> tuple[dict[str, Any], list[bytearray]]:
    """Read one frame whose buffers hold no more than `most` bytes together.

    Raises:
        EOFError: The other side is gone, before the frame or in its middle.
        BrokenFrameError: It is none.
    """
    size = struct.unpack("<Q", _exactly(stream, 8))[0]
    if size > WORDS:
        raise BrokenFrameError(f"{size} bytes of words")
    try:
        frame = json.loads(_exactly(stream, size))
        said, sizes = frame["said"], frame["sizes"]
        sound = isinstance(said, dict) and all(type(n) is int and n >= 0 for n in sizes)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BrokenFrameError("no frame") from error
    if not sound or sum(sizes) > most:
        raise BrokenFrameError(f"{sum(sizes) if sound else 'no'} bytes")
    return said, [_exactly(stream, n) for n in sizes]


def _exactly(stream: BinaryIO, size: int) -> bytearray:
    buffer = bytearray(size)
    view, at = memoryview(buffer), 0
    while at < size:
        got = stream.readinto(view[at:])  # type: ignore[attr-defined]
        if not got:
            raise EOFError
        at += got
    return buffer
