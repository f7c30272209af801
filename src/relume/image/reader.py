"""The one door through which pictures come in.

The format is chosen by a file's first bytes from an allow-list, never by its name; the decoder
sees samples only (`containers`), a header that promises too much is refused before it runs, and
damage is a refusal in one line, never a picture with an invented half.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import os
import re
import stat
import struct
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import CheckError, PictureError
from . import endings, pieces, planes, scratch, tags
from .containers import Survey, sniff, survey
from .libvips import pyvips, reason, turns
from .limits import LIMITS, Limits
from .picture import Picture
from .pieces import PIECE, Data, Pieces, let_go

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
            image = _LOADERS[format](str(path), **options)
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
        _ask_libheif(found)
    limits.check_input(found.width, found.height)
    if found.width < 1 or found.height < 1:
        raise PictureError("its header gives it no size")
    return found


def _decode(found: Survey) -> Picture:
    _check_depth(found)
    converted, samples = False, _twelve_bit(found)
    notes = found.notes
    if found.format == "tiff" and (copies := _small_copies(found.samples)):
        notes.append(f"{copies} small copies of the picture in the TIFF dropped")
    if samples is None:
        image, samples = _samples(found)
        if samples.shape[:2] != (found.height, found.width):
            raise PictureError(
                f"its header promises {found.width} x {found.height} pixels, it decodes to "
                f"{samples.shape[1]} x {samples.shape[0]}"
            )
        if found.format == "gif":
            found.frames = image.get("n-pages") if image.get_typeof("n-pages") else 1
        samples, converted = _as_rgb_or_gray(image, samples, found, notes)
    if samples.dtype == np.float64:
        samples = samples.astype(np.float32)
        notes.append(_NARROWED)
    _check_kind(samples.dtype, samples.shape[2])
    if samples.dtype == np.float32:
        span = _Span()
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
        "icc": None if converted else _profile(found.icc, colours, notes),
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
        _only_junk(error)
    try:
        notes = [*found.notes, _JUNK]
        return (yield from _strips_of(found, "error", notes))
    except pyvips.Error as error:
        raise PictureError(f"it cannot be decoded ({reason(error)})") from error


def _strips_of(
    found: Survey, fail_on: str, notes: list[str]
) -> Generator[Strip, None, dict[str, Any]]:
    image = _load(found, fail_on)
    if image.coding != "none":
        image = image.colourspace("lab")
    image, converted = _to_rgb_or_gray(image, image, found, notes)
    if image.format == "double":
        image = image.cast("float")
        notes.append(_NARROWED)
    kind = np.dtype(_KINDS.get(image.format, image.format))
    height, width, channels = image.height, image.width, image.bands
    _check_kind(kind, channels)
    span, region = _Span(), pyvips.Region.new(image)
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


def _load(found: Survey, fail_on: str) -> Any:
    options: dict[str, Any] = {"fail_on": fail_on, "access": "sequential"}
    if found.format in ("avif", "heif"):
        options["autorotate"] = True  # here turning is part of decoding, by boxes
    loaders: dict[str, Any] = {
        "jpeg": pyvips.Image.jpegload_buffer,
        "png": pyvips.Image.pngload_buffer,
        "tiff": pyvips.Image.tiffload_buffer,
        "webp": pyvips.Image.webpload_buffer,
        "gif": pyvips.Image.gifload_buffer,
        "avif": pyvips.Image.heifload_buffer,
        "heif": pyvips.Image.heifload_buffer,
    }
    if not isinstance(found.data, bytes):
        streams: dict[str, Any] = {
            "jpeg": pyvips.Image.jpegload_source,
            "png": pyvips.Image.pngload_source,
            "tiff": pyvips.Image.tiffload_source,
        }
        if found.format in streams:
            found.source = _Spans(found).source()
            return streams[found.format](found.source, **options)
    return loaders[found.format](found.samples, **options)


class _Spans:
    """The samples of a mapped file, for libvips to read from and to seek in."""

    def __init__(self, found: Survey) -> None:
        self.data, self.at = found.data, 0
        self.spans = found.spans or [(0, len(found.data))]
        self.starts = [0, *itertools.accumulate(end - start for start, end in self.spans)]

    def source(self) -> Any:
        source: Any = pyvips.SourceCustom()
        source.on_read(self.read)
        source.on_seek(self.seek)
        return source

    def read(self, size: int) -> bytes:
        index = bisect.bisect_right(self.starts, self.at) - 1
        if index >= len(self.spans):
            return b""
        start, end = self.spans[index]
        start += self.at - self.starts[index]
        read = self.data[start : min(end, start + size)]
        before, self.at = self.at, self.at + len(read)
        if before // PIECE != self.at // PIECE:
            let_go(self.data)
        return read

    def seek(self, offset: int, whence: int) -> int:
        base = (0, self.at, self.starts[-1])[whence]
        self.at = max(0, base + offset)
        return self.at


def _samples(found: Survey) -> tuple[Any, np.ndarray]:
    """The decoder's image and its samples (H, W, C).

    Junk between JPEG markers is the one warning that costs nothing: every decoder steps over it.
    """
    if found.format == "tiff" and planes.separate(found.samples):
        return _samples_in_planes(found.samples)
    try:
        with turns.shared():
            image = _load(found, "warning")
            return image, _array(image)
    except pyvips.Error:
        pass
    with turns.alone():
        return _samples_alone(found)


def _samples_alone(found: Survey) -> tuple[Any, np.ndarray]:
    try:
        image = _load(found, "warning")
        return image, _array(image)
    except pyvips.Error as error:
        if found.format == "tiff" and _in_a_circle(found.samples):
            return _samples_unchained(found)
        warnings = set(re.findall(r"VipsJpeg: (.*)", str(error)))
        if warnings == {"premature end of JPEG image"} and endings.one_scan(found.samples):
            return _samples_ended(found)
        _only_junk(error)
    try:
        image = _load(found, "error")
        found.notes.append(_JUNK)
        return image, _array(image)
    except pyvips.Error as error:
        raise PictureError(f"it cannot be decoded ({reason(error)})") from error


def _in_a_circle(data: bytes) -> bool:
    """Whether the last page of a TIFF leads back to one before it."""
    order, pages = tags.byte_order(data), tags.directories(data)
    return (
        order is not None
        and len(pages) > 0
        and pages[-1].next in {tags.first_offset(data, order), *(page.next for page in pages[:-1])}
    )


def _samples_unchained(found: Survey) -> tuple[Any, np.ndarray]:
    """Of the first page, without the chain that goes in a circle."""
    alone = bytearray(found.samples)
    at = tags.directories(found.samples, limit=1)[0].next_at
    alone[at : at + 4] = bytes(4)
    try:
        image = pyvips.Image.tiffload_buffer(bytes(alone), fail_on="warning")
        samples = _array(image)
    except pyvips.Error as error:
        raise PictureError(f"it cannot be decoded ({reason(error)})") from error
    found.notes.append("its pages go in a circle; each was taken once")
    return image, samples


def _samples_in_planes(data: bytes) -> tuple[Any, np.ndarray]:
    image: Any = None
    parts: list[np.ndarray] = []
    for plane in planes.each(data):
        try:
            with turns.shared():
                image = pyvips.Image.tiffload_buffer(plane, fail_on="warning")
                parts.append(_array(image))
        except pyvips.Error as error:
            raise PictureError(f"it cannot be decoded ({reason(error)})") from error
    return image, np.concatenate(parts, axis=2)


def _samples_ended(found: Survey) -> tuple[Any, np.ndarray]:
    """Of a JPEG that lacks nothing but its end marker: then it does not matter what follows.

    The decoder's warning cannot be asked: libvips 8.18 does not see that of the last rows.
    """
    image: Any = None
    seen: list[np.ndarray] = []
    try:
        for follows in (b"", *(bytes((value,)) * 64 for value in (0x00, 0x55, 0xAA, 0xD6))):
            data = found.samples + follows + b"\xff\xd9"
            image = pyvips.Image.jpegload_buffer(data, fail_on="error")
            seen.append(_array(image))
    except pyvips.Error as error:
        raise PictureError("it cannot be decoded (premature end of JPEG image)") from error
    if not all(np.array_equal(samples, seen[0]) for samples in seen):
        raise PictureError("it cannot be decoded (premature end of JPEG image)")
    found.notes.append("the end marker of the JPEG is missing, and nothing else")
    return image, seen[0]


def _only_junk(error: pyvips.Error) -> None:
    """Raise PictureError of what libvips said, unless it was of junk between JPEG markers."""
    text = str(error)
    if "HEVC" in text:
        raise PictureError(
            "its HEVC compression needs a decoder that relume does not ship; export it as "
            "JPEG or PNG first"
        ) from error
    warnings = re.findall(r"VipsJpeg: (.*)", text)
    harmless = [w for w in warnings if "extraneous bytes before marker" in w]
    if not warnings or len(harmless) < len(warnings):
        raise PictureError(f"it cannot be decoded ({reason(error)})") from error


def _array(image: Any) -> np.ndarray:
    if image.coding != "none":
        image = image.colourspace("lab")
    return image.numpy().reshape(image.height, image.width, image.bands)


def _twelve_bit(found: Survey) -> np.ndarray | None:
    """Packed 12-bit gray, which scanners write and libvips does not read, over 16 bits' range."""
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


