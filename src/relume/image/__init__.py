"""Pictures in and out. Nothing outside this package opens or writes an image file."""

from .picture import Picture
from .reader import decode, format_of, is_image, read, read_bytes, shape_of
from .resize import enlarge, resize, resize_map
from .writer import (
    FORMATS,
    encode,
    format_for,
    place,
    preview,
    render,
    suffix_for,
    write,
    write_gray16,
)

__all__ = [
    "FORMATS",
    "Picture",
    "decode",
    "encode",
    "enlarge",
    "format_for",
    "format_of",
    "is_image",
    "place",
    "preview",
    "read",
    "read_bytes",
    "render",
    "resize",
    "resize_map",
    "shape_of",
    "suffix_for",
    "write",
    "write_gray16",
]
