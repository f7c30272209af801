"""The one door through which pictures come in.

The format is chosen by a file's first bytes from an allow-list, never by its name; the decoder
sees samples only (`containers`), a header that promises too much is refused before it runs, and
damage is a refusal in one line, never a picture with an invented half.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import CheckError, PictureError
from . import tags
from .containers import Survey, sniff, survey
from .libvips import pyvips, reason
from .limits import LIMITS, Limits
from .picture import Picture

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
    try:
        return _decode(data, limits)
    except PictureError as error:
        raise PictureError(f"{name}: {error}.") from error
    except MemoryError as error:
        raise PictureError(f"{name}: there is not enough memory to decode it.") from error


def verify(path: Path, shape: tuple[int, int]) -> None:
    """See that a file that was just written decodes to the end, to a picture of (height, width).

    Raises:
        CheckError: It does not.
    """
    try:
        image = pyvips.Image.new_from_file(str(path), access="sequential", fail_on="warning")
        image.avg()  # asks for every row, and holds a few
    except pyvips.Error as error:
        raise CheckError(f"what was written does not decode ({reason(error)}).") from error
    if (image.height, image.width) != shape:
        raise CheckError(
            f"what was written decodes to {image.height} x {image.width} pixels, not "
            f"{shape[0]} x {shape[1]}."
        )


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
    found = survey(data, format, checked=checked)
    if format in ("avif", "heif"):
        _ask_libheif(found)
    limits.check_input(found.width, found.height)
    if found.width < 1 or found.height < 1:
        raise PictureError("its header gives it no size")
    return found


def _decode(data: bytes, limits: Limits) -> Picture:
    found = _surveyed(data, limits)
    if found.format == "jpeg" and found.bits != 8:
        raise PictureError(f"it is a {found.bits}-bit JPEG; save it as a 16-bit TIFF or PNG first")
    converted, samples = False, _twelve_bit(found)
    notes = found.notes
    if samples is None:
        image, samples = _samples(found)
        if found.format == "gif":
            found.frames = image.get("n-pages") if image.get_typeof("n-pages") else 1
        samples, converted = _as_rgb_or_gray(image, samples, found, notes)
    if samples.dtype == np.float64:
        samples = samples.astype(np.float32)
        notes.append("64-bit float samples became 32-bit")
    if samples.dtype not in (np.uint8, np.uint16, np.float32):
        raise PictureError(
            f"its samples are {samples.dtype}; save it with 8 or 16 bits or 32-bit float first"
        )
    channels = samples.shape[2]
    if channels > 4:
        raise PictureError(f"it has {channels} channels; save it as gray or RGB first")
    if samples.dtype == np.float32 and not np.isfinite(samples).all():
        raise PictureError(
            "it holds samples that are not finite (NaN or infinity); mend them first"
        )
    if samples.dtype == np.float32:
        _note_range(samples, notes)
    samples = _turned(samples, found.orientation)
    pixels, alpha = samples, None
    if channels in (2, 4):
        pixels, alpha = samples[..., :-1], np.ascontiguousarray(samples[..., -1])
        if found.premultiplied:  # libvips has already divided by it
            notes.append("premultiplied alpha is written straight")
    return Picture(
        pixels=np.ascontiguousarray(pixels),
        alpha=alpha,
        format=found.format,
        icc=None if converted else _profile(found.icc, pixels.shape[2], notes),
        exif=found.exif,
        xmp=found.xmp,
        iptc=found.iptc,
        dpi=found.dpi,
        orientation=found.orientation,
        frames=found.frames,
        quality=found.quality,
        subsampling=found.subsampling,
        bits=found.bits,
        notes=tuple(notes),
        carried=tuple(found.carried),
    )


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
    return loaders[found.format](bytes(found.samples), **options)


def _samples(found: Survey) -> tuple[Any, np.ndarray]:
    """The decoder's image and its samples (H, W, C).

    Junk between JPEG markers is the one warning that costs nothing: every decoder steps over it.
    """
    try:
        image = _load(found, "warning")
        return image, _array(image)
    except pyvips.Error as error:
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
    try:
        image = _load(found, "error")
        found.notes.append("junk bytes inside the JPEG were passed over")
        return image, _array(image)
    except pyvips.Error as error:
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


def _ask_libheif(found: Survey) -> None:
    try:
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
    if space not in ("cmyk", "lab", "labs", "labq", "xyz"):
        return samples, False
    depth = 16 if image.format in ("ushort", "short", "float") else 8
    # Press black is not screen black: without compensation pictures come out gray.
    options: dict[str, Any] = {"depth": depth, "intent": "perceptual"}
    options["black_point_compensation"] = True
    try:
        if space == "cmyk":
            image = _from_array(samples, "cmyk")
            if found.icc and found.icc[16:20] == b"CMYK":
                image.set_type(pyvips.GValue.blob_type, "icc-profile-data", found.icc)
                image = image.icc_transform("srgb", embedded=True, **options)
                how = "through its profile"
            else:
                image = image.icc_transform("srgb", input_profile="cmyk", **options)
                how = "through a generic press profile"
        else:
            image = _from_array(samples, space)
            image = image.colourspace("rgb16" if depth == 16 else "srgb")
            how = "by CIE formulas"
        array = image.numpy()
    except pyvips.Error as error:
        raise PictureError(
            f"its {space.upper()} colours cannot become RGB ({reason(error)})"
        ) from None
    notes.append(f"{space.upper()} became sRGB {how}")
    return array, True


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


def _note_range(samples: np.ndarray, notes: list[str]) -> None:
    low, high = float(samples.min()), float(samples.max())
    if low < 0 or high > 1:
        outside = float(((samples < 0) | (samples > 1)).mean())
        if outside > 0.5:
            raise PictureError(
                f"its float samples run from {low:.4g} to {high:.4g}; scale them to 0..1 first"
            )
        notes.append(
            f"float samples outside 0..1 ({outside:.1%}, range {low:.4g} to {high:.4g}) keep their "
            "excess"
        )


def _turned(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Samples (H, W, C) as shown, for EXIF orientation 1 to 8 (CIPA DC-008, 4.6.4)."""
    if orientation >= 5:
        samples = samples.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    return samples
