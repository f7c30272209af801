"""A picture's samples, decoded by libvips; its warnings are refusals, but for harmless damage."""

from __future__ import annotations

import bisect
import itertools
import re
from typing import Any

import numpy as np

from ..errors import PictureError
from . import endings, planes, tags
from .containers import Survey
from .libvips import pyvips, reason, turns
from .pieces import PIECE, let_go


def load(found: Survey, fail_on: str) -> Any:
    """libvips' image of the samples, decoded as they are asked for; `fail_on` is its word for what
    ends that: "warning" or "error"."""
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


def samples_of(found: Survey) -> tuple[Any, np.ndarray]:
    """The decoder's image and its samples (H, W, C).

    Junk between JPEG markers is the one warning that costs nothing: every decoder steps over it.

    Raises:
        PictureError: They cannot be decoded to the end.
    """
    if found.format == "tiff" and planes.separate(found.samples):
        return _in_planes(found.samples)
    try:
        with turns.shared():
            image = load(found, "warning")
            return image, _array(image)
    except pyvips.Error:
        pass
    with turns.alone():
        return _alone(found)


def _alone(found: Survey) -> tuple[Any, np.ndarray]:
    try:
        image = load(found, "warning")
        return image, _array(image)
    except pyvips.Error as error:
        if found.format == "tiff" and _in_a_circle(found.samples):
            return _unchained(found)
        warnings = set(re.findall(r"VipsJpeg: (.*)", str(error)))
        if warnings == {"premature end of JPEG image"} and endings.one_scan(found.samples):
            return _ended(found)
        only_junk(error)
    try:
        image = load(found, "error")
        found.notes.append(JUNK)
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


def _unchained(found: Survey) -> tuple[Any, np.ndarray]:
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


def _in_planes(data: bytes) -> tuple[Any, np.ndarray]:
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


def _ended(found: Survey) -> tuple[Any, np.ndarray]:
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


def only_junk(error: pyvips.Error) -> None:
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


# From a file by its name.
LOADERS: dict[str, Any] = {
    "jpeg": pyvips.Image.jpegload,
    "png": pyvips.Image.pngload,
    "tiff": pyvips.Image.tiffload,
    "webp": pyvips.Image.webpload,
    "avif": pyvips.Image.heifload,
}

JUNK = "junk bytes inside the JPEG were passed over"
