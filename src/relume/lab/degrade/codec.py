"""What files do to pictures: JPEG, and changes of size. On the file's values."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch

from ...image.writer import jpeg_round_trip
from .damage import Damage, Parameter, Range, uniform
from .tone import to_levels
from .view import Array, View

# JPEG as libjpeg-turbo computes it (the accurate integer DCT, which is its default), to the bit.
#
# A file in memory costs half a millisecond however small the picture, and entropy coding loses
# nothing: for crops the loss is computed without it. Every stage below is integer arithmetic of
# fixed point, so a stage is a matrix and a floor: exact in whatever order the matrix is multiplied.
# Colour, chroma's sizes and the first pass of the DCT fit the 24 bits of a float32, the other
# passes need a float64; the tests hold the whole against the real codec.
#
# All blocks of a picture, of luma and of both chromas, stand in one array and go through each stage
# together: (8, blocks, 8) with the rows of a block first and its columns last where they are
# samples, (8, 8, blocks) where they are frequencies, so that a quantum belongs to a whole row.


def loss(rgb: Array, quality: int, subsampling: str, view: View | None = None) -> Array:
    """What JPEG makes of a picture.

    Args:
        rgb: (3, h, w) in whole numbers 0..255, uint8 or float32.
        quality: 1-100, libjpeg's scale.
        subsampling: "4:2:0" or "4:4:4".
        view: The part to hand back, in the picture's pixels. Default: all of it.

    Returns:
        (3, view.height, view.width) float32, whole numbers 0..255.
    """
    _, h, w = rgb.shape
    view = view or View(0, 0, h, w)
    # Less 128, which the transform takes off anyhow and chroma's sizes let through.
    planes = _FORWARD @ rgb.reshape(3, -1).astype(np.float32, copy=False)
    planes += _FORWARD_OFFSET
    planes = np.floor(planes, out=planes).reshape(3, h, w)
    luma, chroma = planes[:1], planes[1:]
    if subsampling == "4:2:0":
        chroma = _halved(chroma)
    luma, chroma = _whole_blocks(luma), _whole_blocks(chroma)
    n = luma.size // 64
    samples = np.empty((8, n + chroma.size // 64, 8), np.float32)
    _rows(samples[:, :n], luma)[...] = luma.reshape(-1, 8, luma.shape[2]).swapaxes(0, 1)
    _rows(samples[:, n:], chroma)[...] = chroma.reshape(-1, 8, chroma.shape[2]).swapaxes(0, 1)
    samples = _coded(samples, n, quality)
    luma = _rows(samples[:, :n], luma).swapaxes(0, 1).reshape(luma.shape)
    chroma = _rows(samples[:, n:], chroma).swapaxes(0, 1).reshape(chroma.shape)
    # Blue's and red's difference, and ones.
    difference = np.ones((3, view.height, view.width), np.float32)
    if subsampling == "4:2:0":
        _doubled(chroma[:, : (h + 1) // 2, : (w + 1) // 2], view, difference[:2])
    else:
        difference[:2] = chroma[:, view.top :, view.left :][:, : view.height, : view.width]
    out = _BACK @ difference.reshape(3, -1)
    out = np.floor(out, out=out).reshape(difference.shape)
    luma = luma[:, view.top :, view.left :][:, : view.height, : view.width]
    out += luma + np.float32(128)
    return np.clip(out, 0, 255, out=out)


def _rows(blocks: Array, planes: Array) -> Array:
    """Blocks (8, n, 8) as (8, rows of blocks, w) of such planes; a view, they lie side by side."""
    return blocks.reshape(8, -1, planes.shape[2])


def _coded(samples: Array, luma: int, quality: int) -> Array:
    """Blocks (8, n, 8) of samples less 128, the first `luma` of them luma's, coded and decoded."""
    n = samples.shape[1]
    # Forward: rows, then columns; both leave their results scaled by a power of two.
    f = _rounded(_DCT_ROWS @ samples.swapaxes(1, 2))  # (8 rows, 8 frequencies, n)
    f = _rounded(_DCT_COLUMNS @ f.reshape(8, -1).astype(np.float64)).reshape(64, n)
    tables = np.zeros((2, n))  # which of the two a block goes by
    tables[0, :luma], tables[1, luma:] = 1, 1
    quantum, inverse = _quanta(quality)
    f *= inverse @ tables
    np.rint(f, out=f)
    f *= quantum @ tables
    # And back: columns, then rows.
    f = _rounded(_INVERSE_COLUMNS @ f.reshape(8, -1)).reshape(8, 8, n)
    f = _rounded(f.swapaxes(1, 2) @ _INVERSE_ROWS).astype(np.float32)
    return np.clip(f, -128, 127, out=f)