def _small_copies(data: bytes) -> int:
    """Pages and pages below the first that are marked as reduced copies (pyramids, previews)."""
    order, pages = tags.byte_order(data) or "<", tags.directories(data)
    below = pages[0].entries.get(330)
    return sum(page.number(254, order) & 1 for page in pages) + (below.count if below else 0)


def _ask_libheif(found: Survey) -> None:
    try:
        with turns.shared():
            image = _load(found, "warning")
    except pyvips.Error as error:
        raise PictureError(f"it cannot be decoded ({reason(error)})") from error
    found.width, found.height = image.width, image.height
    fields = set(image.get_fields())
    found.frames = image.get("n-pages") if "n-pages" in fields else 1
    found.bits = image.get("bits-per-sample") if "bits-per-sample" in fields else 8
    for name in ("icc", "exif", "xmp"):
        field = {"icc": "icc-profile-data"}.get(name, f"{name}-data")
        if field in fields:
            setattr(found, name, bytes(image.get(field)))
    found.exif = found.exif.removeprefix(b"Exif\0\0") if found.exif else None
    found.quality = 90


def _as_rgb_or_gray(
    image: Any, samples: np.ndarray, found: Survey, notes: list[str]
) -> tuple[np.ndarray, bool]:
    """CMYK and Lab become sRGB, through the file's own profile where it has one."""
    space = str(image.interpretation)
    if space not in _OTHER_SPACES:
        return samples, False
    image, _ = _to_rgb_or_gray(image, _from_array(samples, space), found, notes)
    try:
        return image.numpy(), True
    except pyvips.Error as error:
        raise _not_rgb(space, error) from None


