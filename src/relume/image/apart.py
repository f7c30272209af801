"""Decoding in a process apart: a file that crashes, stalls or swells its decoder is refused.

The child is given the file's bytes and opens none itself; it lives on for the next file. A file too
large to be held is given as it is, open; a picture too large to be held comes in strips.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import math
import struct
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..errors import PictureError
from ..sandbox import Sandbox, StoppedError
from . import frames, reader, scratch
from .containers import Survey, sniff
from .libvips import pyvips
from .limits import LIMITS, Limits
from .picture import Picture
from .pieces import Data, Pieces, mapped

_T = TypeVar("_T")
_Answer = tuple[dict[str, Any], list[memoryview | bytes]]

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

    def decode(
        self,
        data: Data,
        name: str = "the picture",
        home: Path | None = None,
    ) -> Picture:
        """As `reader.decode`, apart.

        Args:
            home: Where a picture of about `scratch.LARGE` bytes of samples or more may lie, in a
                file without a name; None holds any picture in memory.

        Raises:
            PictureError: As `reader.decode`; or its decoder was stopped.
            OutputError: There is not the room in `home`.
        """
        if home is None:
            return self._asked("decode", data, name, _unpacked)
        strips = _Strips(home, self.limits.input)

        def made(said: dict[str, Any], given: list[bytearray]) -> Picture:
            return _unpacked(said, given, strips.samples)

        return self._asked("decode", data, name, made, strips.take, scratch.LARGE)

    def each(self, data: Data, first: Picture, name: str = "the picture") -> Iterator[Picture]:
        """As `frames.each`, apart: the child decodes a picture of the file when it is asked for.

        Raises:
            PictureError: As `frames.each`; or its decoder was stopped. The limits of time and
                memory are of all pictures together.
        """
        frames.check_together(first, name, self.limits)
        yield from self._parts("each", data, name, _unpacked)

    def timing(self, data: Data, name: str = "the picture") -> frames.Timing:
        """As `frames.timing`, apart.

        Raises:
            PictureError: As `decode`.
        """

        def made(said: dict[str, Any], _: list[bytearray]) -> frames.Timing:
            delays = tuple((int(above), int(below)) for above, below in said["delays"])
            if any(above < 0 or below < 1 for above, below in delays):
                raise ValueError("delays")
            return frames.Timing(delays, int(said["plays"]), bool(said["still"]))

        return self._asked("timing", data, name, made)

    def shape_of(self, data: Data, name: str = "the picture") -> tuple[int, int]:
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
        data: Data,
        name: str,
        made: Callable[[dict[str, Any], list[bytearray]], _T],
        take: Callable[[dict[str, Any], list[bytearray]], None] | None = None,
        large: int = 0,
    ) -> _T:
        with self._child(what, data, name, large) as (child, request, buffers):
            said, given = child.call(
                request, buffers, seconds=self.limits.seconds, most=self._most, take=take
            )
            return made(said, given)

    def _parts(
        self,
        what: str,
        data: Data,
        name: str,
        made: Callable[[dict[str, Any], list[bytearray]], _T],
    ) -> Iterator[_T]:
        with self._child(what, data, name) as (child, request, buffers):
            parts = child.parts(request, buffers, seconds=self.limits.seconds, most=self._most)
            with contextlib.closing(parts):
                for said, given in parts:
                    if "part" in said:
                        yield made(said["part"], given)

    @property
    def _most(self) -> int:
        """Samples of at most four channels in float32, then what a file says besides."""
        return 16 * self.limits.input + _WORDS

    @contextlib.contextmanager
    def _child(
        self, what: str, data: Data, name: str, large: int = 0
    ) -> Iterator[tuple[Sandbox, dict[str, Any], list[bytes]]]:
        """A child, and what it is to be asked; what goes wrong becomes a PictureError."""
        request = {"what": what, "name": name, "limits": asdict(self.limits), "large": large}
        if isinstance(data, bytes):
            child, buffers = self._free(), [data]
        else:
            child, buffers = self._free(file=data), []
            request["file"] = data.fileno()
        try:
            yield child, request, buffers
        except StoppedError as error:
            raise PictureError(f"{name}: it {error}.") from None
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, PictureError):
                raise
            child.close()
            raise PictureError(f"{name}: its decoder gave no picture.") from None
        finally:
            if isinstance(data, bytes):
                self._done(child)
            else:
                child.close()

    def _free(self, started: bool = False, file: Pieces | None = None) -> Sandbox:
        memory, target, ready = self.limits.memory, f"{__name__}:answer", f"{__name__}:warm"
        if file is not None:  # which lies in the child's address space, though not in its memory
            memory += len(file)
            return Sandbox(target, warm=ready, memory=memory, files=[file.fileno()])
        with self._lock:
            child = self._idle.pop() if self._idle else None
        if child is None:
            child = Sandbox(target, warm=ready, memory=memory)
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


class _Strips:
    """Puts strips together in a file, as they come. The child is not believed.

    Args:
        folder: Where the file lies.
        most: Pixels that a picture may have.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self._folder, self._most = folder, most
        self.samples: np.ndarray | None = None

    def take(self, said: dict[str, Any], given: list[bytearray]) -> None:
        height, width, channels = shape = tuple(map(int, said["shape"]))
        kind, top = np.dtype(said["kind"]), int(said["top"])
        rows = np.frombuffer(given[0], kind).reshape(-1, width, channels)
        sound = said["kind"] in _KINDS and 0 < height * width <= self._most and 0 < channels <= 4
        if not sound or not 0 <= top <= height - len(rows):
            raise ValueError("strip")
        if self.samples is None:
            self.samples = scratch.empty(shape, kind, self._folder)
        self.samples[top : top + len(rows)] = rows
        scratch.let_go(self.samples)


