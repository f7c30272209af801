"""Changing the size of arrays: the bicubic enlargement that stands for the input, and masks."""

from typing import Any

import numpy as np

from ..errors import ShapeError
from .libvips import pyvips


def enlarge(array: np.ndarray, scale: int) -> np.ndarray:
    """Bicubic enlargement (Keys 1981, a = -1/2) by a whole factor, edges reflected.

    Enlarging needs no low-pass, so this is also the antialiased form. Pixel centres map as
    (i + 1/2) / scale - 1/2, which is MATLAB's and Pillow's convention.

    Args:
        array: (..., H, W) float32.
        scale: 1, 2, 3 ...; 1 gives the array itself.

    Returns:
        (..., scale H, scale W) float32. Overshoots beyond the input's range are kept.

    Raises:
        ShapeError: `scale` is not a whole number of at least 1.
    """
    if scale != int(scale) or scale < 1:
        raise ShapeError(f"scale must be a whole number of at least 1, got {scale}.")
    if scale == 1:
        return array
    return _enlarge_last(_enlarge_last(array.swapaxes(-1, -2), scale).swapaxes(-1, -2), scale)


def _enlarge_last(array: np.ndarray, scale: int) -> np.ndarray:
    pads = [(0, 0)] * (array.ndim - 1) + [(2, 2)]
    padded = np.pad(array.astype(np.float32, copy=False), pads, mode="symmetric")
    width = array.shape[-1]
    out = np.empty((*array.shape[:-1], width * scale), np.float32)
    for phase in range(scale):  # every scale-th sample shares its four weights
        at = (phase + 0.5) / scale - 0.5
        first = int(np.floor(at)) - 1
        total = np.zeros(array.shape, np.float32)
        for tap in range(4):
            weight = np.float32(_cubic(at - (first + tap)))
            start = first + tap + 2
            total += weight * padded[..., start : start + width]
        out[..., phase::scale] = total
    return out


def _cubic(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def resize_map(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map or mask at another size: area-weighted when smaller, linear when larger.

    Args:
        values: (h, w) float32.
        size: (H, W) wanted.

    Returns:
        (H, W) float32, within the range of `values`; a map that is 0 everywhere stays exactly 0.
    """
    height, width = size
    values = np.ascontiguousarray(values, np.float32)
    if values.ndim != 2:
        raise ShapeError(f"A map must be (h, w), got shape {values.shape}.")
    if values.shape == (height, width):
        return values
    out = _area_means(values, height) if height < values.shape[0] else values
    out = _area_means(out.T, width).T if width < values.shape[1] else out
    h, w = out.shape
    image: Any = pyvips.Image.new_from_array(np.ascontiguousarray(out, np.float32))
    image = image.resize(width / w, vscale=height / h, kernel="linear")
    out = np.atleast_2d(image.numpy()).reshape(image.height, image.width)
    if out.shape != (height, width):  # libvips rounds the size itself, by one at most
        pads = [(0, max(0, height - out.shape[0])), (0, max(0, width - out.shape[1]))]
        out = np.pad(out, pads, mode="edge")[:height, :width]
    return np.clip(out, values.min(), values.max()).astype(np.float32, copy=False)


def _area_means(values: np.ndarray, rows: int) -> np.ndarray:
    """(h, w) to (rows, w), fewer: the mean over the rows that each covers, which is exactly 0 where
    they are. libvips' linear kernel looks twice as far, past the edge of what a mask leaves alone.
    """
    h = values.shape[0]
    edges = np.round(np.linspace(0, h, rows + 1), 9)
    below = np.minimum(edges.astype(np.int64), h - 1)
    total = np.zeros((h + 1, values.shape[1]))
    np.cumsum(values, axis=0, out=total[1:])
    sums = total[below] + (edges - below)[:, None] * values[below]
    return np.diff(sums, axis=0) / np.diff(edges)[:, None]


def resize(rgb: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture at any other size: libvips' bicubic, low-passed when smaller.

    Args:
        rgb: (1, 3, H, W) float32 in [0, 1].

    Returns:
        (1, 3, height, width) float32; overshoots beyond the input's range are clipped.
    """
    h, w = rgb.shape[-2:]
    image: Any = pyvips.Image.new_from_array(np.ascontiguousarray(rgb[0].transpose(1, 2, 0)))
    image = image.resize(width / w, vscale=height / h, kernel="cubic")
    out = image.numpy()[:height, :width]
    pads = [(0, height - out.shape[0]), (0, width - out.shape[1]), (0, 0)]
    out = np.pad(out, pads, mode="edge") if any(b for _, b in pads) else out
    return np.ascontiguousarray(np.clip(out, 0, 1).transpose(2, 0, 1)[None], np.float32)
