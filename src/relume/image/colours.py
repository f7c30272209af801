"""What a network sees of a picture, rows at a time, and the picture that its answers become.

A strip holds what the same rows of the whole hold, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..errors import CheckError, ShapeError
from . import scratch
from .picture import Picture, fill, native, planes
from .resize import enlarge

Rows = Callable[[int, int], np.ndarray]
"""(first row, one after the last) -> (C, h, W)."""

WHOLE = 1 << 22
"""Pixels of a level of colours that is filled in one piece."""


class Colours:
    """A picture's colours in [0, 1], gray spread to three equal channels.

    Args:
        picture: It.
        fill_hidden: As for `Picture.rgb`.

    Attributes:
        shape: (1, 3, H, W).
    """

    def __init__(self, picture: Picture, *, fill_hidden: bool = False) -> None:
        self.picture = picture
        self.shape = (1, 3, picture.height, picture.width)
        self._rows: Rows = self._plain
        if fill_hidden and picture.alpha is not None and hides(picture):
            alpha, peak = picture.alpha, picture.peak

            def weight(top: int, bottom: int) -> np.ndarray:
                return np.clip(alpha[top:bottom].astype(np.float32) / peak, 0, 1)[None]

            self._rows = _filled(self._plain, weight, picture.pixels, *self.shape[2:])

    def rows(self, top: int, bottom: int) -> np.ndarray:
        """(1, 3, bottom - top, W) float32."""
        out = self._rows(top, bottom)[None]
        scratch.let_go(self.picture.pixels, self.picture.alpha)
        return out

    def whole(self) -> np.ndarray:
        """(1, 3, H, W) float32, where the picture itself lies."""
        out = scratch.like(self.picture.pixels, self.shape, np.float32)
        for top, bottom in scratch.strips(self.picture.pixels):
            out[:, :, top:bottom] = self.rows(top, bottom)
            scratch.let_go(out)
        return out

    def _plain(self, top: int, bottom: int) -> np.ndarray:
        return planes(self.picture.pixels[top:bottom], self.picture.peak)


class Canvas:
    """A picture with new colours, put in rows at a time. See `Picture.with_rgb`.

    Args:
        picture: Whose depth, alpha and metadata the result has.
        scale: 1, or the whole factor by which the result is larger.
        neutral: Whether three equal channels stay equal.

    Attributes:
        flat: Whether all that was put in is of one colour.
    """

    def __init__(self, picture: Picture, scale: int = 1, *, neutral: bool = False) -> None:
        self.picture, self.scale, self.flat = picture, scale, True
        self.neutral = neutral
        h, w, c = picture.pixels.shape
        self.pixels = scratch.like(picture.pixels, (h * scale, w * scale, c), picture.pixels.dtype)

    def put(self, top: int, rgb: np.ndarray) -> None:
        """Put rows from `top` on, (1, 3, h, scale W) float; `top` and h are multiples of scale.

        Raises:
            ShapeError: The shape is another one.
            CheckError: A value is not finite; a NaN is never written.
        """
        picture, bottom = self.picture, top + rgb.shape[2]
        wanted = (1, 3, min(bottom, len(self.pixels)) - top, self.pixels.shape[1])
        if rgb.shape != wanted:
            raise ShapeError(f"rgb must be {wanted}, got {rgb.shape}.")
        if not np.isfinite(rgb).all():
            raise CheckError("The restored picture holds values that are not finite; not written.")
        if (
            picture.gray or self.neutral
        ):  # written so that three equal channels give exactly that value
            r, g, b = rgb[0]
            colours = (r + ((g - r) + (b - r)) / 3)[None]
        else:
            colours = rgb[0]
        pixels = native(colours, picture.peak, picture.pixels.dtype)
        if self.neutral and not picture.gray:
            pixels = pixels.repeat(3, axis=2)
        if picture.peak == 1:
            before = picture.pixels[top // self.scale : bottom // self.scale]
            if self.scale > 1:
                before = before.repeat(self.scale, axis=0).repeat(self.scale, axis=1)
            inside = np.clip(before, 0, 1)
            # Away from the middle: what was beyond black and is white now lies beyond white.
            beyond = np.copysign(before - inside, pixels - np.float32(0.5))
            same = (before == inside) | (pixels == inside)
            pixels = np.where(same, np.where(before == inside, pixels, before), pixels + beyond)
        self.pixels[top:bottom] = pixels
        first = self.pixels[:1, :1]
        self.flat = self.flat and bool((pixels[:1] == first).all() and (pixels == first).all())
        scratch.let_go(self.pixels, picture.pixels)

    def done(self) -> Picture:
        """The picture, once every row was put in."""
        alpha = self.picture.alpha
        if alpha is not None and self.scale > 1:
            alpha = self._enlarged(alpha)
        return replace(self.picture, pixels=self.pixels, alpha=alpha)

    def _enlarged(self, alpha: np.ndarray) -> np.ndarray:
        peak, (h, w) = self.picture.peak, self.pixels.shape[:2]
        out = scratch.like(alpha, (h, w), alpha.dtype)

        def rows(top: int, bottom: int) -> np.ndarray:
            return alpha[top:bottom].astype(np.float32) / peak

        for top, bottom in scratch.strips(out):
            larger = enlarged(rows, len(alpha), self.scale, top, bottom)
            out[top:bottom] = native(larger[None], peak, alpha.dtype)[..., 0]
        return out


def is_flat(picture: Picture) -> bool:
    """Whether a picture is of one colour."""
    pixels = picture.pixels
    return all((pixels[a:b] == pixels[:1, :1]).all() for a, b in scratch.strips(pixels))


def is_neutral(picture: Picture) -> bool:
    """Whether a picture of three channels shows no colour: a black-and-white scan, saved as RGB."""
    pixels = picture.pixels
    return not picture.gray and all(
        (pixels[a : a + 1] == pixels[a : a + 1, :, :1]).all()
        and (pixels[a:b] == pixels[a:b, :, :1]).all()
        for a, b in scratch.strips(pixels)
    )


def hides(picture: Picture) -> bool:
    """Whether alpha is 0 somewhere and not everywhere: where `Picture.hidden` is not None."""
    if picture.alpha is None:
        return False
    some, every = False, True
    for top, bottom in scratch.strips(picture.alpha):
        shows = picture.alpha[top:bottom] > 0
        some, every = some or not shows.all(), every and not shows.any()
    return some and not every


def enlarged(
    rows: Callable[[int, int], np.ndarray], height: int, scale: int, top: int, bottom: int
) -> np.ndarray:
    """`resize.enlarge` of all rows, of which there are `height`; of the result top to bottom."""
    first = max(0, top // scale - 3)  # the kernel spans two; at the edge of all they are reflected
    last = min(height, -(-bottom // scale) + 3)
    return enlarge(rows(first, last), scale)[..., top - first * scale : bottom - first * scale, :]


def _filled(colours: Rows, weight: Rows, beside: np.ndarray, h: int, w: int) -> Rows:
    """`picture.fill` of colours (3, h, w) and weights (1, h, w) that come in rows.

    Args:
        beside: Where this lies, what is kept lies too.
    """
    tops, lefts = -(-h // 2), -(-w // 2)
    sums = scratch.like(beside, (tops, 4, lefts), np.float32)
    step = max(2, scratch.STRIP // (16 * w) // 2 * 2)
    for top in range(0, h, step):
        bottom = min(h, top + step)
        given, weights = colours(top, bottom), weight(top, bottom)[0]
        n = bottom - top
        part = np.zeros((4, n + n % 2, 2 * lefts), np.float32)
        np.multiply(given, weights, out=part[:3, :n, :w], where=weights > 0)
        np.copyto(part[3, :n, :w], weights, where=weights > 0)
        part = part[:, ::2] + part[:, 1::2]
        part = part[..., ::2] + part[..., 1::2]
        sums[top // 2 : top // 2 + part.shape[1]] = part.transpose(1, 0, 2)
        scratch.let_go(sums, beside)

    def coarse(top: int, bottom: int) -> np.ndarray:
        part = sums[top:bottom].transpose(1, 0, 2)
        out = np.ascontiguousarray(part[:3] / np.maximum(part[3], np.finfo(np.float32).tiny))
        scratch.let_go(sums)
        return out

    def coarse_weight(top: int, bottom: int) -> np.ndarray:
        return np.array(sums[top:bottom, 3])[None]

    if tops * lefts <= WHOLE:
        whole = coarse(0, tops)
        fill(whole, coarse_weight(0, tops)[0])

        further: Rows = lambda top, bottom: whole[:, top:bottom]  # noqa: E731
    else:
        further = _filled(coarse, coarse_weight, beside, tops, lefts)

    def rows(top: int, bottom: int) -> np.ndarray:
        out = colours(top, bottom)
        empty = ~(weight(top, bottom)[0] > 0)
        if empty.any():
            finer = np.clip(enlarged(further, tops, 2, top, bottom), 0, 1)[..., :w]
            np.copyto(out, finer, where=empty)
        return out

    return rows