# In the child.


def answer(
    request: dict[str, Any], buffers: list[bytearray]
) -> _Answer | Generator[_Answer, None, _Answer]:
    """What a Decoder asks for."""
    limits, name = Limits(**request["limits"]), request["name"]
    data: Any = mapped(request["file"]) if "file" in request else bytes(buffers[0])
    buffers.clear()
    if request["what"] == "shape":
        height, width = reader.shape_in(data, name, limits)
        return {"height": height, "width": width}, []
    if request["what"] in ("each", "timing"):
        held = bytes(data)
        del data
        return _frames(held, name, limits) if request["what"] == "each" else _timed(held, name)
    found = reader.surveyed(data, name, limits)
    del data
    if request["large"] and reader.comes_in_strips(found, request["large"]):
        return _streamed(found, name)
    return _packed(reader.decoded(found, name))


def _streamed(found: Survey, name: str) -> Generator[_Answer, None, _Answer]:
    strips = reader.strips(found, name)
    while True:
        try:
            strip = next(strips)
        except StopIteration as end:
            return _packed(end.value)
        said = {"top": strip.top, "shape": strip.shape, "kind": strip.samples.dtype.name}
        yield said, [strip.samples.data]


def _frames(data: bytes, name: str, limits: Limits) -> Generator[_Answer, None, _Answer]:
    for picture in frames.each(data, reader.decode(data, name, limits), name, limits):
        yield _packed(picture)
    return {}, []


def _timed(data: bytes, name: str) -> _Answer:
    try:
        return asdict(frames.timing(data, sniff(data[:64]) or "")), []
    except (pyvips.Error, struct.error, IndexError, KeyError):
        raise PictureError(f"{name}: how its frames follow cannot be read.") from None


def warm() -> None:
    """Load what decoding loads at its first picture of each format."""
    from .writer import encode

    small = Picture(np.zeros((16, 16, 3), np.uint8))
    for format in ("png", "jpeg", "tiff", "webp", "avif"):
        reader.decode(encode(small, format))


def _packed(picture: Picture | dict[str, Any]) -> _Answer:
    """A picture, or its fields but for the samples, as JSON and buffers: arrays and bytes are told
    by the number of their buffer."""
    given: list[memoryview | bytes] = []

    def kept(data: memoryview | bytes) -> int:
        given.append(data)
        return len(given) - 1

    said: dict[str, Any] = {}
    for field in fields(Picture):
        if isinstance(picture, Picture):
            value = getattr(picture, field.name)
        else:
            value = picture.get(field.name)
        if isinstance(value, np.ndarray):
            array = np.ascontiguousarray(value)
            value = {"kind": array.dtype.name, "shape": array.shape, "at": kept(array.data)}
        elif isinstance(value, bytes):
            value = {"at": kept(value)}
        elif field.name == "carried" and value is not None:
            value = [[kind, kept(data)] for kind, data in value]
        said[field.name] = value
    return said, given


def _unpacked(
    said: dict[str, Any], given: list[bytearray], samples: np.ndarray | None = None
) -> Picture:
    """What `_packed` packed, of samples that came before where they did. The child is not believed:
    what does not fit raises ValueError."""
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
    if samples is not None:
        del values["pixels"], values["alpha"]
        return reader.as_shown(samples, values)
    return Picture(**values)
