"""What an AVIF or HEIF file says of itself: libheif is asked, its boxes are not walked here."""

from __future__ import annotations

from ..errors import PictureError
from .containers import Survey
from .libvips import pyvips, reason, turns
from .samples import load


def ask(found: Survey) -> None:
    """Fill in size, depth, frames and metadata.

    Raises:
        PictureError: It cannot be opened.
    """
    try:
        with turns.shared():
            image = load(found, "warning")
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