def _to_rgb_or_gray(image: Any, samples: Any, found: Survey, notes: list[str]) -> tuple[Any, bool]:
    """The same of samples that libvips holds; `image` tells what they are."""
    space = str(image.interpretation)
    if space not in _OTHER_SPACES:
        return samples, False
    depth = 16 if image.format in ("ushort", "short", "float") else 8
    # Press black is not screen black: without compensation pictures come out gray.
    options: dict[str, Any] = {"depth": depth, "intent": "perceptual"}
    options["black_point_compensation"] = True
    try:
        if space == "cmyk":
            if found.icc and found.icc[16:20] == b"CMYK":
                samples = samples.copy()
                samples.set_type(pyvips.GValue.blob_type, "icc-profile-data", found.icc)
                samples = samples.icc_transform("srgb", embedded=True, **options)
                how = "through its profile"
            else:
                samples = samples.icc_transform("srgb", input_profile="cmyk", **options)
                how = "through a generic press profile"
        else:
            samples = samples.colourspace("rgb16" if depth == 16 else "srgb")
            how = "by CIE formulas"
    except pyvips.Error as error:
        raise _not_rgb(space, error) from None
    notes.append(f"{space.upper()} became sRGB {how}")
    return samples, True


def _not_rgb(space: str, error: pyvips.Error) -> PictureError:
    return PictureError(f"its {space.upper()} colours cannot become RGB ({reason(error)})")


