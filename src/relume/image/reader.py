"""The one door through which pictures come in.

The format is chosen by a file's first bytes from an allow-list, never by its name; the decoder
sees samples only (`containers`), a header that promises too much is refused before it runs, and
damage is a refusal in one line, never a picture with an invented half.
"""

from __future__ import annotations

import mmap
import re
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..errors import CheckError, PictureError
from . import endings, planes, tags
from .containers import Survey, sniff, survey
from .libvips import pyvips, reason, turns
from .picture import Picture

MAX_PIXELS = 200_000_000
"""Larger pictures are refused by their header: nothing is allocated for a promise."""

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".tif", ".tiff", ".webp"}
SUFFIXES |= {".gif", ".avif", ".heic", ".heif", ".hif", ".bmp", ".svg", ".jxl", ".jp2"}
"""What people call pictures; some of these can only be refused, but never overlooked."""


def read(path: Path | str) -> Picture:
    """Read a picture file.

    Raises:
        PictureError: It cannot be read, or is not a picture that relume can keep whole; one line
            with the file, the reason, and what to do.
    """
    return decode(read_bytes(path), str(path))


def read_bytes(path: Path | str) -> bytes:
    """A file's bytes.

    Raises:
        PictureError: It is not there, is a folder, or may not be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise PictureError(f"{path}: {error.strerror or error}.") from error


def decode(data: bytes, name: str = "the picture") -> Picture:
    """A picture from a file's bytes; `name` is what messages call it.

    Of several frames or pages this is the first; `frames` tells how many there are, and the
    caller decides whether that is a refusal.

    Raises:
        PictureError: As `read`.
    """
    try:
        return _decode(data)
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
        with path.open("rb") as file:
            return sniff(file.read(64)) is not None
    except OSError:
        return False


def format_of(path: Path | str) -> str | None:
    """The format that a file's first bytes show, or None; its name is not asked.

    Raises:
        PictureError: It cannot be opened.
    """
    try:
        with Path(path).open("rb") as file:
            return sniff(file.read(64))
    except OSError as error:
        raise PictureError(f"{path}: {error.strerror or error}.") from error


def shape_of(path: Path | str) -> tuple[int, int]:
    """(height, width) of a picture as shown, from the header alone.

    Raises:
        PictureError: As `read`, for what the header shows.
    """
    try:
        with (
            Path(path).open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            found = _surveyed(cast(bytes, data), checked=False)
    except PictureError as error:
        raise PictureError(f"{path}: {error}.") from error
    except (OSError, ValueError) as error:  # mmap says ValueError of an empty file
        why = getattr(error, "strerror", None) or "it is empty"
        raise PictureError(f"{path}: {why}.") from error
    turned = found.orientation >= 5
    return (found.width, found.height) if turned else (found.height, found.width)


def _surveyed(data: bytes, checked: bool = True) -> Survey:
    if not data:
        raise PictureError("it is empty")
    format = sniff(data[:64])
    if format is None:
        raise PictureError(
            "it is not a picture that relume reads (JPEG, PNG, TIFF, WebP, GIF, AVIF)"
        )
    ended = endings.png(data) if format == "png" and checked else data
    found = survey(ended, format, checked=checked)
    if ended is not data:
        found.notes.append("the end of the PNG is missing, and what metadata stood there")
    if format in ("avif", "heif"):
        _ask_libheif(found)
    if found.width * found.height > MAX_PIXELS:
        raise PictureError(
            f"its header promises {found.width} x {found.height} pixels, more than "
            f"{MAX_PIXELS // 1_000_000} million; make it smaller first"
        )
    if found.width < 1 or found.height < 1:
        raise PictureError("its header gives it no size")
    return found


def _decode(data: bytes) -> Picture:
    found = _surveyed(data)
    if found.format == "jpeg" and found.bits != 8:
        raise PictureError(f"it is a {found.bits}-bit JPEG; save it as a 16-bit TIFF or PNG first")
    converted, samples = False, _twelve_bit(found)
    notes = found.notes
    if found.format == "tiff" and (copies := _small_copies(data)):
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
    samples = turned(samples, found.orientation)
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
        text = str(error)
        if found.format == "tiff" and _in_a_circle(found.samples):
            return _samples_unchained(found)
        if "HEVC" in text:
            raise PictureError(
                "its HEVC compression needs a decoder that relume does not ship; export it as "
                "JPEG or PNG first"
            ) from error
        warnings = re.findall(r"VipsJpeg: (.*)", text)
        if set(warnings) == {"premature end of JPEG image"} and endings.one_scan(found.samples):
            return _samples_ended(found)
        harmless = [w for w in warnings if "extraneous bytes before marker" in w]
        if not warnings or len(harmless) < len(warnings):
            raise PictureError(f"it cannot be decoded ({reason(error)})") from error
    try:
        image = _load(found, "error")
        found.notes.append("junk bytes inside the JPEG were passed over")
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