def _rounded(x: Array) -> Array:
    """Halves up, in place: the codec adds half and shifts."""
    x += x.dtype.type(0.5)
    return np.floor(x, out=x)


def _whole_blocks(planes: Array) -> Array:
    """Planes (c, h, w), their last row and column repeated up to multiples of 8."""
    h, w = planes.shape[1:]
    if h % 8 or w % 8:
        planes = np.pad(planes, ((0, 0), (0, -h % 8), (0, -w % 8)), mode="edge")
    return planes


def _halved(planes: Array) -> Array:
    """Means of 2 x 2 samples; columns round up and down by turns. Odd sides repeat their last."""
    h, w = planes.shape[1:]
    if h % 2 or w % 16:
        planes = np.pad(planes, ((0, 0), (0, h % 2), (0, -w % 16)), mode="edge")
    tall = planes[:, ::2] + planes[:, 1::2]
    four = tall[..., ::2] + tall[..., 1::2]
    four += _by_turns(1, 2, four.shape[2])
    four *= np.float32(0.25)
    return np.floor(four, out=four)


def _doubled(planes: Array, view: View, out: Array) -> None:
    """A view of planes (c, h, w) at (2h, 2w), into `out`."""
    h, w = planes.shape[1:]
    smooth = w > 2  # narrower, the codec repeats samples
    rows = _thirds(h, smooth)[view.top : view.top + view.height]
    columns = _thirds(w, smooth)[view.left : view.left + view.width]
    wide = rows @ planes @ columns.T  # sixteenths
    wide += _by_turns(8 / 16, 7 / 16, 2 * w)[view.left : view.left + view.width]
    np.floor(wide, out=out)


@functools.lru_cache(maxsize=64)
def _by_turns(even: float, odd: float, count: int) -> Array:
    return np.resize(np.array([even, odd], np.float32), count)


@functools.lru_cache(maxsize=64)
def _thirds(count: int, smooth: bool) -> Array:
    """(2 count, count) float32: three parts of the nearer sample, one of the further."""
    near = np.arange(2 * count) // 2
    further = np.clip(near + np.tile([-1, 1], count), 0, count - 1) if smooth else near
    out = np.zeros((2 * count, count), np.float32)
    out[np.arange(2 * count), near] = 0.75
    out[np.arange(2 * count), further] += 0.25
    return out