def _from_array(samples: np.ndarray, space: str) -> Any:
    return pyvips.Image.new_from_array(samples, interpretation=space)


def _profile(icc: bytes | None, channels: int, notes: list[str]) -> bytes | None:
    """The profile, where it is one and speaks of these channels."""
    if icc is None:
        return None
    sound = len(icc) >= 132 and icc[36:40] == b"acsp" and int.from_bytes(icc[:4], "big") <= len(icc)
    if not sound:
        notes.append("damaged ICC profile dropped")
        return None
    # A gray picture may carry the RGB profile of the camera that took it.
    if icc[16:20] not in ((b"GRAY", b"RGB ") if channels == 1 else (b"RGB ",)):
        told = re.sub(r"[^ -~]", "?", icc[16:20].decode("latin-1")).strip()
        notes.append(f"ICC profile dropped: it is for {told}, the picture is not")
        return None
    return icc


class _Span:
    """From where to where float samples run, and how many lie outside [0, 1]."""

    def __init__(self) -> None:
        self.low, self.high, self.outside, self.size = np.inf, -np.inf, 0, 0

    def take(self, samples: np.ndarray) -> None:
        """Count samples.

        Raises:
            PictureError: One is not finite.
        """
        low, high = float(samples.min()), float(samples.max())
        if not np.isfinite(high - low):
            raise PictureError(
                "it holds samples that are not finite (NaN or infinity); mend them first"
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        if low < 0 or high > 1:
            self.outside += int(((samples < 0) | (samples > 1)).sum())
        self.size += samples.size

    def note(self, notes: list[str]) -> None:
        """Announce what lies outside.

        Raises:
            PictureError: Most of it does.
        """
        if not self.outside:
            return
        outside, low, high = self.outside / self.size, self.low, self.high
        if outside > 0.5:
            raise PictureError(
                f"its float samples run from {low:.4g} to {high:.4g}; scale them to 0..1 first"
            )
        notes.append(
            f"float samples outside 0..1 ({outside:.1%}, range {low:.4g} to {high:.4g}) keep their "
            "excess"
        )


def turned(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Samples (H, W, C) as shown, for EXIF orientation 1 to 8 (CIPA DC-008, 4.6.4)."""
    if orientation >= 5:
        samples = samples.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    return samples


_LOADERS: dict[str, Any] = {
    "jpeg": pyvips.Image.jpegload,
    "png": pyvips.Image.pngload,
    "tiff": pyvips.Image.tiffload,
    "webp": pyvips.Image.webpload,
    "avif": pyvips.Image.heifload,
}

_KINDS = {"uchar": "uint8", "ushort": "uint16", "float": "float32", "char": "int8"}
_KINDS |= {"short": "int16", "uint": "uint32", "int": "int32"}
_OTHER_SPACES = ("cmyk", "lab", "labs", "labq", "xyz")
_JUNK = "junk bytes inside the JPEG were passed over"
_NARROWED = "64-bit float samples became 32-bit"
