"""The one door through which pictures go out: encoded at full fidelity, placed in one step.

A property is kept, or named in what `render` and `write` return. Nothing is ever half written:
bytes go to a temporary file first, and a name is taken only when the file is whole.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from ..errors import OutputError, ShapeError, UsageError, nearest
from . import containers, scratch, tags
from .libvips import pyvips, reason, turns
from .picture import Picture
from .pieces import Data, Pieces, mapped
from .placing import place
from .resize import enlarge, resize_map

__all__ = [
    "FORMATS",
    "MIN_QUALITY",
    "encode",
    "enlarge",
    "losses",
    "place",
    "preview",
    "render",
    "resize_map",
    "suffix_for",
    "write",
    "write_gray16",
]

FORMATS = {
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".jpe": "jpeg",
    ".jfif": "jpeg",
    ".mpo": "jpeg",
    ".png": "png",
    ".apng": "png",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".webp": "webp",
    ".avif": "avif",
}
"""What a suffix asks for. GIF and HEIF are read, not written: a palette, and a patented codec."""

MIN_QUALITY = 90
"""JPEG and its kin are never written below this, nor below the input's own estimate."""


def suffix_for(format: str, suffix: str) -> str:
    """The suffix for a picture of `format` whose file had `suffix`: the same one unless it lied.

    A format that cannot be written becomes PNG.
    """
    written = format if format in FORMATS.values() else "png"
    if FORMATS.get(suffix.lower()) == written:
        return suffix
    return {"jpeg": ".jpg", "tiff": ".tif"}.get(written, f".{written}")


