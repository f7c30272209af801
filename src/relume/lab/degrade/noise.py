"""Noise: plain, of photons, and of a camera's whole chain."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch

from .damage import Damage, Parameter, Range, seed, uniform
from .tone import to_file, to_light
from .view import Array, View


@functools.cache
def _quantiles() -> Array:
    """65,536 equally likely values of a standard normal, float32; the last lies at 4.3 sigma."""
    p = (torch.arange(65536, dtype=torch.float64) + 0.5) / 65536
    z = torch.special.ndtri(p).numpy()
    return (z / z.std()).astype(np.float32)


def bits(seed: int, view: View) -> Array:
    """(h, w, 4) uint16, a function of seed and position alone, so that all views agree.

    SplitMix64 (Steele et al., 2014) of a counter that is the pixel's place in the frame.
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    rows = np.arange(view.top, view.top + view.height, dtype=np.int64).astype(np.uint64)
    columns = np.arange(view.left, view.left + view.width, dtype=np.int64).astype(np.uint64)
    z = ((rows << np.uint64(32)) * golden)[:, None] + (columns + np.uint64(seed)) * golden
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z.view(np.uint16).reshape(view.height, view.width, 4)


def normals(seed: int, view: View, channels: int = 3) -> Array:
    """(channels, h, w) float32 standard normals at the pixels of a view; at most 4 channels."""
    of = bits(seed, view)[..., :channels].transpose(2, 0, 1)
    return _quantiles().take(of, mode="clip")  # 16 bits do not leave the table


class Noise(Damage):
    """White Gaussian noise on the file's values. sigma on the 0-255 scale."""

    kind = "noise"
    parameters: ClassVar[Mapping[str, Parameter]] = {"sigma": Parameter(5, 50, 0, 255)}
    unit = "sigma / (50 / 255)"
    pointwise = True

    def draw(
        self, ranges: Mapping[str, Range], rng: torch.Generator, regions: Array | None
    ) -> None:
        self.sigma = self.number(ranges, "sigma", uniform(rng, 1)[0]) / 255
        self.seed = seed(rng)

    def apply(self, x: Array, view: View) -> Array:
        noise = normals(self.seed, view)
        noise *= np.float32(self.sigma)
        noise += x
        return noise

    def truth(self, x: Array, view: View) -> Array:
        return np.full((view.height, view.width), min(1, self.sigma * 255 / 50), np.float32)

    def small(self, x: Array) -> Array:
        return x + averaged(self.seed, x, self.size) * np.float32(self.sigma)


def averaged(seed: int, x: Array, size: tuple[int, int]) -> Array:
    """Standard noise of a frame of `size` after area averaging to the thumbnail x."""
    height, width = x.shape[-2:]
    cells = max(1.0, size[0] * size[1] / (height * width))
    return normals(seed, View(0, 0, height, width)) * np.float32(cells**-0.5)


class Poisson(Damage):
    """Photon noise in linear light, with read noise as it shows in the file.

    White is `peak` photons. Counts follow the Cornish-Fisher expansion of the Poisson law, so that
    mean, variance and skewness are right where the picture is dark.
    """

    kind = "poisson"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "peak": Parameter(20, 200, 1, 1e6, log=True),
        "read": Parameter(1, 6, 0, 64),
    }
    unit = "standard deviation / (50 / 255)"
    light = True
    develops = True
    pointwise = True

    def draw(
        self, ranges: Mapping[str, Range], rng: torch.Generator, regions: Array | None
    ) -> None:
        u = uniform(rng, 2)
        self.peak = self.number(ranges, "peak", u[0])
        self.read = self.number(ranges, "read", u[1]) / 255
        self.seed = seed(rng)

    def apply(self, x: Array, view: View) -> Array:
        z = normals(self.seed, view)
        photons = np.maximum(x, 0) * np.float32(self.peak)
        counts = photons + np.sqrt(photons) * z
        skew = (z * z - 1) / 6
        counts += skew * np.minimum(photons, 1)  # no photons, no counts
        file = to_file(counts * np.float32(1 / self.peak))
        if self.read:
            file += normals(self.seed + 1, view) * np.float32(self.read)
        return file

    def deviation(self, x: Array) -> Array:
        """(3, h, w) standard deviation in file values of light x."""
        shot = in_file(x, np.sqrt(np.maximum(x, 0) * np.float32(1 / self.peak)))
        return np.sqrt(shot * shot + np.float32(self.read**2))

    def truth(self, x: Array, view: View) -> Array:
        return np.minimum(1, self.deviation(x).mean(0) * np.float32(255 / 50))

    def small(self, x: Array) -> Array:
        return to_file(x) + averaged(self.seed, x, self.size) * self.deviation(x)