@functools.cache
def _quanta(quality: int) -> tuple[Array, Array]:
    """(64, 2) float64: the standard's tables (ITU-T T.81, annex K) at libjpeg's quality.

    And what makes levels of the transform, which is 8 times its frequencies. The codec rounds
    halves away from zero: a 2^-30 more takes them there, and nothing else over a border.
    """
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    quantum = np.clip((_ANNEX_K * scale + 50) // 100, 1, 255).reshape(2, 64).T
    return quantum.astype(np.float64), (1 + 2.0**-30) / (8 * quantum)


def _butterflies() -> Array:
    """(8, 8), one pass of libjpeg's integer DCT, scaled by 2^13; transposed, its inverse.

    The flow graph of Loeffler, Ligtenberg and Moschytz (1989) with its twelve constants rounded to
    13 bits. Within a pass nothing else is rounded, so a pass is a matrix.
    """
    fix = {c: math.floor(c * 8192 + 0.5) for c in (
        0.298631336, 0.390180644, 0.541196100, 0.765366865, 0.899976223, 1.175875602,
        1.501321110, 1.847759065, 1.961570560, 2.053119869, 2.562915447, 3.072711026,
    )}  # fmt: skip
    forward = np.zeros((8, 8))
    for k in range(8):
        x = [float(i == k) for i in range(8)]
        s = [x[i] + x[7 - i] for i in range(4)]
        d = [x[i] - x[7 - i] for i in range(4)]
        p10, p13, p11, p12 = s[0] + s[3], s[0] - s[3], s[1] + s[2], s[1] - s[2]
        forward[0, k], forward[4, k] = (p10 + p11) * 8192, (p10 - p11) * 8192
        z = (p12 + p13) * fix[0.541196100]
        forward[2, k], forward[6, k] = z + p13 * fix[0.765366865], z - p12 * fix[1.847759065]
        t7, t6, t5, t4 = d
        z1, z2, z3, z4 = t4 + t7, t5 + t6, t4 + t6, t5 + t7
        z5 = (z3 + z4) * fix[1.175875602]
        z1, z2 = -z1 * fix[0.899976223], -z2 * fix[2.562915447]
        z3, z4 = z5 - z3 * fix[1.961570560], z5 - z4 * fix[0.390180644]
        forward[7, k] = t4 * fix[0.298631336] + z1 + z3
        forward[5, k] = t5 * fix[2.053119869] + z2 + z4
        forward[3, k] = t6 * fix[3.072711026] + z2 + z3
        forward[1, k] = t7 * fix[1.501321110] + z1 + z4
    return forward


_DCT = _butterflies()
_DCT_ROWS, _DCT_COLUMNS = (_DCT * 2.0**-11).astype(np.float32), _DCT * 2.0**-15
_INVERSE_COLUMNS, _INVERSE_ROWS = _DCT.T * 2.0**-11, _DCT * 2.0**-18
_FORWARD = np.array(
    [[19595, 38470, 7471], [-11059, -21709, 32768], [32768, -27439, -5329]], np.float32
) / np.float32(65536)
_FORWARD_OFFSET = np.array([[0.5 - 128], [32767 / 65536], [32767 / 65536]], np.float32)
# Of blue's difference, of red's, and the half that makes a floor round.
_BACK = np.array(
    [[0, 91881, 32768], [-22554, -46802, 32768], [116130, 0, 32768]], np.float32
) / np.float32(65536)
_ANNEX_K = np.array([
    [[16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55],
     [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
     [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
     [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99]],
    [[17, 18, 24, 47, 99, 99, 99, 99], [18, 21, 26, 66, 99, 99, 99, 99],
     [24, 26, 56, 99, 99, 99, 99, 99], [47, 66, 99, 99, 99, 99, 99, 99],
     [99, 99, 99, 99, 99, 99, 99, 99], [99, 99, 99, 99, 99, 99, 99, 99],
     [99, 99, 99, 99, 99, 99, 99, 99], [99, 99, 99, 99, 99, 99, 99, 99]],
])  # fmt: skip


class Jpeg(Damage):
    """A JPEG file, saved and read back. One in four below quality 90 is saved 4:4:4.

    A view is encoded with whole MCUs around it, so that it equals the whole photograph's.
    """

    kind = "jpeg"
    parameters: ClassVar[Mapping[str, Parameter]] = {"quality": Parameter(10, 70, 1, 100)}
    unit = "(100 - quality) / 90"
    rounds = True
    mcu = 16
    crop = 3 * 192 * 192  # up to this many values our own arithmetic is the faster

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
        levels = x if x.dtype == np.uint8 else to_levels(x)
        outer = self.reads(view)
        if levels.size <= self.crop:
            inner = View(view.top - outer.top, view.left - outer.left, view.height, view.width)
            back = loss(levels, self.quality, self.subsampling, inner)
        else:
            pixels = np.ascontiguousarray(levels.transpose(1, 2, 0), np.uint8)
            back = jpeg_round_trip(pixels, self.quality, self.subsampling).transpose(2, 0, 1)
            back = view.cut(back, outer)
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
        margin = math.ceil(4 + 4 / min(self.factor, 1))
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
