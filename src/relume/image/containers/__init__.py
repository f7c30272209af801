"""The boxes that pictures come in: what a JPEG, PNG, WebP or TIFF file says besides its samples.

`survey` walks a file without decoding it; `packed` puts metadata around freshly encoded samples.
libvips only ever sees and writes samples here, so that metadata is carried byte for byte.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from ...errors import PictureError
from .. import tags
from . import gif, heif, jpeg, png, tiff, webp
from .surveys import Parts, Survey, carried_names
from .xmp import upright_xmp

__all__ = [
    "CONTAINERS",
    "Container",
    "Survey",
    "carried_names",
    "packed",
    "sniff",
    "spliced",
    "survey",
    "upright_xmp",
]


class Container(NamedTuple):
    """What is known of a format.

    Attributes:
        shows: Whether a file's first 64 bytes are of it.
        walk: (the whole file, whether to check it) -> what it says. None: nothing but its format.
        pack: (encoded samples, what to say) -> a file that says it. None: it is left as it is.
    """

    shows: Callable[[bytes], bool]
    walk: Callable[[bytes, bool], Survey] | None = None
    pack: Callable[[bytes, Survey], Parts] | None = None


def sniff(head: bytes) -> str | None:
    """The format that a file's first bytes show, of those that relume reads; else None."""
    return next((format for format, row in CONTAINERS.items() if row.shows(head)), None)


def survey(data: bytes, format: str, checked: bool = True) -> Survey:
    """Walk a file's structure. Formats without a walker here give an empty survey.

    Args:
        data: The whole file.
        format: As `sniff` names it.
        checked: Verify the checksums that the format has, and cut out `samples`; False where only
            the header matters.

    Raises:
        PictureError: The structure itself is broken, or the file ends too early.
    """
    walk = CONTAINERS[format].walk if format in CONTAINERS else None
    try:
        found = walk(data, checked) if walk else Survey(format, data=data)
    except (struct.error, IndexError) as error:
        raise PictureError("its structure is damaged") from error
    if found.exif is not None and not tags.directories(found.exif, limit=1):
        found.exif = None
        found.notes.append("damaged EXIF dropped")
    return found


def packed(data: bytes, said: Survey) -> bytes:
    """Encoded samples with what `said` holds around them; what does not fit joins its notes."""
    parts = spliced(data, said)
    return b"".join(p if isinstance(p, bytes) else data[p[0] : p[1]] for p in parts)


def spliced(data: bytes, said: Survey) -> Parts:
    """As `packed`, for a file that is mapped and not held."""
    pack = CONTAINERS[said.format].pack if said.format in CONTAINERS else None
    return pack(data, said) if pack else [(0, len(data))]


# The first that shows: files of AVIF may name HEIF's brands too.
CONTAINERS: dict[str, Container] = {
    "jpeg": Container(jpeg.shows, jpeg.walk, jpeg.pack),
    "png": Container(png.shows, png.walk, png.pack),
    "tiff": Container(tiff.shows, tiff.walk, tiff.pack),
    "webp": Container(webp.shows, webp.walk, webp.pack),
    "gif": Container(gif.shows, gif.walk),
    "avif": Container(heif.shows_avif),
    "heif": Container(heif.shows_heif),
}
