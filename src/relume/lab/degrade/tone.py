"""From a file's values to linear light and back, by the sRGB curve (IEC 61966-2-1)."""

from __future__ import annotations

import numpy as np

from .view import Array


def to_light(file: Array) -> Array:
    """File values, uint8 or float, to linear light, float32. What is outside [0, 1] is clipped."""
    if file.dtype == np.uint8:
        return _LIGHT_OF_BYTE.take(file, mode="clip")  # no byte leaves the table: nothing to check
    x = np.clip(file, 0, 1)
    light = np.power((x + np.float32(0.055)) * np.float32(1 / 1.055), np.float32(2.4))
    # The straight toe; its exact inverse in `to_file` takes whichever of toe and curve is higher.
    return np.minimum(light, x * np.float32(1 / 12.92), out=light, where=x <= 0.04045)


def to_file(light: Array) -> Array:
    """Linear light to file values, float32 in [0, 1]: what is brighter than white is clipped."""
    x = np.clip(light, 0, 1)
    file = np.power(x, np.float32(1 / 2.4))
    file *= np.float32(1.055)
    file -= np.float32(0.055)
    # The straight toe below 0.0031308, where the curve dips under it (they part by 1e-5 at most).
    toe = np.minimum(x, np.float32(0.0031308), out=x)
    toe *= np.float32(12.92)
    return np.maximum(file, toe, out=file)


def to_float(file: Array) -> Array:
    """File values, uint8 or float, to float32 in [0, 1]."""
    if file.dtype == np.uint8:
        return np.multiply(file, np.float32(1 / 255), dtype=np.float32)
    return file.astype(np.float32, copy=False)


def to_levels(file: Array) -> Array:
    """The nearest of the 256 values of a file, as float32 whole numbers 0..255."""
    levels = np.clip(file, 0, 1)
    levels *= np.float32(255)
    levels += np.float32(0.5)
    return np.floor(levels, out=levels)


_LIGHT_OF_BYTE = to_light(np.arange(256, dtype=np.float32) / 255)
