"""GIF: the size of its screen."""

from __future__ import annotations

import struct

from ...errors import PictureError
from .surveys import Survey


def shows(head: bytes) -> bool:
    return head[:6] in (b"GIF87a", b"GIF89a")


def walk(data: bytes, checked: bool) -> Survey:
    if len(data) < 10:
        raise PictureError("it is cut short")
    width, height = struct.unpack_from("<HH", data, 6)
    return Survey("gif", width, height, data=data)
