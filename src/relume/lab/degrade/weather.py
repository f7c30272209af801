"""Weather: rain in the air, drops on the glass, haze before the horizon. All in linear light."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch

from .damage import Damage, Parameter, Range, uniform
from .view import Array, View


class Rain(Damage):
    """Falling rain: one to five layers of streaks, each nearer layer longer, wider and less sharp.

    A layer has its own angle around the drawn one, its own share of the streaks, opacity and
    defocus; far rain that cannot be told apart is a thin veil. What covers a pixel is
    a = 1 - prod(1 - a_streak), and light becomes x (1 - a) + a * brightness.

    density: streaks begun per pixel. length in pixels; angle in degrees from the x axis, 90 =
    falling straight; opacity of the middle of a streak.
    """

    kind = "rain"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "density": Parameter(0.0005, 0.01, 0, 0.05),
        "length": Parameter(9, 31, 1, 127),
        "angle": Parameter(60, 120, 45, 135),
        "opacity": Parameter(0.3, 0.8, 0, 1),
    }
    unit = "opacity"
    light = True
    pointwise = True
    extent = 1.5  # the nearest layer's streaks are this much longer than drawn

    def draw(
        self, ranges: Mapping[str, Range], rng: torch.Generator, regions: Array | None
    ) -> None:
        u = uniform(rng, 7)
        density = self.number(ranges, "density", u[0])
        length = self.number(ranges, "length", u[1])
        angle = self.number(ranges, "angle", u[2])
        opacity = self.number(ranges, "opacity", u[3])
        layers = 1 + int(u[4] * 5)
        self.brightness = np.float32(Range(0.75, 1).at(u[5]))
        self.veil = np.float32(0.12 * u[6] * opacity * min(1, density / 0.01))
        v = uniform(rng, 4 * layers).reshape(layers, 4)
        near = np.sort(v[:, 0])  # 0 far .. 1 near
        lean = (v[:, 1] - 0.5) * (30 if layers > 1 else 6)
        share = (0.2 + v[:, 2]) * (1.3 - near)
        share /= share.sum()
        self.drawn |= {"layers": layers, "veil": round(float(self.veil), 5)}
        # One place per streak on the frame and what can hang into it from outside, sorted by row:
        # gaps between sorted uniform numbers are exponential.
        height, width = self.size
        pad = self.extent * length
        n = round(density * (height + 2 * pad) * (width + 2 * pad))
        t = torch.rand(6, n + 1, generator=rng).numpy()
        gaps = np.cumsum(-np.log(1 - t[0]), dtype=np.float64)
        y = gaps[:-1] * ((height + 2 * pad) / gaps[-1]) - pad
        x = t[1, :-1].astype(np.float64) * (width + 2 * pad) - pad
        lean_own, long_own, which = t[2, :-1], t[3, :-1], t[4, :-1]
        layer = np.minimum(np.searchsorted(np.cumsum(share), which), layers - 1)
        z = near[layer].astype(np.float32)
        theta = np.radians(angle + lean[layer] + 6 * (lean_own - 0.5)).astype(np.float32)
        # A place is a whole pixel and the rest, so that arithmetic is the same in every view.
        self.row, self.column = np.floor(y).astype(np.int32), np.floor(x).astype(np.int32)
        self.y, self.x = (y - self.row).astype(np.float32), (x - self.column).astype(np.float32)
        long = np.float32(length) * (0.6 + 0.7 * z) * (0.85 + 0.3 * long_own)
        self.half = np.maximum(long * np.sin(theta) / 2, 0.5).astype(np.float32)
        self.slope = (-np.cos(theta) / np.sin(theta)).astype(np.float32)  # columns per row
        self.width = (0.55 + 0.25 * z + 1.1 * z**4).astype(np.float32)  # sigma across, pixels
        # A wide streak holds the same water as a narrow one, so it is fainter.
        self.opacity = opacity * (0.75 + 0.25 * v[:, 3])[layer] * np.minimum(1, 0.8 / self.width)
        self.opacity = self.opacity.astype(np.float32)
        longest = self.half.max() if n else 0
        self.reach = math.ceil(longest + 2)  # rows above and below a streak's place
        self.steps = np.arange(int(2 * longest + 2), dtype=np.float32)
        self.lean = math.ceil(np.abs(self.slope).max() * self.reach) if n else 0
        self._seen: tuple[View, Array] | None = None

    def cover(self, view: View) -> Array:
        """(h, w) opacity of rain and veil, in [0, 1]."""
        if self._seen is not None and self._seen[0] == view:
            return self._seen[1]
        canvas = self._density(view).astype(np.float32)
        clear = np.exp(canvas, out=canvas)
        clear *= 1 - self.veil
        cover = np.subtract(1, clear, out=clear)
        self._seen = (view, cover)
        return cover

    def _density(self, view: View) -> Array:
        """(h, w) float64 sum of log(1 - a) over the streaks that hang into a view."""
        side = 4  # columns that the widest streak covers to each side of its middle
        stride = view.width + 4 * side  # a canvas on which what shows, however little, lies whole
        ends = view.top - self.reach, view.top + view.height + self.reach
        first, last = self.row.searchsorted(np.array(ends, self.row.dtype))
        column = self.column[first:last]
        there = column >= view.left - self.lean - side
        there &= column < view.left + view.width + self.lean + side
        at = np.flatnonzero(there)
        if not at.size:
            return np.zeros((view.height, view.width))
        at += first
        half, slope, y = (part.take(at)[:, None] for part in (self.half, self.slope, self.y))
        start = np.ceil(y - half - np.float32(0.5))
        down = start + self.steps  # (streaks, steps)
        along = down - y
        across = along * slope
        across += self.x.take(at)[:, None]
        middle = np.floor(across + np.float32(0.5))
        across -= middle
        # Full in the middle, gone at the ends, antialiased over the last half pixel.
        ratio = along * (1 / (half + np.float32(1)))
        ratio *= ratio
        ratio *= ratio
        np.subtract(np.float32(1), ratio, out=ratio)
        fade = np.subtract(half + np.float32(0.5), np.abs(along, out=along), out=along)
        np.minimum(np.maximum(fade, 0, out=fade), 1, out=fade)
        fade *= ratio
        fade *= self.opacity.take(at)[:, None]
        row, column = down.astype(np.int32), middle.astype(np.int32)
        row += (self.row.take(at) - np.int32(view.top))[:, None]
        column += (self.column.take(at) - np.int32(view.left - 2 * side))[:, None]
        inside = fade > 0
        for place, low, high in ((row, 0, view.height), (column, side, stride - side)):
            inside &= place >= low
            inside &= place < high
        row *= np.int32(stride)
        row += column
        width = self.width.take(at)
        spread, wide = np.float32(-0.5) / np.square(width), (width > 0.8)[:, None]
        places, logs = [], []
        for of, reach in ((~wide, 2), (wide, side)):
            keep = np.flatnonzero(inside & of)
            if not keep.size:
                continue
            steps = np.arange(-reach, reach + 1, dtype=np.int32)
            off = across.take(keep)[:, None] - steps.astype(np.float32)
            off *= off
            off *= spread.take(keep // self.steps.size)[:, None]
            weight = np.exp(off, out=off)
            weight *= fade.take(keep)[:, None]
            np.minimum(weight, np.float32(0.99), out=weight)
            np.log(np.subtract(np.float32(1), weight, out=weight), out=weight)
            places.append((row.take(keep)[:, None] + steps).ravel())
            logs.append(weight.ravel())
        if not places:
            return np.zeros((view.height, view.width))
        place, log = (
            each[0] if len(each) == 1 else np.concatenate(each) for each in (places, logs)
        )
        dense = np.bincount(place, log, view.height * stride).reshape(view.height, stride)
        return dense[:, 2 * side : -2 * side]

    def apply(self, x: Array, view: View) -> Array:
        out = self.brightness - x
        out *= self.cover(view)
        out += x
        return out

    def truth(self, x: Array, view: View) -> Array:
        return self.cover(view)

    def small(self, x: Array) -> Array:
        h, w = x.shape[-2:]
        fy, fx = h / self.size[0], w / self.size[1]
        # A streak as four points. It is 2 half + 1 long, of which the fade leaves 4/5, and
        # sqrt(2 pi) sigma across.
        mass = self.opacity * (self.half + np.float32(0.5)) * self.width
        mass *= np.float32(8 / 5 * math.sqrt(2 * math.pi) / 4 * fy * fx)
        along = np.array([-0.75, -0.25, 0.25, 0.75], np.float32)[:, None] * self.half
        row = np.floor((self.row + along) * np.float32(fy)).astype(np.int64)
        column = np.floor((self.column + along * self.slope) * np.float32(fx)).astype(np.int64)
        inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
        mass = np.broadcast_to(mass, row.shape)
        dense = np.bincount(row[inside] * w + column[inside], mass[inside], h * w)
        cover = 1 - (1 - self.veil) * np.exp(-dense.astype(np.float32)).reshape(h, w)
        return x + cover * (self.brightness - x)


class Raindrop(Damage):
    """Drops on the glass: each shows the scene around it upside down, demagnified and out of focus.

    `blur` is the sigma of what is seen through a drop and sets how soft its border is; radius is
    drawn per drop, in pixels; `count` drops lie on the whole photograph.
    """

    kind = "raindrop"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "count": Parameter(10, 80, 0, 1000),
        "radius": Parameter(4, 40, 1, 200),
        "blur": Parameter(2, 8, 0.5, 32),
    }
    unit = "coverage of the drop"
    light = True
    lens = (0.35, 0.85)  # a drop's middle and rim show points this far off, in their own distance
    grid = 4  # the scene is blurred on a grid of this many pixels

    def draw(
        self, ranges: Mapping[str, Range], rng: torch.Generator, regions: Array | None
    ) -> None:
        u = uniform(rng, 2)
        count = round(self.number(ranges, "count", u[0]))
        blur = self.number(ranges, "blur", u[1])
        self.drawn["count"] = count
        v = uniform(rng, 9 * count).reshape(count, 9)
        self.radius = ranges["radius"].at(v[:, 2])
        self.drawn["radius"] = [round(float(r), 2) for r in self.radius]
        self.cy, self.cx = v[:, 0] * self.size[0], v[:, 1] * self.size[1]
        self.tall = 1 + 0.25 * v[:, 3]
        self.wobble = np.stack(
            [0.14 * v[:, 4], 2 * np.pi * v[:, 5], 0.08 * v[:, 6], np.pi * v[:, 7]]
        )
        self.shade = 0.75 + 0.35 * v[:, 8]
        self.border = np.minimum(1 + 0.5 * blur, 0.7 * self.radius)
        most = 1 + self.wobble[0] + self.wobble[2]
        self.out = self.radius * self.tall * most + self.border / 2 + 1
        self.sigma = blur / self.grid
        taps = math.ceil(2.5 * self.sigma)
        k = np.exp(-0.5 * (np.arange(-taps, taps + 1) / max(self.sigma, 1e-3)) ** 2)
        self.taps = (k / k.sum()).astype(np.float32)

    def over(self, view: View) -> Array:
        """Indices of the drops whose outline may touch a view."""
        dy = np.abs(self.cy - (view.top + view.height / 2)) - view.height / 2
        dx = np.abs(self.cx - (view.left + view.width / 2)) - view.width / 2
        return np.flatnonzero((dy < self.out) & (dx < self.out))

    def reads(self, view: View) -> View:
        drops = self.over(view)
        if not drops.size:
            return view
        margin = self.grid * (len(self.taps) // 2 + 2)

        def seen(start: int, length: int, centre: Array) -> tuple[int, int]:
            """Where the parts of the drops that lie in start..start+length look to."""
            out = self.out[drops]
            near = np.maximum(start - centre, -out)
            far = np.minimum(start + length - centre, out)
            ends = np.stack([centre - bend * end for bend in self.lens for end in (near, far)])
            low, high = math.floor(ends.min()) - margin, math.ceil(ends.max()) + margin
            return min(start, low), max(start + length, high)

        top, bottom = seen(view.top, view.height, self.cy[drops])
        left, right = seen(view.left, view.width, self.cx[drops])
        return View(top, left, bottom - top, right - left).aligned(self.grid)

    def box(self, drop: int, view: View) -> View:
        out = math.ceil(self.out[drop])
        top, left = math.floor(self.cy[drop]) - out, math.floor(self.cx[drop]) - out
        bottom = min(top + 2 * out + 1, view.top + view.height)
        right = min(left + 2 * out + 1, view.left + view.width)
        top, left = max(top, view.top), max(left, view.left)
        return View(top, left, bottom - top, right - left)

    def shape(self, drop: int, box: View) -> tuple[Array, Array, Array, Array]:
        """(dy, dx, rho, cover) over a box: offsets from the centre, 0..1 inside, coverage."""
        dy = (np.arange(box.top, box.top + box.height) - self.cy[drop]).astype(np.float32)[:, None]
        dx = (np.arange(box.left, box.left + box.width) - self.cx[drop]).astype(np.float32)
        y = dy * np.float32(1 / self.tall[drop])
        r = np.sqrt(y * y + dx * dx)
        theta = np.arctan2(y, dx)
        a2, p2, a3, p3 = (np.float32(v) for v in self.wobble[:, drop])
        outline = 1 + a2 * np.cos(2 * theta + p2) + a3 * np.cos(3 * theta + p3)
        outline *= np.float32(self.radius[drop])
        cover = np.clip((outline - r) * np.float32(1 / self.border[drop]) + np.float32(0.5), 0, 1)
        cover = cover * cover * (3 - 2 * cover)
        return dy, dx, r / outline, cover

    def apply(self, x: Array, view: View) -> Array:
        drops = self.over(view)
        outer = self.reads(view)
        out = view.cut(x, outer).copy()
        if not drops.size:
            return out
        g = self.grid
        rows = sum((x[:, i::g] for i in range(1, g)), x[:, 0::g])
        soft = sum((rows[:, :, i::g] for i in range(1, g)), rows[:, :, 0::g]) * np.float32(g**-2)
        for axis in (1, 2):
            soft = _correlate(soft, self.taps, axis)
        for drop in drops:
            box = self.box(drop, view)
            if box.height <= 0 or box.width <= 0:
                continue
            dy, dx, rho, cover = self.shape(drop, box)
            inside = np.minimum(rho, 1)
            bend = -np.float32(self.lens[0]) - np.float32(self.lens[1] - self.lens[0]) * inside**2
            sy = (np.float32(self.cy[drop] + 0.5) + dy * bend) / g - np.float32(0.5)
            sx = (np.float32(self.cx[drop] + 0.5) + dx * bend) / g - np.float32(0.5)
            seen = _bilinear(soft, sy, sx, outer.top // g, outer.left // g)
            # Light that meets the rim at a low angle goes elsewhere.
            seen *= np.float32(self.shade[drop]) * (1 - np.float32(0.35) * inside**6)
            here = box.cut(out, view)
            here += cover * (seen - here)
        return out

    def truth(self, x: Array, view: View) -> Array:
        clear = np.ones((view.height, view.width), np.float32)
        for drop in self.over(view):
            box = self.box(drop, view)
            if box.height > 0 and box.width > 0:
                box.cut(clear, view)[...] *= 1 - self.shape(drop, box)[3]
        return 1 - clear

    def small(self, x: Array) -> Array:
        h, w = x.shape[-2:]
        if not len(self.radius):
            return x
        fy, fx = h / self.size[0], w / self.size[1]
        ry = np.maximum(self.radius * self.tall * fy, 0.3).astype(np.float32)[:, None, None]
        rx = np.maximum(self.radius * fx, 0.3).astype(np.float32)[:, None, None]
        reach = min(max(math.ceil(ry.max() + 1), math.ceil(rx.max() + 1)), max(h, w))
        d = np.arange(-reach, reach + 1)
        rows = np.floor(self.cy * fy).astype(np.int64)[:, None] + d
        columns = np.floor(self.cx * fx).astype(np.int64)[:, None] + d
        y = (rows + 0.5 - (self.cy * fy)[:, None]).astype(np.float32)[:, :, None]
        z = (columns + 0.5 - (self.cx * fx)[:, None]).astype(np.float32)[:, None, :]
        rho = np.sqrt(np.square(y / ry) + np.square(z / rx))
        cover = np.clip((1 - rho) * np.minimum(ry, rx) + np.float32(0.5), 0, np.float32(0.98))
        cover *= ((rows >= 0) & (rows < h))[:, :, None] & ((columns >= 0) & (columns < w))[
            :, None, :
        ]
        drop, i, j = np.nonzero(cover)
        weight = -np.log1p(-cover[drop, i, j])
        place = rows[drop, i] * w + columns[drop, j]
        inside = np.minimum(rho[drop, i, j], 1)
        bend = 1 + np.float32(self.lens[0]) + np.float32(self.lens[1] - self.lens[0]) * inside**2
        row = np.clip(np.rint(rows[drop, i] - y[drop, i, 0] * bend), 0, h - 1).astype(np.int64)
        column = np.clip(np.rint(columns[drop, j] - z[drop, 0, j] * bend), 0, w - 1)
        source = row * w + column.astype(np.int64)
        lit = weight * self.shade[drop].astype(np.float32) * (1 - np.float32(0.35) * inside**6)
        flat = x.reshape(3, -1)
        seen = np.stack([np.bincount(place, lit * c[source], h * w) for c in flat])
        dense = np.bincount(place, weight, h * w)
        cover = (1 - np.exp(-dense)).astype(np.float32)
        seen = (seen / np.maximum(dense, 1e-6)).astype(np.float32)
        return (flat + cover * (seen - flat)).reshape(x.shape)


def _correlate(x: Array, taps: Array, axis: int) -> Array:
    """Along one axis with a symmetric kernel; the border is continued by its own value."""
    r = len(taps) // 2
    n = x.shape[axis]
    out = x * taps[r]
    index = np.arange(n)
    for k in range(1, r + 1):
        pair = x.take(np.minimum(index + k, n - 1), axis) + x.take(np.maximum(index - k, 0), axis)
        out += pair * taps[r + k]
    return out


def _bilinear(x: Array, rows: Array, columns: Array, top: int = 0, left: int = 0) -> Array:
    """(c, h, w), whose first sample is (top, left), at fractional places; outside, the border."""
    h, w = x.shape[-2:]
    r0, c0 = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    fr, fc = (rows - r0).astype(np.float32), (columns - c0).astype(np.float32)
    r0, c0 = r0 - top, c0 - left
    r0, r1 = np.clip(r0, 0, h - 1), np.clip(r0 + 1, 0, h - 1)
    c0, c1 = np.clip(c0, 0, w - 1), np.clip(c0 + 1, 0, w - 1)
    flat = x.reshape(x.shape[0], -1)
    upper = flat[:, r0 * w + c0] * (1 - fc) + flat[:, r0 * w + c1] * fc
    lower = flat[:, r1 * w + c0] * (1 - fc) + flat[:, r1 * w + c1] * fc
    return upper * (1 - fr) + lower * fr


class Haze(Damage):
    """Scattering over distance: light * t + airlight * (1 - t), t = exp(-beta * depth).

    Depth runs from 0.2 to 1. With regions it follows objects: each stands at its own distance on a
    ground that recedes. Without, it is a tilted plane with slow swells. Airlight has a slight tint.
    """

    kind = "haze"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "beta": Parameter(0.05, 1.2, 0, 8),
        "airlight": Parameter(0.7, 1, 0, 1),
    }
    unit = "1 - transmission"
    light = True
    pointwise = True
    follows_regions = True
    side = 192  # samples of the depth field along the longer side, at most

    def draw(
        self, ranges: Mapping[str, Range], rng: torch.Generator, regions: Array | None
    ) -> None:
        u = uniform(rng, 7)
        self.beta = self.number(ranges, "beta", u[0])
        light = self.number(ranges, "airlight", u[1])
        # Between dusk's warm and the sky's blue, at most 8 % apart.
        warm, green = 0.08 * (u[2] - 0.5), 0.03 * (u[3] - 0.5)
        tint = np.clip(light * (1 + np.array([warm, green, -warm])), 0, 1)
        self.airlight = tint.astype(np.float32)[:, None, None]
        self.drawn["airlight_rgb"] = [round(float(v), 4) for v in tint]
        height, width = self.size
        longest = max(height, width)
        side = min(self.side, longest) if regions is not None else min(24, longest)
        h, w = (max(2, round(side * s / longest)) for s in self.size)
        y = np.linspace(0, 1, h, dtype=np.float32)[:, None]
        x = np.linspace(0, 1, w, dtype=np.float32)
        # Mostly the ground before the horizon: far is up. Sometimes a street to one side.
        depth = (1 - y) * np.float32(0.4 + 0.8 * u[4]) + x * np.float32(1.2 * (u[5] - 0.5))
        swell = uniform(rng, 16).astype(np.float32).reshape(1, 4, 4)
        rows, columns = np.broadcast_arrays(3 * y, 3 * x)
        depth = depth + np.float32(0.5 * u[6]) * _bilinear(swell, rows, columns)[0]
        if regions is not None:
            labels = regions[np.arange(h) * regions.shape[0] // h][
                :, np.arange(w) * regions.shape[1] // w
            ]
            _, flat = np.unique(labels, return_inverse=True)
            flat = flat.ravel()
            area = np.bincount(flat)
            mean = np.bincount(flat, depth.ravel()) / area
            own = mean + 0.5 * (uniform(rng, len(area)) - 0.5)
            depth = 0.35 * depth + 0.65 * own.astype(np.float32)[flat].reshape(h, w)
        low, high = float(depth.min()), float(depth.max())
        depth = 0.2 + 0.8 * (depth - low) / max(high - low, 1e-6)
        self.optical = (depth * np.float32(-self.beta)).astype(np.float32)

    def transmission(self, rows: Array, columns: Array) -> Array:
        """(len(rows), len(columns)) at float32 places in the frame's pixels, both ascending."""
        top, down = _between(rows, self.optical.shape[0], self.size[0])
        left, right = _between(columns, self.optical.shape[1], self.size[1])
        # Only the grid's part that shows, first along the columns, then along the rows.
        part = self.optical[top[0] : top[-1] + 2]
        across = part.take(left + 1, 1)
        near = part.take(left, 1)
        across -= near
        across *= right
        across += near
        top -= top[0]
        near = across.take(top, 0)
        optical = across.take(top + 1, 0)
        optical -= near
        optical *= down[:, None]
        optical += near
        return np.exp(optical, out=optical)

    def field(self, view: View) -> Array:
        rows = np.arange(view.top, view.top + view.height, dtype=np.float32) + np.float32(0.5)
        columns = np.arange(view.left, view.left + view.width, dtype=np.float32) + np.float32(0.5)
        return self.transmission(rows, columns)

    def apply(self, x: Array, view: View) -> Array:
        out = x - self.airlight
        out *= self.field(view)
        out += self.airlight
        return out

    def truth(self, x: Array, view: View) -> Array:
        return 1 - self.field(view)

    def small(self, x: Array) -> Array:
        h, w = x.shape[-2:]
        rows = (np.arange(h, dtype=np.float32) + np.float32(0.5)) * np.float32(self.size[0] / h)
        columns = (np.arange(w, dtype=np.float32) + np.float32(0.5)) * np.float32(self.size[1] / w)
        return self.airlight + (x - self.airlight) * self.transmission(rows, columns)


def _between(at: Array, count: int, size: int) -> tuple[Array, Array]:
    """Where places along an axis of `size` pixels lie on a grid of `count` samples.

    Returns:
        The sample before each, and the way on to the next, 0..1; float32, in the place of `at`.
    """
    at *= np.float32(count / size)
    at -= np.float32(0.5)
    np.minimum(np.maximum(at, 0, out=at), np.float32(count - 1), out=at)
    before = np.minimum(at.astype(np.intp), count - 2)
    at -= before.astype(np.float32)
    return before, at
