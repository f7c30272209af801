"""The one door through which pictures come in.

The format is chosen by a file's first bytes from an allow-list, never by its name; the decoder
sees samples only (`containers`), a header that promises too much is refused before it runs, and
damage is a refusal in one line, never a picture with an invented half.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import CheckError, PictureError
from . import endings, libheif, pieces, scratch, tags, twelve_bit
from .containers import Survey, sniff, survey
from .floats import Span
from .libvips import pyvips, reason, turns
from .limits import LIMITS, Limits
from .picture import Picture
from .pieces import Data, Pieces
from .samples import JUNK, LOADERS, load, only_junk, samples_of
from .spaces import as_rgb_or_gray, fitting_profile, to_rgb_or_gray

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".tif", ".tiff", ".webp"}
SUFFIXES |= {".gif", ".avif", ".heic", ".heif", ".hif", ".bmp", ".svg", ".jxl", ".jp2"}
"""What people call pictures; some of these can only be refused, but never overlooked."""


def read(path: Path | str, limits: Limits = LIMITS) -> Picture:
    """Read a picture file, in this process; `apart` does it in another.

    Raises:
        PictureError: It cannot be read, or is not a picture that relume can keep whole; one line
            with the file, the reason, and what to do.
    """
    return decode(read_bytes(path), str(path), limits)


def read_bytes(path: Path | str) -> bytes:
    """A file's bytes.

    Raises:
        PictureError: It is not there, is no file (a folder, a pipe, a device), or may not be read.
    """
    try:
        with _opened(path) as file:
            return file.read()
    except OSError as error:
        raise PictureError(f"{path}: {error.strerror or error}.") from error
    except MemoryError:
        raise PictureError(f"{path}: there is not enough memory to read it.") from None


def contents(path: Path | str) -> Data:
    """A file's bytes; a large one is not held.

    Raises:
        PictureError: As `read_bytes`.
    """
    try:
        with _opened(path) as file:
            if hasattr(os, "pread") and os.fstat(file.fileno()).st_size >= pieces.LARGE:
                return Pieces(file)
            return file.read()
    except OSError as error:
        raise PictureError(f"{path}: {error.strerror or error}.") from error


def _opened(path: Path | str) -> BinaryIO:
    """A file, open. A pipe would never end to be waited for, nor a device to be read.

    Raises:
        OSError: It cannot be opened.
        PictureError: It is something else than a file.
    """
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise PictureError(f"{path}: it is {kind}, not a file.")
    return os.fdopen(fd, "rb")


def decode(data: bytes, name: str = "the picture", limits: Limits = LIMITS) -> Picture:
    """A picture from a file's bytes; `name` is what messages call it.

    Of several frames or pages this is the first; `frames` tells how many there are, and the
    caller decides whether that is a refusal.

    Raises:
        PictureError: As `read`.
    """
    with _named(name):
        return _decode(_surveyed(data, limits))


def surveyed(data: bytes, name: str, limits: Limits = LIMITS) -> Survey:
    """What a file says of itself, before its samples are decoded.

    Args:
        data: Bytes, or a mapped file.

    Raises:
        PictureError: As `read`, for what the header shows.
    """
    with _named(name):
        return _surveyed(data, limits)


def decoded(found: Survey, name: str) -> Picture:
    """The picture that was surveyed, whole.

    Raises:
        PictureError: As `read`.
    """
    with _named(name):
        return _decode(found)


@dataclass(frozen=True, eq=False)
class Strip:
    """Rows of a large picture as they lie in its file, before it is turned.

    Attributes:
        top: The first row.
        shape: (H, W, C) of the whole, alpha among C.
        samples: (h, W, C).
    """

    top: int
    shape: tuple[int, int, int]
    samples: np.ndarray


def comes_in_strips(found: Survey, large: int) -> bool:
    """Whether a picture has about `large` bytes of samples or more, in a format that gives them
    row by row."""
    size = 3 * found.width * found.height * (-(-found.bits // 8))
    packed = found.format == "tiff" and found.bits == 12
    return size >= large and found.format in ("jpeg", "png", "tiff") and not packed


def strips(found: Survey, name: str) -> Generator[Strip, None, dict[str, Any]]:
    """The picture that was surveyed, a strip at a time, from top to bottom; it may begin again.

    Returns:
        What a Picture holds besides pixels and alpha.

    Raises:
        PictureError: As `read`; at any strip.
    """
    with _named(name):
        return (yield from _strips(found))


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except PictureError as error:
        raise PictureError(f"{name}: {error}.") from error
    except MemoryError as error:
        raise PictureError(f"{name}: there is not enough memory to decode it.") from error


def verify(path: Path, format: str, shape: tuple[int, ...]) -> None:
    """See that a file that was just written decodes to the end, to a picture of (height, width).

    Raises:
        CheckError: It does not.
    """
    options: dict[str, Any] = {"access": "sequential", "fail_on": "warning"}
    shrink = 8 if format == "jpeg" and min(shape[:2]) >= 8 else 1
    if shrink > 1:
        options["shrink"] = shrink  # reads every coefficient, and transforms a few
    try:
        with turns.shared():
            image = LOADERS[format](str(path), **options)
            found = (image.height, image.width)
            if format == "tiff":  # its strips are read as they are asked for
                image.avg()
            else:
                image.crop(0, image.height - 1, 1, 1).avg()
    except pyvips.Error as error:
        raise CheckError(f"what was written does not decode ({reason(error)}).") from error
    if any(abs(n * shrink - side) >= shrink for n, side in zip(found, shape, strict=False)):
        raise CheckError(f"what was written decodes to {found}, not {shape[:2]}.")


def is_image(path: Path | str) -> bool:
    """Whether a file's suffix or first bytes are an image's. False for what cannot be opened."""
    path = Path(path)
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with _opened(path) as file:
            return sniff(file.read(64)) is not None
    except (OSError, PictureError):
        return False


def format_of(path: Path | str) -> str | None:
    """The format that a file's first bytes show, or None; its name is not asked.

    Raises:
        PictureError: It cannot be opened.
    """
    try:
        with _opened(path) as file:
            return sniff(file.read(64))
    except OSError as error:
        raise PictureError(f"{path}: {error.strerror or error}.") from error


def shape_of(path: Path | str) -> tuple[int, int]:
    """(height, width) of a picture as shown, from the header alone.

    Raises:
        PictureError: As `read`, for what the header shows.
    """
    return shape_in(read_bytes(path), str(path))


def shape_in(data: bytes, name: str = "the picture", limits: Limits = LIMITS) -> tuple[int, int]:
    """(height, width) as shown, from the header in a file's bytes.

    Raises:
        PictureError: As `shape_of`.
    """
    try:
        found = _surveyed(data, limits, checked=False)
    except PictureError as error:
        raise PictureError(f"{name}: {error}.") from error
    turned = found.orientation >= 5
    return (found.width, found.height) if turned else (found.height, found.width)


def _surveyed(data: bytes, limits: Limits, checked: bool = True) -> Survey:
    if not data:
        raise PictureError("it is empty")
    format = sniff(data[:64])
    if format is None:
        raise PictureError(
            "it is not a picture that relume reads (JPEG, PNG, TIFF, WebP, GIF, AVIF)"
        )
    if format == "png" and len(data) >= 24:  # before its checksums are worked out
        limits.check_input(*struct.unpack_from(">II", data, 16))
    # A file too large to be held lacks nothing, or is refused.
    ended = endings.png(data) if format == "png" and checked and isinstance(data, bytes) else data
    found = survey(ended, format, checked=checked)
    if ended is not data:
        found.notes.append("the end of the PNG is missing, and what metadata stood there")
    if format in ("avif", "heif"):
        libheif.ask(found)
    limits.check_input(found.width, found.height)
    if found.width < 1 or found.height < 1:
        raise PictureError("its header gives it no size")
    return found


def _decode(found: Survey) -> Picture:
    _check_depth(found)
    converted, samples = False, twelve_bit.unpacked(found)
    notes = found.notes
    if found.format == "tiff" and (copies := _small_copies(found.samples)):
        notes.append(f"{copies} small copies of the picture in the TIFF dropped")
    if samples is None:
        image, samples = samples_of(found)
        if samples.shape[:2] != (found.height, found.width):
            raise PictureError(
                f"its header promises {found.width} x {found.height} pixels, it decodes to "
                f"{samples.shape[1]} x {samples.shape[0]}"
            )
        if found.format == "gif":
            found.frames = image.get("n-pages") if image.get_typeof("n-pages") else 1
        samples, converted = as_rgb_or_gray(image, samples, found, notes)
    if samples.dtype == np.float64:
        samples = samples.astype(np.float32)
        notes.append(_NARROWED)
    _check_kind(samples.dtype, samples.shape[2])
    if samples.dtype == np.float32:
        span = Span()
        span.take(samples)
        span.note(notes)
    return as_shown(samples, _said(found, samples.shape[2], converted, notes))


def as_shown(samples: np.ndarray, said: Mapping[str, Any]) -> Picture:
    """The picture of samples (H, W, C) as they lie in a file, turned, and what the file said."""
    samples = turned(samples, said["orientation"])
    if samples.shape[2] in (1, 3):
        return Picture(scratch.contiguous(samples), **said)
    pixels, alpha = samples[..., :-1], samples[..., -1]
    return Picture(scratch.contiguous(pixels), scratch.contiguous(alpha), **said)


def _said(found: Survey, channels: int, converted: bool, notes: list[str]) -> dict[str, Any]:
    """What a Picture holds besides pixels and alpha."""
    if channels in (2, 4) and found.premultiplied:  # libvips has already divided by it
        notes.append("premultiplied alpha is written straight")
    colours = 3 if channels > 2 else 1
    return {
        "format": found.format,
        "icc": None if converted else fitting_profile(found.icc, colours, notes),
        "exif": found.exif,
        "xmp": found.xmp,
        "iptc": found.iptc,
        "dpi": found.dpi,
        "orientation": found.orientation,
        "frames": found.frames,
        "quality": found.quality,
        "subsampling": found.subsampling,
        "bits": found.bits,
        "notes": tuple(notes),
        "carried": tuple(found.carried),
    }


def _check_depth(found: Survey) -> None:
    if found.format == "jpeg" and found.bits != 8:
        raise PictureError(f"it is a {found.bits}-bit JPEG; save it as a 16-bit TIFF or PNG first")


def _check_kind(kind: np.dtype, channels: int) -> None:
    if kind not in (np.uint8, np.uint16, np.float32):
        raise PictureError(
            f"its samples are {kind}; save it with 8 or 16 bits or 32-bit float first"
        )
    if channels > 4:
        raise PictureError(f"it has {channels} channels; save it as gray or RGB first")


def _strips(found: Survey) -> Generator[Strip, None, dict[str, Any]]:
    _check_depth(found)
    try:
        return (yield from _strips_of(found, "warning", list(found.notes)))
    except pyvips.Error as error:
        only_junk(error)
    try:
        notes = [*found.notes, JUNK]
        return (yield from _strips_of(found, "error", notes))
    except pyvips.Error as error:
        raise PictureError(f"it cannot be decoded ({reason(error)})") from error


def _strips_of(
    found: Survey, fail_on: str, notes: list[str]
) -> Generator[Strip, None, dict[str, Any]]:
    image = load(found, fail_on)
    if image.coding != "none":
        image = image.colourspace("lab")
    image, converted = to_rgb_or_gray(image, image, found, notes)
    if image.format == "double":
        image = image.cast("float")
        notes.append(_NARROWED)
    kind = np.dtype(_KINDS.get(image.format, image.format))
    height, width, channels = image.height, image.width, image.bands
    _check_kind(kind, channels)
    span, region = Span(), pyvips.Region.new(image)
    step = max(1, scratch.STRIP // (width * channels * kind.itemsize))
    for top in range(0, height, step):
        rows = min(step, height - top)
        samples = np.frombuffer(region.fetch(0, top, width, rows), kind)
        samples = samples.reshape(rows, width, channels)
        if kind == np.float32:
            span.take(samples)
        yield Strip(top, (height, width, channels), samples)
    if kind == np.float32:
        span.note(notes)
    return _said(found, channels, converted, notes)


def _small_copies(data: bytes) -> int:
    """Pages and pages below the first that are marked as reduced copies (pyramids, previews)."""
    order, pages = tags.byte_order(data) or "<", tags.directories(data)
    below = pages[0].entries.get(330)
    return sum(page.number(254, order) & 1 for page in pages) + (below.count if below else 0)


def turned(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Samples (H, W, C) as shown, for EXIF orientation 1 to 8 (CIPA DC-008, 4.6.4)."""
    if orientation >= 5:
        samples = samples.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    return samples


_KINDS = {"uchar": "uint8", "ushort": "uint16", "float": "float32", "char": "int8"}
_KINDS |= {"short": "int16", "uint": "uint32", "int": "int32"}
_NARROWED = "64-bit float samples became 32-bit"