def in_file(light: Array, deviation: Array) -> Array:
    """Standard deviation of light as one of file values: half of what lies between +- sigma.

    Not the slope of the curve, which in the dark would count what black clips.
    """
    spread = to_file(light + deviation)
    spread -= to_file(light - deviation)
    spread *= np.float32(0.5)
    return spread


class Sensor(Damage):
    """What a camera makes of its noise: the raw chain, run on the noise alone.

    Shot and read noise on a Bayer mosaic -> demosaic -> white balance and colour matrix -> tone ->
    in-camera denoise (mostly of colour) and sharpening. All stages but the tone curve are linear,
    so the chain's answer to noise is carried by itself and added to the picture: the picture does
    not go through the mosaic, and at low ISO nothing is left but the picture.
    """

    kind = "sensor"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "iso": Parameter(100, 6400, 0, 409600, log=True)
    }
    unit = "standard deviation / (50 / 255)"
    margin = 6  # 2 demosaic, 1 + 2 denoise of colour; 1 + 1 of luma

    def draw(
        self, ranges: Mapping[str, Range], rng: torch.Generator, regions: Array | None
    ) -> None:
        u = uniform(rng, 11).tolist()
        iso = self.number(ranges, "iso", u[0])
        # Electrons at white: a small sensor holds some thousands at ISO 100, a large one ten times.
        well = Range(5000, 30000, log=True).at(u[1])
        self.peak = well * 100 / iso if iso else math.inf
        self.read = Range(1.5, 4).at(u[2])  # electrons
        self.gains = np.array([Range(1.4, 2.4).at(u[3]), 1, Range(1.3, 2.2).at(u[4])], np.float32)
        mix = Range(0.1, 0.5).at(u[5])  # how far the sensor's colours overlap
        overlap = np.array([[0, 0.85, 0.15], [0.35, 0, 0.65], [0.05, 0.95, 0]])
        matrix = (1 + mix) * np.eye(3) - mix * overlap
        self.to_picture = (matrix * self.gains).astype(np.float32)
        self.to_raw = np.linalg.inv(matrix * self.gains).astype(np.float32)
        self.smooth = Range(0, 0.6).at(u[6]) * min(1, (iso / 800) ** 0.5)
        self.colour = Range(0.3, 0.95).at(u[7])
        self.sharpen = Range(0, 0.8).at(u[8])
        self.phase = (int(u[9] * 2), int(u[9] * 4) % 2)
        self.malvar = u[10] < 0.6
        self.seed = seed(rng)
        self._spread: tuple[Array, Array] | None = None
        self.drawn |= {
            "white_electrons": round(self.peak, 3) if iso else None,
            "read_electrons": round(self.read, 3),
            "white_balance": [round(float(g), 4) for g in self.gains],
            "overlap": round(mix, 4),
            "demosaic": "malvar" if self.malvar else "bilinear",
            "smooth": round(self.smooth, 4),
            "colour_smooth": round(self.colour, 4),
            "sharpen": round(self.sharpen, 4),
        }

    def reads(self, view: View) -> View:
        return view.grown(self.margin)

    def variance(self, raw: Array) -> Array:
        """Of raw values, as a share of white."""
        v = np.maximum(raw, 0)
        v *= np.float32(1 / self.peak)
        v += np.float32((self.read / self.peak) ** 2)
        return v

    def parity(self, outer: View) -> tuple[int, int]:
        return (outer.top + self.phase[0]) % 2, (outer.left + self.phase[1]) % 2

    def developed(self, noise: Array, parity: tuple[int, int]) -> Array:
        """Noise of the mosaic (h, w) as linear light of the picture (3, h, w)."""
        colours = demosaic(noise, parity, malvar=self.malvar)
        return (self.to_picture @ colours.reshape(3, -1)).reshape(colours.shape)

    def finished(self, d: Array) -> Array:
        """In-camera denoise and sharpening, linear, of a difference (3, h, w)."""
        luma = d[0] * np.float32(0.299)
        luma += d[1] * np.float32(0.587)
        luma += d[2] * np.float32(0.114)
        chroma = d[::2] - luma  # red and blue; green follows, for the luma of chroma is 0
        soft = binomial(binomial(chroma, 1), 2)
        soft -= chroma
        soft *= np.float32(self.colour)
        chroma += soft
        if self.smooth:
            luma += np.float32(self.smooth) * (binomial(luma, 1) - luma)
        luma += np.float32(self.sharpen) * (luma - binomial(luma, 1))
        out = np.empty_like(d)
        np.add(chroma, luma, out=out[::2])
        green = chroma[0] * np.float32(-0.299 / 0.587)
        green -= chroma[1] * np.float32(0.114 / 0.587)
        np.add(green, luma, out=out[1])
        return out

    def apply(self, x: Array, view: View) -> Array:
        outer = self.reads(view)
        file = np.clip(x, 0, 1)
        light = to_light(file)
        flat = light.reshape(3, -1)
        row, column = parity = self.parity(outer)
        mosaic = np.empty(light.shape[1:], np.float32)
        for i in (0, 1):
            for j in (0, 1):
                c = (i + row) % 2 + (j + column) % 2  # R G / G B
                at = np.s_[i::2, j::2]
                mosaic[at] = sum(self.to_raw[c, k] * light[(k, *at)] for k in range(3))
        noise = np.sqrt(self.variance(mosaic))
        noise *= normals(self.seed, outer, 1)[0]
        noisy = self.developed(noise, parity)
        noisy += flat.reshape(noisy.shape)
        d = to_file(noisy)
        d -= file
        return view.cut(x, outer) + view.cut(self.finished(d), outer)

    def spread(self) -> tuple[Array, Array]:
        """What the chain makes of the variance of raw sites, measured once on unit noise.

        Returns:
            (3, 3) variance of each colour of the picture, in light, per raw variance of each site;
            (3, 1) how much of its deviation finishing leaves a colour, once it is in the file.
        """
        if self._spread is None:
            patch = View(0, 0, 64, 64)
            noise, parity = normals(1, patch, 1)[0], self.parity(patch)
            rows, columns = np.indices(noise.shape)
            site = (rows + parity[0]) % 2 + (columns + parity[1]) % 2
            inner = np.s_[:, self.margin : -self.margin, self.margin : -self.margin]
            made = [self.developed(noise * (site == c), parity) for c in range(3)]
            variance = np.stack([m[inner].var((1, 2)) for m in made], 1)
            whole = made[0] + made[1] + made[2]
            left = self.finished(whole)[inner].std((1, 2)) / whole[inner].std((1, 2))
            self._spread = variance, left[:, None]
        return self._spread

    def deviation(self, x: Array) -> Array:
        """(3, h, w) standard deviation in file values."""
        light = to_light(x)
        variance, left = self.spread()
        developed = np.sqrt(variance @ self.variance(self.to_raw @ light.reshape(3, -1)))
        deviation = in_file(light, developed.reshape(x.shape))
        deviation *= left[:, :, None]
        return deviation

    def truth(self, x: Array, view: View) -> Array:
        inner = view.cut(x, self.reads(view))
        return np.minimum(1, self.deviation(inner).mean(0) * np.float32(255 / 50))

    def small(self, x: Array) -> Array:
        return x + averaged(self.seed, x, self.size) * self.deviation(x)


