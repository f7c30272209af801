"""Decoding in a process apart: a file that crashes, stalls or swells its decoder is refused.

The child is given the file's bytes and opens none itself; it lives on for the next file.
"""

from __future__ import annotations

import atexit
import functools
import math
import threading
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..errors import PictureError
from ..sandbox import Sandbox, StoppedError
from . import reader
from .limits import LIMITS, Limits
from .picture import Picture

_T = TypeVar("_T")

_KINDS = ("uint8", "uint16", "float32")
_WORDS = 256 << 20
"""Bytes of metadata that one picture may bring, at most."""


class Decoder:
    """Decodes pictures in children of this process, one for each thread that asks at once.

    Args:
        limits: Of each file. The time may be raised by `input` alone: a child that is given more
            pixels to decode is given no more seconds.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._idle: list[Sandbox] = []
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin to start a child, so that the first file does not wait for it."""
        self._done(self._free(started=True))

    def decode(self, data: bytes, name: str = "the picture") -> Picture:
        """As `reader.decode`, apart.

        Raises:
            PictureError: As `reader.decode`; or its decoder was stopped.
        """
        return self._asked("decode", data, name, lambda said, given: _unpacked(said, given))

    def shape_of(self, data: bytes, name: str = "the picture") -> tuple[int, int]:
        """(height, width) as shown, by the header alone.

        Raises:
            PictureError: As `reader.shape_of`; or its decoder was stopped.
        """
        return self._asked("shape", data, name, lambda said, _: (said["height"], said["width"]))

    def read(self, path: Path | str) -> Picture:
        """As `reader.read`, apart.

        Raises:
            PictureError: As `decode`.
        """
        return self.decode(reader.read_bytes(path), str(path))

    def close(self) -> None:
        """End the children that nobody uses now."""
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.close()

    def _asked(
        self,
        what: str,
        data: bytes,
        name: str,
        made: Callable[[dict[str, Any], list[bytearray]], _T],
    ) -> _T:
        limits, child = self.limits, self._free()
        request = {"what": what, "name": name, "limits": asdict(limits)}
        # Samples of at most four channels in float32, then what a file says besides.
        most = 16 * limits.input + _WORDS
        try:
            said, given = child.call(request, [data], seconds=limits.seconds, most=most)
            return made(said, given)
        except StoppedError as error:
            raise PictureError(f"{name}: it {error}.") from None
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, PictureError):
                raise
            child.close()
            raise PictureError(f"{name}: its decoder gave no picture.") from None
        finally:
            self._done(child)

    def _free(self, started: bool = False) -> Sandbox:
        with self._lock:
            child = self._idle.pop() if self._idle else None
        if child is None:
            memory = self.limits.memory
            child = Sandbox(f"{__name__}:answer", warm=f"{__name__}:warm", memory=memory)
        if started:
            child.start()
        return child

    def _done(self, child: Sandbox) -> None:
        with self._lock:
            self._idle.append(child)


@functools.cache
def decoder(limits: Limits = LIMITS) -> Decoder:
    """The Decoder of this process for these limits; its children are shared by all who ask."""
    made = Decoder(limits)
    atexit.register(made.close)
    return made


# In the child.


def answer(
    request: dict[str, Any], buffers: list[bytearray]
) -> tuple[dict[str, Any], list[memoryview | bytes]]:
    """What a Decoder asks for."""
    limits = Limits(**request["limits"])
    data, name = bytes(buffers[0]), request["name"]
    buffers.clear()
    if request["what"] == "shape":
        height, width = reader.shape_in(data, name, limits)
        return {"height": height, "width": width}, []
    return _packed(reader.decode(data, name, limits))


def warm() -> None:
    """Load what decoding loads at its first picture of each format."""
    from .writer import encode

    small = Picture(np.zeros((16, 16, 3), np.uint8))
    for format in ("png", "jpeg", "tiff", "webp", "avif"):
        reader.decode(encode(small, format))


def _packed(picture: Picture) -> tuple[dict[str, Any], list[memoryview | bytes]]:
    """A picture as JSON and buffers: arrays and bytes are told by the number of their buffer."""
    given: list[memoryview | bytes] = []

    def kept(data: memoryview | bytes) -> int:
        given.append(data)
        return len(given) - 1

    said: dict[str, Any] = {}
    for field in fields(Picture):
        value = getattr(picture, field.name)
        if isinstance(value, np.ndarray):
            array = np.ascontiguousarray(value)
            value = {"kind": array.dtype.name, "shape": array.shape, "at": kept(array.data)}
        elif isinstance(value, bytes):
            value = {"at": kept(value)}
        elif field.name == "carried":
            value = [[kind, kept(data)] for kind, data in value]
        said[field.name] = value
    return said, given


def _unpacked(said: dict[str, Any], given: list[bytearray]) -> Picture:
    """What `_packed` packed. The child is not believed: what does not fit raises ValueError."""
    values = {field.name: said[field.name] for field in fields(Picture)}
    for name in ("pixels", "alpha"):
        told = values[name]
        if told is not None:
            shape = tuple(told["shape"])
            if told["kind"] not in _KINDS or not all(type(n) is int and n > 0 for n in shape):
                raise ValueError(name)
            array = np.frombuffer(given[told["at"]], told["kind"])
            if array.size != math.prod(shape):
                raise ValueError(name)
            values[name] = array.reshape(shape)
    for name in ("icc", "exif", "xmp", "iptc"):
        if values[name] is not None:
            values[name] = bytes(given[values[name]["at"]])
    values["carried"] = tuple((str(kind), bytes(given[at])) for kind, at in values["carried"])
    values["notes"] = tuple(str(note) for note in values["notes"])
    values["dpi"] = None if values["dpi"] is None else tuple(map(float, values["dpi"]))
    for name in ("orientation", "frames", "bits"):
        values[name] = int(values[name])
    return Picture(**values)
