"""Blur: of a lens, of motion, of defocus, and of things that moved. All in linear light."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch

from .damage import Damage, Parameter, Range, uniform
from .view import Array, View


def motion_kernel(length: float, angle: float, curve: float) -> Array:
    """(k, k) float32 of sum 1, k odd: the path of a point during the exposure.

    Args:
        length: Of the path's chord, in pixels; at most 1 is no blur.
        angle: Of the chord, degrees from the x axis, anti-clockwise as shown.
        curve: Rise of the arc over its chord, as a share of the chord.
    """
    reach = max(length - 1, 0)
    if reach == 0:
        return np.ones((1, 1), np.float32)
    n = max(2, math.ceil(reach * (1 + curve) * 4))
    s = (np.arange(n) + 0.5) / n - 0.5
    bow = 4 * curve * (s * s - 1 / 12)  # its mean is 0: a blur must not shift the picture
    c, d = math.cos(math.radians(angle)), -math.sin(math.radians(angle))
    x, y = reach * (s * c - bow * d), reach * (s * d + bow * c)
    radius = math.ceil(max(np.abs(x).max(), np.abs(y).max()))
    side = 2 * radius + 1
    kernel = np.zeros(side * side)
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    for dy in (0, 1):
        for dx in (0, 1):
            weight = np.abs(1 - dx - (x - x0)) * np.abs(1 - dy - (y - y0))
            at = (np.minimum(y0 + dy + radius, side - 1)) * side
            kernel += np.bincount(at + np.minimum(x0 + dx + radius, side - 1), weight, side * side)
    return (kernel / kernel.sum()).reshape(side, side).astype(np.float32)


def disc_kernel(radius: float) -> Array:
    """(k, k) float32 of sum 1: a disc with an antialiased rim. Radius 0 is no blur."""
    r = math.ceil(radius)
    if r == 0:
        return np.ones((1, 1), np.float32)
    fine = 8
    g = (np.arange((2 * r + 1) * fine) + 0.5) / fine - r - 0.5
    inside = (g[:, None] ** 2 + g**2 <= max(radius, 0.5) ** 2).astype(np.float32)
    kernel = inside.reshape(2 * r + 1, fine, 2 * r + 1, fine).mean((1, 3))
    if radius < 0.5:  # towards no blur at all
        centre = np.zeros_like(kernel)
        centre[r, r] = kernel.sum()
        kernel = centre + (kernel - centre) * np.float32(2 * radius)
    return kernel / kernel.sum()


def gaussian_kernel(sigma: float) -> Array:
    """(k, k) float32 of sum 1, k odd: a Gaussian cut at four sigma. Sigma 0 is no blur."""
    r = math.ceil(4 * sigma)
    if r == 0:
        return np.ones((1, 1), np.float32)
    row = np.exp(-0.5 * (np.arange(-r, r + 1) / sigma) ** 2)
    kernel = row[:, None] * row
    return (kernel / kernel.sum()).astype(np.float32)


@lru_cache(maxsize=512)
def _fast(n: int) -> int:
    """The next length that FFTs like: 2^a 3^b 5^c, even."""
    m = n + n % 2
    while True:
        k = m
        for p in (2, 3, 5):
            while k % p == 0:
                k //= p
        if k == 1:
            return m
        m += 2


class Convolution:
    """A kernel with its spectrum for the last size asked for.

    In float64, so that a crop and the whole frame round to the same float32 values: what comes
    after (a codec's rounding) must not see which of the two was asked for.
    """

    tile = 256  # larger pictures go in pieces that stay in the cache

    def __init__(self, kernel: Array) -> None:
        self.kernel = kernel
        self.margin = kernel.shape[0] // 2
        self._spectra: dict[tuple[int, int], torch.Tensor] = {}

    def __call__(self, x: Array) -> Array:
        """(c, h, w) float32 -> (c, h - 2 margin, w - 2 margin) float32."""
        m = self.margin
        if m == 0:
            return x
        h, w = x.shape[-2] - 2 * m, x.shape[-1] - 2 * m
        if max(h, w) <= 1.5 * self.tile:
            return self._whole(x)
        out = np.empty((*x.shape[:-2], h, w), np.float32)
        rows, columns = -(-h // self.tile), -(-w // self.tile)
        for i in range(rows):
            top, bottom = h * i // rows, h * (i + 1) // rows
            for j in range(columns):
                left, right = w * j // columns, w * (j + 1) // columns
                piece = x[..., top : bottom + 2 * m, left : right + 2 * m]
                out[..., top:bottom, left:right] = self._whole(piece)
        return out

    def _whole(self, x: Array) -> Array:
        m = self.margin
        h, w = x.shape[-2:]
        size = (_fast(h), _fast(w))
        spectrum = self._spectra.get(size)
        if spectrum is None:
            spectrum = torch.fft.rfft2(torch.from_numpy(self.kernel).double(), s=size)
            self._spectra = {size: spectrum}
        f = torch.fft.rfft2(torch.from_numpy(np.ascontiguousarray(x)).double(), s=size)
        f *= spectrum
        y = torch.fft.irfft2(f, s=size).numpy()[..., 2 * m : h, 2 * m : w]
        return y.astype(np.float32)


class Blur(Damage):
    """Motion blur of the whole picture. length and the arc in pixels, angle in degrees."""

    kind = "blur"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "length": Parameter(7, 31, 0, 127),
        "angle": Parameter(0, 180, 0, 360),
        "curve": Parameter(0, 0.5, 0, 1),
    }
    unit = "length / 31"
    light = True

    def draw(
        self, ranges: Mapping[str, Range], rng: torch.Generator, regions: Array | None
    ) -> None:
        u = uniform(rng, 3)
        length = self.number(ranges, "length", u[0])
        angle, curve = self.number(ranges, "angle", u[1]), self.number(ranges, "curve", u[2])
        self.severity = min(1, length / 31)
        self.convolve = Convolution(motion_kernel(length, angle, curve))

    def reads(self, view: View) -> View:
        return view.grown(self.convolve.margin)

    def apply(self, x: Array, view: View) -> Array:
        return self.convolve(x)

    def truth(self, x: Array, view: View) -> Array:
        return np.full((view.height, view.width), self.severity, np.float32)


class Lens(Damage):
    """What a lens in focus and the mosaic behind it leave of a point: a Gaussian, sigma in pixels.

    The reference is softened alike: so pictures of a camera are at full size, damaged or not.
    """

    kind = "lens"
    parameters: ClassVar[Mapping[str, Parameter]] = {"sigma": Parameter(0.7, 2.4, 0, 8)}
    light = True
    softens = True

    def draw(
        self, ranges: Mapping[str, Range], rng: torch.Generator, regions: Array | None
    ) -> None:
        self.convolve = Convolution(
            gaussian_kernel(self.number(ranges, "sigma", uniform(rng, 1)[0]))
        )

    def reads(self, view: View) -> View:
        return view.grown(self.convolve.margin)

    def apply(self, x: Array, view: View) -> Array:
        return self.convolve(x)


class Defocus(Blur):
    """A lens out of focus: a disc of `radius` pixels."""

    kind = "defocus"
    parameters: ClassVar[Mapping[str, Parameter]] = {"radius": Parameter(1, 7, 0, 32)}
    unit = "radius / 7"

    def draw(
        self, ranges: Mapping[str, Range], rng: torch.Generator, regions: Array | None
    ) -> None:
        radius = self.number(ranges, "radius", uniform(rng, 1)[0])
        self.severity = min(1, radius / 7)
        self.convolve = Convolution(disc_kernel(radius))


class RegionBlur(Blur):
    """Things that moved by themselves: a kernel per region, and one for the background.

    Each region's light is blurred with its own outline, and where outlines overlap they share, so
    that nothing glows or darkens at a border.
    """

    kind = "regionblur"
    parameters = Blur.parameters
    unit = "length / 31, per region"
    follows_regions = True

    def draw(
        self, ranges: Mapping[str, Range], rng: torch.Generator, regions: Array | None
    ) -> None:
        count = 1 + int(uniform(rng, 1)[0] * 3)
        u = uniform(rng, 3 * (count + 1)).reshape(-1, 3)
        if regions is None:
            regions = _blobs(uniform(rng, 4 * count).reshape(-1, 4), self.size)
        labels, sizes = np.unique(regions, return_counts=True)
        keys = uniform(rng, len(labels))
        # Larger regions move more often, but the largest is where the background is looked for.
        order = np.argsort(-sizes * (0.2 + keys), kind="stable")
        movers = [int(labels[i]) for i in order if labels[i] != 0 and i != np.argmax(sizes)]
        self.labels = np.asarray(regions)
        self.movers = movers[:count]
        self.drawn["regions"] = []
        self.convolutions: list[Convolution] = []
        self.severities: list[float] = []
        for which, v in zip([0, *self.movers], u, strict=False):
            length, angle, curve = (
                float(ranges[name].at(t))
                for name, t in zip(("length", "angle", "curve"), v, strict=True)
            )
            self.drawn["regions"].append(
                {"label": which, "length": length, "angle": angle, "curve": curve}
            )
            self.convolutions.append(Convolution(motion_kernel(length, angle, curve)))
            self.severities.append(min(1, length / 31))
        self.margin = max(c.margin for c in self.convolutions)

    def reads(self, view: View) -> View:
        return view.grown(self.margin)

    def masks(self, view: View) -> list[tuple[int, Array]]:
        """(which kernel, (h, w) float mask) of those that show in a view; they sum to 1."""
        (height, width), (h, w) = self.size, self.labels.shape
        rows = _reflected(np.arange(view.top, view.top + view.height), height) * h // height
        columns = _reflected(np.arange(view.left, view.left + view.width), width) * w // width
        labels = self.labels.take(rows, 0).take(columns, 1)
        rest = np.ones(labels.shape, bool)
        found = []
        for k, mover in enumerate(self.movers, 1):
            mask = labels == mover
            if mask.any():
                found.append((k, mask.astype(np.float32)))
                rest &= ~mask
        if rest.any():
            found.append((0, rest.astype(np.float32)))
        return found

    def shares(self, view: View) -> list[tuple[int, Array]]:
        """(which kernel, (h, w) share of the exposure) of those that show; they sum to 1."""
        outer = self.reads(view)
        blurred = [(k, self._blur(k, mask[None])[0]) for k, mask in self.masks(outer)]
        total = np.maximum(sum(share for _, share in blurred), np.float32(1e-6))
        return [(k, np.maximum(share, 0) / total) for k, share in blurred]

    def _blur(self, k: int, x: Array) -> Array:
        convolve = self.convolutions[k]
        spare = self.margin - convolve.margin
        return convolve(x[..., spare : x.shape[-2] - spare, spare : x.shape[-1] - spare])

    def apply(self, x: Array, view: View) -> Array:
        masks = self.masks(self.reads(view))
        if len(masks) == 1:
            return self._blur(masks[0][0], x)
        light = np.zeros((3, view.height, view.width), np.float32)
        total = np.zeros((view.height, view.width), np.float32)
        for k, mask in masks:
            both = self._blur(k, np.concatenate([x * mask, mask[None]]))
            light += both[:3]
            total += both[3]
        return light / np.maximum(total, np.float32(1e-3))

    def truth(self, x: Array, view: View) -> Array:
        shares = self.shares(view)
        return sum(
            (np.float32(self.severities[k]) * share for k, share in shares),
            np.zeros((view.height, view.width), np.float32),
        )


def _reflected(i: Array, count: int) -> Array:
    period = max(2 * (count - 1), 1)
    i = np.abs(i) % period
    return np.where(i < count, i, period - i)


def _blobs(u: Array, size: tuple[int, int]) -> Array:
    """A label map of ellipses, for a photograph whose regions nobody looked for."""
    h, w = (max(1, round(64 * s / max(size))) for s in size)
    y, x = np.mgrid[0:h, 0:w]
    labels = np.full((h, w), len(u) + 1)
    for k, (cy, cx, ry, rx) in enumerate(u, 1):
        dy = (y - cy * h) / (h * (0.1 + 0.25 * ry))
        dx = (x - cx * w) / (w * (0.1 + 0.25 * rx))
        labels[dy * dy + dx * dx < 1] = k
    return labels
