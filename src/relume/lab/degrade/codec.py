"""What files do to pictures: JPEG, and changes of size. On the file's values."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from PIL import Image

from .damage import Damage, Parameter, Range, uniform
from .tone import to_levels
from .view import Array, View


class Jpeg(Damage):
    """A JPEG file, saved and read back. One in four below quality 90 is saved 4:4:4.

    A view is encoded with whole MCUs around it, so that it equals the whole photograph's.
    """

    kind = "jpeg"
    parameters: ClassVar[Mapping[str, Parameter]] = {"quality": Parameter(10, 70, 1, 100)}
    unit = "(100 - quality) / 90"
    rounds = True
    mcu = 16

    def draw(
        self, ranges: Mapping[str, Range], rng: torch.Generator, regions: Array | None
    ) -> None:
        u = uniform(rng, 2)
        self.quality = round(self.number(ranges, "quality", u[0]))
        full = self.quality >= 90 or u[1] < 0.25
        self.subsampling = "4:4:4" if full else "4:2:0"
        self.drawn |= {"quality": self.quality, "subsampling": self.subsampling}

    def reads(self, view: View) -> View:
        # Chroma is interpolated over one sample beyond the MCU. The frame's own border stays one.
        return view.grown(1).aligned(self.mcu).within(self.size)

    def apply(self, x: Array, view: View) -> Array:
        levels = x if x.dtype == np.uint8 else to_levels(x).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(levels.transpose(1, 2, 0)).save(
            file, "JPEG", quality=self.quality, subsampling=self.subsampling
        )
        back = np.asarray(Image.open(file, formats=("JPEG",))).transpose(2, 0, 1)
        back = view.cut(back, self.reads(view))
        return np.multiply(back, np.float32(1 / 255), dtype=np.float32, order="C")

    def truth(self, x: Array, view: View) -> Array:
        severity = min(1, (100 - self.quality) / 90)
        return np.full((view.height, view.width), severity, np.float32)


# Sizes. Cubic convolution with a = -1/2 (Keys, 1981), stretched when shrinking: MATLAB's imresize.


def cubic(x: Array) -> Array:
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0))


def taps(count: int, factor: float, first: int, length: int) -> tuple[Array, Array]:
    """Which samples make outputs first..first+length-1 of a row of `count` resized by `factor`.

    Returns:
        Indices (length, p) int64, mirrored into the row, and weights (length, p) float64.
    """
    squeeze = min(factor, 1)
    width = 4 / squeeze
    centre = (np.arange(first, first + length) + 0.5) / factor - 0.5
    left = np.floor(centre - width / 2).astype(np.int64)
    index = left[:, None] + np.arange(math.ceil(width) + 2)
    weight = cubic((centre[:, None] - index) * squeeze)
    weight /= weight.sum(1, keepdims=True)
    folded = index % (2 * count)
    return np.where(folded < count, folded, 2 * count - 1 - folded), weight


def span(index: Array) -> tuple[int, int]:
    return int(index.min()), int(index.max()) + 1


class Resize(Damage):
    """Down and up again by a factor below 1, up and down again above: natural softness.

    The reference is softened alike, for nothing here is damage.
    """

    kind = "resize"
    parameters: ClassVar[Mapping[str, Parameter]] = {"factor": Parameter(0.5, 1.5, 0.1, 4)}
    softens = True

    def draw(
        self, ranges: Mapping[str, Range], rng: torch.Generator, regions: Array | None
    ) -> None:
        self.factor = self.number(ranges, "factor", uniform(rng, 1)[0])
        self.counts = tuple(max(1, round(n * self.factor)) for n in self.size)

    def there_and_back(self, axis: int, first: int, length: int) -> tuple[int, Array]:
        """(first sample read, (length, samples) float32 weights) of one axis."""
        count, other = self.size[axis], self.counts[axis]
        factor = other / count
        back, w_back = taps(other, 1 / factor, first, length)
        low, high = span(back)
        there, w_there = taps(count, factor, low, high - low)
        start, stop = span(there)
        out = np.zeros((high - low, stop - start))
        np.add.at(out, (np.arange(high - low)[:, None], there - start), w_there)
        second = np.zeros((length, high - low))
        np.add.at(second, (np.arange(length)[:, None], back - low), w_back)
        return start, (second @ out).astype(np.float32)

    def reads(self, view: View) -> View:
        # Six taps of the way back, at most three on a side, and as many there, with their rounding.
        margin = math.ceil(6 + 6 / min(self.factor, 1))
        return view.grown(margin).within(self.size)

    def apply(self, x: Array, view: View) -> Array:
        outer = self.reads(view)
        rows = self._along(x, 0, outer.top, view.top, view.height)
        columns = self._along(rows.swapaxes(1, 2), 1, outer.left, view.left, view.width)
        return columns.swapaxes(1, 2)

    def _along(self, x: Array, axis: int, origin: int, first: int, length: int) -> Array:
        """(3, n, m) -> (3, length, m), by blocks of rows so that a block's weights are dense."""
        out = np.empty((3, length, x.shape[2]), np.float32)
        for at in range(0, length, 64):
            n = min(64, length - at)
            start, weights = self.there_and_back(axis, first + at, n)
            block = x[:, start - origin : start - origin + weights.shape[1]]
            out[:, at : at + n] = weights @ block
        return out


class Down(Damage):
    """MATLAB's imresize of a uint8 picture: crop to a multiple, antialias, round after each pass.

    Rows first, then columns, as MATLAB orders two equal factors.
    """

    kind = "down"
    parameters: ClassVar[Mapping[str, Parameter]] = {"scale": Parameter(2, 4, 1, 8)}
    words: ClassVar[Mapping[str, tuple[str, ...]]] = {"kernel": ("bicubic",)}

    def draw(
        self, ranges: Mapping[str, Range], rng: torch.Generator, regions: Array | None
    ) -> None:
        low, high = math.ceil(ranges["scale"].low), math.floor(ranges["scale"].high)
        u = uniform(rng, 1)[0]
        self.scale = max(1, min(high, low + int(u * (high - low + 1))))
        height, width = self.size
        self.size = (height // self.scale * self.scale, width // self.scale * self.scale)
        self.drawn |= {"scale": self.scale, "kernel": "bicubic"}

    def reads(self, view: View) -> View:
        return view.scaled(self.scale).grown(3 * self.scale + 2).within(self.size)

    def apply(self, x: Array, view: View) -> Array:
        if self.scale == 1:
            return view.cut(x, self.reads(view))
        outer = self.reads(view)
        levels = np.floor(np.clip(x, 0, 1).astype(np.float64) * 255 + 0.5)
        rows = self._pass(levels, self.size[0], outer.top, view.top, view.height)
        columns = self._pass(
            rows.swapaxes(1, 2), self.size[1], outer.left, view.left, view.width
        ).swapaxes(1, 2)
        return (columns / 255).astype(np.float32)

    def _pass(self, x: Array, count: int, origin: int, first: int, length: int) -> Array:
        index, weight = taps(count, 1 / self.scale, first, length)
        out = np.zeros((3, length, x.shape[2]))
        for k in range(index.shape[1]):
            out += x.take(index[:, k] - origin, 1) * weight[:, k, None]
        return np.floor(np.clip(out, 0, 255) + 0.5)