def binomial(x: Array, step: int) -> Array:
    """[1 2 1] / 4 along both axes with taps `step` apart; the border keeps what it has."""
    s = step
    rows = x.copy()
    inner = rows[..., s:-s, :]
    inner += (x[..., : -2 * s, :] + x[..., 2 * s :, :]) * np.float32(0.5)
    inner *= np.float32(0.5)
    out = rows.copy()
    inner = out[..., s:-s]
    inner += (rows[..., : -2 * s] + rows[..., 2 * s :]) * np.float32(0.5)
    inner *= np.float32(0.5)
    return out


def demosaic(mosaic: Array, phase: tuple[int, int], *, malvar: bool) -> Array:
    """Bayer (h, w) to (3, h, w): bilinear, or Malvar, He and Cutler (2004), both linear filters.

    Args:
        phase: Row and column parity of the first sample; (0, 0) is a red site, (1, 1) a blue one.
        malvar: Add to bilinear the Laplacian of the site's own colour (5 x 5).
    """
    planes = np.zeros((3, *mosaic.shape), np.float32)
    row, column = phase
    sites = {(i, j): (slice((i - row) % 2, None, 2), slice((j - column) % 2, None, 2))
             for i in (0, 1) for j in (0, 1)}  # fmt: skip
    for (i, j), at in sites.items():
        planes[(i + j, *at)] = mosaic[at]
    rb = np.array([0.5, 1, 0.5], np.float32)
    out = np.empty_like(planes)
    for c in (0, 2):
        out[c] = _separable3(planes[c], rb)
    g = planes[1]
    cross = np.zeros_like(g)
    cross[1:-1, 1:-1] = (g[:-2, 1:-1] + g[2:, 1:-1] + g[1:-1, :-2] + g[1:-1, 2:]) * np.float32(0.25)
    out[1] = g + cross
    if not malvar:
        return out
    # How far a site lies above the mean of its own colour's neighbours, two samples away.
    far_rows, far_columns = np.zeros_like(mosaic), np.zeros_like(mosaic)
    far_rows[2:-2] = (mosaic[:-4] + mosaic[4:]) * np.float32(0.5)
    far_columns[:, 2:-2] = (mosaic[:, :-4] + mosaic[:, 4:]) * np.float32(0.5)
    ring = mosaic - (far_rows + far_columns) * np.float32(0.5)
    diagonal = np.zeros_like(mosaic)
    m = mosaic
    diagonal[1:-1, 1:-1] = (m[:-2, :-2] + m[:-2, 2:] + m[2:, :-2] + m[2:, 2:]) * np.float32(0.25)
    # At green sites: 5/8 of the site, less diagonals 4/8 and the far pair along the colour's line
    # 2/8, plus 1/8 across it.
    along_rows = m * np.float32(5 / 8) - diagonal * np.float32(0.5)
    along_columns = along_rows + far_rows * np.float32(1 / 8) - far_columns * np.float32(2 / 8)
    along_rows = along_rows + far_columns * np.float32(1 / 8) - far_rows * np.float32(2 / 8)
    for (i, j), at in sites.items():
        if i + j == 1:  # green: red lies along its row where i == 0
            out[(0, *at)] += along_columns[at] if i == 0 else along_rows[at]
            out[(2, *at)] += along_rows[at] if i == 0 else along_columns[at]
        else:
            out[(1, *at)] += ring[at] * np.float32(0.5)
            out[(2 - (i + j), *at)] += ring[at] * np.float32(0.75)
    return out


def _separable3(x: Array, k: Array) -> Array:
    rows = x * k[1]
    rows[1:] += x[:-1] * k[0]
    rows[:-1] += x[1:] * k[2]
    out = rows * k[1]
    out[:, 1:] += rows[:, :-1] * k[0]
    out[:, :-1] += rows[:, 1:] * k[2]
    return out