def format_for(path: Path | str) -> str:
    """The format that a path's suffix asks for.

    Raises:
        UsageError: The suffix is none that can be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(
            f"{path}: cannot write {suffix or 'a file without a suffix'!r}; relume writes "
            f"{', '.join(FORMATS)}.{nearest(suffix, FORMATS)}"
        )
    return FORMATS[suffix]


def write(
    picture: Picture, path: Path | str, *, quality: int | None = None, replace: bool = True
) -> list[str]:
    """Write a picture in the format of the path's suffix, whole or not at all.

    Args:
        picture: Upright; its orientation is written as 1.
        path: In an existing folder.
        quality: 1-100 for lossy formats; None takes the input's estimate, at least 90.
        replace: Whether an existing file may be replaced.

    Returns:
        What had to be lost, one line each.

    Raises:
        UsageError: The suffix is none that can be written.
        OutputError: It cannot be written, or is already there.
    """
    path = Path(path)
    data, announced = render(picture, format_for(path), quality)
    place(data, path, replace=replace)
    return announced


def encode(picture: Picture, format: str, quality: int | None = None) -> bytes:
    """A picture as the bytes of a file. See `render`."""
    data = render(picture, format, quality)[0]
    return data if isinstance(data, bytes) else b"".join(data)


def render(picture: Picture, format: str, quality: int | None = None) -> tuple[Data, list[str]]:
    """A picture as the bytes of a file, and what was lost on the way.

    One that lies in a file is encoded into another beside it, without a name, and stays there.

    Args:
        picture: Upright.
        format: "jpeg", "png", "tiff", "webp" or "avif".
        quality: 1-100 for lossy formats; None takes the input's estimate, at least 90.

    Raises:
        OutputError: The encoder refuses (a JPEG side over 65535 pixels, a WebP side over 16383).
    """
    said = containers.Survey(format, picture.width, picture.height, notes=losses(picture, format))
    said.icc, said.dpi, said.xmp = picture.icc, picture.dpi, picture.xmp
    said.iptc = picture.iptc if format in ("jpeg", "tiff") else None
    said.carried = list(picture.carried) if format == picture.format else []
    if picture.xmp:
        said.xmp = containers.upright_xmp(picture.xmp)
    if picture.exif:
        size = (picture.width, picture.height)
        said.exif = tags.corrected(picture.exif, size, lambda room: _thumbnail(picture, room))
        if said.exif is None:
            said.notes.append("damaged EXIF dropped")
    if quality is None:
        quality = min(100, max(MIN_QUALITY, picture.quality or MIN_QUALITY))
    try:
        samples = _narrowed(picture, format)
        folder = scratch.folder_of(samples)
        with turns.shared():
            if folder is not None and format in _OPTIONS:
                return _spliced(samples, folder, picture, format, quality, said), said.notes
            data = _SAVERS[format](_image(samples), picture, quality, said)
    except pyvips.Error as error:
        raise OutputError(
            f"A {picture.width} x {picture.height} picture cannot be written as {format.upper()} "
            f"({reason(error)})."
        ) from error
    return containers.packed(data, said), said.notes


def _spliced(
    samples: np.ndarray,
    folder: Path,
    picture: Picture,
    format: str,
    quality: int,
    said: containers.Survey,
) -> Pieces:
    """Samples encoded strip by strip, with what `said` holds around them."""
    image = _image(samples)
    done = [0]

    def let_go(_: Any, progress: Any) -> None:
        if progress.percent > done[0]:  # libvips reads samples and does not give them back
            done[0] = progress.percent
            scratch.let_go(samples)

    image.set_progress(True)
    image.signal_connect("eval", let_go)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            target = pyvips.Target.new_to_descriptor(file.fileno())
            options = _OPTIONS[format](picture, quality)
            if format == "tiff" and samples.nbytes > _CLASSIC:
                options["bigtiff"] = True
            getattr(image, f"{format}save_target")(target, **options)
            with contextlib.closing(mapped(file.fileno())) as encoded:
                parts = containers.spliced(cast(bytes, encoded), said)
            return Pieces(cast(BinaryIO, file), parts)
    except OSError as error:
        raise OutputError(
            f"{folder}: there is not the room to encode a large picture "
            f"({error.strerror or error})."
        ) from error


def losses(picture: Picture, format: str) -> list[str]:
    """What a format cannot hold of a picture, one line each."""
    lost = []
    if picture.peak != 255 and format in ("jpeg", "webp"):
        depth = "32-bit float" if picture.peak == 1 else f"{picture.bits}-bit"
        lost.append(f"{depth} samples became 8-bit: {format.upper()} holds no more")
    elif picture.peak == 1 and format in ("png", "avif"):
        lost.append(
            f"32-bit float samples became 16-bit and clipped: {format.upper()} holds no more"
        )
    if picture.alpha is not None and format == "jpeg":
        lost.append("transparency dropped: JPEG has none")
    if picture.format not in _LOSSY and picture.quality is None and format in ("jpeg", "avif"):
        lost.append(f"lossless {picture.format.upper()} became lossy {format.upper()}")
    if picture.iptc and format not in ("jpeg", "tiff"):
        lost.append(f"IPTC metadata dropped: {format.upper()} has no place for it")
    if picture.dpi and format in ("webp", "avif"):
        lost.append(f"resolution dropped: {format.upper()} has no place for it")
    if format != picture.format:
        names = containers.carried_names(picture.carried)
        if names:
            lost.append(f"{picture.format.upper()} {', '.join(names)} dropped")
    return lost


def preview(picture: Picture, side: int) -> bytes:
    """A small JPEG to look at, in sRGB and without metadata; what alpha hides is gray.

    Args:
        side: Its longest side in pixels, at most; nothing is enlarged.
    """
    image = _image(_narrowed(picture, "webp"))
    if image.hasalpha():
        image = image.flatten(background=[119])
    scale = min(1.0, side / max(image.width, image.height))
    if scale < 1:  # a long narrow picture keeps a row
        image = image.resize(max(scale, 1 / image.width), vscale=max(scale, 1 / image.height))
    kind = picture.icc[16:20] if picture.icc else b""
    if kind == (b"GRAY" if picture.gray else b"RGB "):
        image = image.copy()
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", picture.icc)
        with contextlib.suppress(pyvips.Error):  # a broken profile: shown as if there were none
            managed = image.icc_transform("srgb", embedded=True, black_point_compensation=True)
            image = managed.copy_memory()
    return image.jpegsave_buffer(Q=75, optimize_coding=True, keep="none")


def write_gray16(array: np.ndarray, path: Path | str) -> None:
    """A map as a 16-bit gray PNG.

    Args:
        array: (H, W); float in [0, 1], 1 = white, or whole numbers 0-65535 as they are (labels).
        path: Ends in .png; replaced where it is there.

    Raises:
        ShapeError: Not (H, W), or a value that 16 bits do not hold.
        OutputError: It cannot be written.
    """
    if array.ndim != 2:
        raise ShapeError(f"A map must be (H, W), got shape {array.shape}.")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise ShapeError(f"The map for {path} holds values that are not finite.")
        values = np.rint(np.clip(array, 0, 1) * 65535).astype(np.uint16)
    else:
        if array.size and (array.min() < 0 or array.max() > 65535):
            raise ShapeError(f"Labels must lie in 0-65535, got {array.min()} to {array.max()}.")
        values = array.astype(np.uint16)
    place(encode(Picture(values[..., None], bits=16), "png"), Path(path), replace=True)


def _narrowed(picture: Picture, format: str) -> np.ndarray:
    """Samples (H, W, C) with alpha last, in the deepest kind that the format holds."""
    parts = [picture.pixels]
    if picture.alpha is not None and format != "jpeg":
        parts.append(picture.alpha[..., None])
    peak = {"jpeg": 255, "webp": 255, "png": 65535, "avif": 65535}.get(format, picture.peak)
    if len(parts) == 1 and (picture.peak == peak or picture.peak == 255):
        return scratch.contiguous(picture.pixels)

    def narrowed(top: int, bottom: int) -> np.ndarray:
        samples = np.concatenate([part[top:bottom] for part in parts], axis=2)
        if picture.peak == 1 and peak != 1:
            scaled = np.clip(samples, 0, 1) * np.float32(peak)
            return (scaled + np.float32(0.5)).astype(np.uint8 if peak == 255 else np.uint16)
        if picture.peak > peak:
            return ((samples.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
        return samples

    if scratch.folder_of(picture.pixels) is None:
        return narrowed(0, picture.height)
    kind = narrowed(0, 1).dtype
    shape = (picture.height, picture.width, sum(part.shape[2] for part in parts))
    out = scratch.like(picture.pixels, shape, kind)
    for top, bottom in scratch.strips(picture.pixels):
        out[top:bottom] = narrowed(top, bottom)
        scratch.let_go(picture.alpha, out)
    return out


def _image(samples: np.ndarray) -> Any:
    gray, wide = samples.shape[2] < 3, samples.dtype == np.uint16
    space = ("grey16" if wide else "b-w") if gray else ("rgb16" if wide else "srgb")
    if samples.dtype == np.float32:
        space = "b-w" if gray else "scrgb"
    return pyvips.Image.new_from_array(samples, interpretation=space)


def _jpeg_options(picture: Picture, quality: int) -> dict[str, Any]:
    # 4:4:4 also where the input's colour was halved: halving it twice costs up to 2 dB. Tables of
    # the picture's own would save 6 % of the size, double the time, and hold the whole picture.
    return {"Q": quality, "subsample_mode": "off", "keep": "none"}


def _png_options(picture: Picture, quality: int) -> dict[str, Any]:
    # Level 2 with one filter: a fifth of the default's time, within a tenth of its size.
    return {"compression": 2, "filter": "up", "keep": "none"}


def _tiff_options(picture: Picture, quality: int) -> dict[str, Any]:
    predictor = "none" if picture.peak == 1 else "horizontal"
    return {"compression": "deflate", "predictor": predictor, "keep": "none"}


def _jpeg(image: Any, picture: Picture, quality: int, said: containers.Survey) -> bytes:
    return image.jpegsave_buffer(**_jpeg_options(picture, quality))


def _png(image: Any, picture: Picture, quality: int, said: containers.Survey) -> bytes:
    return image.pngsave_buffer(**_png_options(picture, quality))


def _tiff(image: Any, picture: Picture, quality: int, said: containers.Survey) -> bytes:
    return image.tiffsave_buffer(**_tiff_options(picture, quality))


def _webp(image: Any, picture: Picture, quality: int, said: containers.Survey) -> bytes:
    if picture.format == "webp" and picture.quality is not None:
        return image.webpsave_buffer(Q=quality, smart_subsample=True, keep="none")
    return image.webpsave_buffer(lossless=True, exact=True, effort=2, keep="none")


def _avif(image: Any, picture: Picture, quality: int, said: containers.Survey) -> bytes:
    prefix = {"icc": b"", "exif": b"Exif\0\0", "xmp": b""}
    for name, before in prefix.items():
        value = getattr(said, name)
        if value:
            field = "icc-profile-data" if name == "icc" else f"{name}-data"
            image.set_type(pyvips.GValue.blob_type, field, before + value)
    depth = 8 if picture.peak == 255 else 12 if picture.bits > 10 else 10
    return image.heifsave_buffer(
        compression="av1", Q=quality, bitdepth=depth, effort=3, subsample_mode="off"
    )


def _thumbnail(picture: Picture, room: int) -> bytes | None:
    """A JPEG of the picture, 160 pixels at most, that fits in the room of the old one."""
    step = max(1, max(picture.height, picture.width) // 640)
    small = Picture(np.ascontiguousarray(picture.pixels[::step, ::step]))
    image = _image(_narrowed(small, "jpeg"))
    scale = min(1.0, 160 / max(image.width, image.height))
    image = image.resize(scale) if scale < 1 else image
    for quality in (80, 60, 40):
        data = image.jpegsave_buffer(Q=quality, subsample_mode="on", keep="none")
        if len(data) <= room:
            return data
    return None


_OPTIONS = {"jpeg": _jpeg_options, "png": _png_options, "tiff": _tiff_options}
"""Of the formats that are written strip by strip."""
_CLASSIC = 3_900_000_000
"""Bytes of samples that a TIFF of 32-bit offsets holds, however badly they are compressed."""
_LOSSY = {"jpeg", "avif", "heif"}
_SAVERS = {"jpeg": _jpeg, "png": _png, "tiff": _tiff, "webp": _webp, "avif": _avif}
