"""Prints and negatives, scanned: scratches and dust. All in linear light."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
import torch

from .damage import Damage, Parameter, Range, uniform
from .view import Array, View

OPAQUE = 0.9995  # as optical depth, complete opacity would have no end

# What shows where a mark lies: light * keep + add, (share of the marks, keep RGB, add RGB).
Look = tuple[float, tuple[float, float, float], tuple[float, float, float]]


class Marks(NamedTuple):
    """Pieces of marks: where they lie, whose look they have, how much they hide."""

    place: Array
    look: Array
    depth: Array  # optical, -log(1 - coverage): what lies on top of each other adds up


class Marked(Damage):
    """What lies on the original or is torn out of it: a coverage, and what shows in its place.

    Marks that overlap hide 1 - prod(1 - a), in any order, and show the mean of their looks,
    weighted by optical depth; light becomes x (1 - a) + a (x * keep + add).

    The original is drawn, and with it what marks look like: on a print they show paper or lie on
    it; what holds back light is white on a negative, which is turned about, and black on a slide.
    """

    looks: ClassVar[Mapping[str, tuple[Look, ...]]]
    light = True
    pointwise = True

    def draw_looks(self, rng: torch.Generator, count: int) -> Array:
        """Draw the original, how its marks look, and which of the looks each mark has, (count,)."""
        u = uniform(rng, 1)
        self.original = list(self.looks)[int(u[0] * len(self.looks))]
        self.drawn["original"] = self.original
        looks = self.looks[self.original]
        v = uniform(rng, 2 * len(looks)).reshape(2, -1)
        # No two photographs have the same whites, and some have more of one look than others.
        share = np.array([look[0] for look in looks]) * (0.2 + v[0])
        self.keep = np.array([look[1] for look in looks]).T  # (3, looks)
        self.add = np.array([look[2] for look in looks]).T * (0.8 + 0.2 * v[1])
        self._seen: tuple[View, tuple[Array, Array, Array, Array]] | None = None
        which = np.searchsorted(np.cumsum(share) / share.sum(), uniform(rng, count), "right")
        return np.minimum(which, len(looks) - 1)

    @abstractmethod
    def marks(self, view: View) -> list[Marks]:
        """What shows of the marks in a view; `place` is an index into its h * w pixels."""

    @abstractmethod
    def points(self) -> tuple[Array, Array, Array, Array]:
        """All marks as points: row and column in the frame, pixels covered, look."""

    def mixture(self, parts: list[Marks], pixels: int) -> tuple[Array, Array, Array, Array]:
        """(places, coverage, keep, add) of those of `pixels` that something covers."""
        if not parts:
            none = np.zeros((3, 0))
            return np.zeros(0, np.intp), np.zeros(0, np.float32), none, none
        place, look, depth = (
            part[0] if len(part) == 1 else np.concatenate(part) for part in zip(*parts, strict=True)
        )
        looks = self.keep.shape[1]
        dense = np.bincount(look * pixels + place, depth, looks * pixels).reshape(looks, pixels)
        total = dense.sum(0)
        where = np.flatnonzero(total)
        share = dense.take(where, 1)
        total = total.take(where)
        share /= total
        cover = -np.expm1(-total)
        return where, cover.astype(np.float32), self.keep @ share, self.add @ share

    def over(self, view: View) -> tuple[Array, Array, Array, Array]:
        if self._seen is None or self._seen[0] != view:
            self._seen = (view, self.mixture(self.marks(view), view.height * view.width))
        return self._seen[1]

    def apply(self, x: Array, view: View) -> Array:
        return self.mixed(x, *self.over(view))

    def mixed(self, x: Array, where: Array, cover: Array, keep: Array, add: Array) -> Array:
        out = np.array(x, np.float32, order="C")
        if where.size:
            flat = out.reshape(3, -1)
            under = flat.take(where, 1)
            flat[:, where] = under + cover * (under * keep + add - under)
        return out

    def truth(self, x: Array, view: View) -> Array:
        where, cover, _, _ = self.over(view)
        whole = np.zeros(view.height * view.width, np.float32)
        whole[where] = cover
        return whole.reshape(view.height, view.width)

    def small(self, x: Array) -> Array:
        h, w = x.shape[-2:]
        y, z, area, look = self.points()
        row = np.floor(y * (h / self.size[0])).astype(np.intp)
        column = np.floor(z * (w / self.size[1])).astype(np.intp)
        inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
        share = area[inside] * (h * w / (self.size[0] * self.size[1]))
        parts = [Marks((row * w + column)[inside], look[inside], share)] if inside.any() else []
        return self.mixed(x, *self.mixture(parts, h * w))


class Scratch(Marked):
    """Scratches: thin, long, nearly straight, of uneven pressure, some broken, some with a kink.

    What they show is what is left of the original. Paper, or the clear base: where the layers go
    one after the other from the top, the first takes its own dye, the second another (a negative's
    layers are yellow, magenta, cyan from the top, paper has them the other way round). A scratch of
    the back of a film only scatters light. Half of the films were scratched by their transport:
    lines along one side of the picture. `count` scratches lie on the whole photograph.
    """

    kind = "scratch"
    parameters: ClassVar[Mapping[str, Parameter]] = {"count": Parameter(1, 40, 0, 1000)}
    unit = "coverage of the scratch"
    looks: ClassVar[Mapping[str, tuple[Look, ...]]] = {
        "print": (
            (6, (0, 0, 0), (0.9, 0.88, 0.83)),  # down to the paper
            (3, (0.5, 0.5, 0.5), (0.35, 0.35, 0.35)),  # the gloss is gone
            (1, (0.3, 0.9, 1), (0.5, 0.02, 0)),  # without most of its cyan: red
            (1, (0.1, 0.3, 0.9), (0.78, 0.5, 0.03)),  # without cyan and magenta: yellow
            (1, (0.3, 0.3, 0.3), (0.02, 0.018, 0.015)),  # dirt in it
        ),
        "negative": (
            (5, (0, 0, 0), (0.95, 0.95, 0.95)),  # of the back: holds light back
            (2, (0, 0, 0), (0.003, 0.003, 0.003)),  # down to the base
            (1, (1, 0.9, 0.2), (0, 0, 0.003)),  # little yellow dye: as if no blue had come
            (1, (0.9, 0.3, 0.1), (0, 0.003, 0.003)),
        ),
        "slide": (
            (3, (0.1, 0.1, 0.1), (0, 0, 0)),  # of the back
            (3, (0, 0, 0), (0.98, 0.98, 0.98)),  # down to the base
            (1, (1, 0.9, 0.2), (0, 0.02, 0.65)),  # without most of its yellow: blue
            (1, (0.9, 0.3, 0.1), (0, 0.5, 0.8)),  # cyan is what is left
        ),
    }

    def draw(
        self, ranges: Mapping[str, Range], rng: torch.Generator, regions: Array | None
    ) -> None:
        u = uniform(rng, 4)
        n = self.drawn["count"] = round(self.number(ranges, "count", u[0]))
        self.look = self.draw_looks(rng, n)
        v = uniform(rng, 23 * n).reshape(23, n)
        self.noise = torch.rand(1025, generator=rng).numpy()
        diagonal = math.hypot(*self.size)
        film = self.original != "print" and bool(u[1] < 0.5)
        self.drawn["transport"] = film
        along_film = (v[0] < 0.7) & film
        side = 90 * int(u[2] * 2) + 3 * (u[3] - 0.5)
        angle = np.radians(np.where(along_film, side + 2 * (v[1] - 0.5), 180 * v[1]))
        length = np.where(
            along_film, Range(0.4, 2.5, log=True).at(v[2]), Range(0.05, 0.8, log=True).at(v[2])
        )
        length = np.maximum(length * diagonal, 4)
        down, right = np.abs(np.sin(angle)), np.cos(angle)
        # A path runs along the axis it keeps closer to: a function of the row, or of the column.
        self.lying = np.abs(right) > down
        cosine = np.maximum(down, np.abs(right))
        self.half = length * cosine / 2
        # A scratch's middle is a whole pixel and the rest, so that arithmetic is the same in every
        # view.
        middle = v[3] * self.size[0], v[4] * self.size[1]
        self.along = np.floor(np.where(self.lying, *middle[::-1])).astype(np.int64)
        across = np.where(self.lying, *middle)
        self.across = np.floor(across).astype(np.int64)
        self.start = across - self.across
        self.slope = np.where(self.lying, np.sin(angle) / right, right / np.sin(angle))
        straight = np.where(along_film, 0.1, 1)
        self.bend = straight * 0.1 * (2 * v[5] - 1) ** 3 * length / self.half**2
        self.kink = np.where((v[6] < 0.3) & ~along_film, 0.7 * (v[7] - 0.5), 0)
        self.kink_at = (1.6 * v[8] - 0.8) * self.half
        self.wander = straight * 2.5 * v[9] ** 2
        self.width = Range(0.6, 3, log=True).at(v[10] ** 1.5)
        self.soft = 1.1 + 0.9 * v[11] ** 2  # the scanner's lens and pixel: how wide an edge becomes
        self.peaked = 0.6 * v[12]
        self.opacity = 1 - 0.75 * v[13] ** 1.5
        self.uneven = 0.85 * v[14]
        self.pressure = Range(8, 120, log=True).at(v[15])  # pixels from one pressure to the next
        broken = v[16] < 0.35
        self.gap = np.where(broken, 0.15 + 0.45 * v[17], -1)
        self.piece = Range(3, 60, log=True).at(v[18])
        self.grain = Range(1.5, 6).at(v[22])
        self.tail = np.maximum((0.02 + 0.5 * v[19] ** 2) * self.half, 1)
        self.phase = (v[20:23] * 1024).astype(np.int64)
        # How far a path strays from its middle, and how far its edge can lie from the path.
        stray = np.abs(self.slope) * self.half + np.abs(self.bend) * self.half**2
        stray += np.abs(self.kink) * 2 * self.half + self.wander + 2
        steep = np.abs(self.slope) + 2 * np.abs(self.bend) * self.half + np.abs(self.kink)
        self.reach = (0.625 * self.width + self.soft / 2) * np.hypot(1, steep) + 1
        self.stray = stray + self.reach

    def level(self, which: int, t: Array, of: Array, step: Array) -> Array:
        """Smooth noise in [0, 1] along scratches `of`, with a new value every `step` pixels."""
        s = t / step.take(of)
        whole = np.floor(s)
        s -= whole
        at = (whole.astype(np.int64) + self.phase[which].take(of)) & 1023
        before = self.noise.take(at)
        return before + s * (self.noise.take(at + 1) - before)

    def path(self, t: Array, of: Array) -> tuple[Array, Array]:
        """(across, slope) at `t` pixels along from the middle of scratches `of`, float64."""
        bend, kink = self.bend.take(of), self.kink.take(of)
        slope = self.slope.take(of)
        past = t - self.kink_at.take(of)
        turned = kink * (past > 0)
        across = self.start.take(of) + t * (slope + bend * t) + turned * past
        return across, slope + 2 * bend * t + turned

    def strength(self, t: Array, of: Array) -> Array:
        """Opacity in the middle of scratches `of` at `t`, in [0, 1]."""
        uneven = self.uneven.take(of)
        opacity = self.opacity.take(of) * (1 - uneven * self.level(0, t, of, self.pressure))
        # Pieces and gaps of all lengths: slow noise with quick noise on it.
        hold = 0.65 * self.level(1, t, of, self.piece) + 0.35 * self.level(2, t, of, self.piece / 5)
        whole = (hold - self.gap.take(of)) * 4
        opacity *= np.minimum(np.maximum(whole, 0), 1)
        left = (self.half.take(of) - np.abs(t)) / self.tail.take(of)
        opacity *= np.minimum(np.maximum(left, 0), 1)
        return opacity

    def marks(self, view: View) -> list[Marks]:
        found = []
        for lying in (False, True):
            v = View(view.left, view.top, view.width, view.height) if lying else view
            there = self.lying == lying
            off = np.abs(self.along - (v.top + v.height / 2)) - v.height / 2
            there &= off <= self.half
            off = np.abs(self.across - (v.left + v.width / 2)) - v.width / 2
            there &= off <= self.stray
            at = np.flatnonzero(there)
            if at.size:
                found += self._rasterised(at, v, lying)
        return found

    def _rasterised(self, at: Array, v: View, lying: bool) -> list[Marks]:
        """Scratches `at` in a view whose rows run along them."""
        t = np.arange(v.top, v.top + v.height) - self.along.take(at)[:, None]
        line, step = np.nonzero(np.abs(t) <= self.half.take(at)[:, None])
        of = at.take(line)
        t = t[line, step].astype(np.float64)
        across, slope = self.path(t, of)
        shift = self.across.take(of) - v.left
        near = np.flatnonzero(
            (across + shift > -self.reach.take(of) - 3)
            & (across + shift < v.width + self.reach.take(of) + 3)
        )
        step, of, t, across, slope, shift = (
            each.take(near) for each in (step, of, t, across, slope, shift)
        )
        if not of.size:
            return []
        across += self.wander.take(of) * (self.level(2, t, of, self.pressure) - 0.5)
        strength = self.strength(t, of)
        cosine = 1 / np.sqrt(1 + slope * slope)
        # Ragged edges: another width every few pixels of the way.
        width = self.width.take(of) * (0.75 + 0.5 * self.level(2, t, of, self.grain))
        soft = self.soft.take(of)
        middle = np.floor(across + 0.5)
        reach = math.ceil(self.reach.take(at).max())
        taps = np.arange(-reach, reach + 1)
        d = np.abs((taps + (middle - across)[:, None]) * cosine[:, None]).astype(np.float32)
        # The scanner's box over the scratch's box: a trapezoid, never more than the scratch covers.
        edge = ((width + soft) / 2).astype(np.float32)[:, None]
        cover = (edge - d) * (1 / soft).astype(np.float32)[:, None]
        cover = np.minimum(cover, np.minimum(1, width / soft).astype(np.float32)[:, None])
        d /= edge
        cover *= np.maximum(1 - self.peaked.take(of).astype(np.float32)[:, None] * (d * d), 0)
        cover *= strength.astype(np.float32)[:, None]
        column = (middle.astype(np.int64) + shift)[:, None] + taps
        keep = np.flatnonzero((cover > 0) & (column >= 0) & (column < v.width))
        if not keep.size:
            return []
        of_piece = keep // taps.size
        column, row = column.ravel().take(keep), step.take(of_piece)
        place = column * v.height + row if lying else row * v.width + column
        depth = -np.log1p(-np.minimum(cover.ravel().take(keep), np.float32(OPAQUE)))
        return [Marks(place, self.look.take(of).take(of_piece), depth)]

    def points(self) -> tuple[Array, Array, Array, Array]:
        many = 64
        of = np.repeat(np.arange(self.half.size), many)
        u = np.tile((np.arange(many) + 0.5) / many * 2 - 1, self.half.size)
        half = self.half.take(of)
        t = np.rint(u * half)
        across, slope = self.path(t, of)
        along, across = self.along.take(of) + t, self.across.take(of) + across
        area = self.strength(t, of) * (1 - self.peaked.take(of) / 4) * self.width.take(of)
        area *= np.hypot(1, slope) * (2 * half / many)
        lying = self.lying.take(of)
        y, x = np.where(lying, across, along), np.where(lying, along, across)
        return y, x, area, self.look.take(of)


class Dust(Marked):
    """Dust: specks of irregular outline, and hairs: short threads that curl.

    radius is half the longest side of the largest speck, in pixels; the smallest have a quarter of
    it. A hair is 5 to 20 such radii long and one or two pixels thick. Dust lies a little off what
    the scanner sees sharply. `count` specks and hairs lie on the whole photograph.
    """

    kind = "dust"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "count": Parameter(10, 400, 0, 10000),
        "radius": Parameter(1, 6, 0.5, 50),
    }
    unit = "coverage of the dust"
    looks: ClassVar[Mapping[str, tuple[Look, ...]]] = {
        "print": (
            (4, (0, 0, 0), (0.75, 0.75, 0.74)),  # lint, lit by the scanner's lamp
            (2, (0, 0, 0), (0.45, 0.42, 0.36)),
            (2, (0, 0, 0), (0.05, 0.04, 0.03)),
        ),
        "negative": ((3, (0, 0, 0), (0.95, 0.95, 0.95)), (1, (0, 0, 0), (0.8, 0.88, 0.95))),
        "slide": ((3, (0, 0, 0), (0.003, 0.003, 0.003)), (1, (0, 0, 0), (0.04, 0.03, 0.02))),
    }

    def draw(
        self, ranges: Mapping[str, Range], rng: torch.Generator, regions: Array | None
    ) -> None:
        u = uniform(rng, 4)
        n = self.drawn["count"] = round(self.number(ranges, "count", u[0]))
        look = self.draw_looks(rng, n)
        v = uniform(rng, 14 * n).reshape(14, n)
        # Small dust is the most: as much of it in every octave of sizes.
        largest = self.number(ranges, "radius", u[3])
        radius = largest * Range(0.25, 1, log=True).at(v[0])
        hairs = round(n * Range(0.05, 0.3).at(u[1]))
        self.drawn["hairs"] = hairs
        lens = Range(0.6, 1.6).at(u[2])  # how far out of focus dust is in this scan, pixels
        y, x = v[1] * self.size[0], v[2] * self.size[1]
        speck = slice(hairs, n)
        self.look, self.cy, self.cx = look[speck], y[speck], x[speck]
        w = v[3:, speck]
        long = radius[speck]
        self.long = long.astype(np.float32)
        aspect = 1 - 0.75 * w[0]
        self.aspect = aspect.astype(np.float32)
        turn = np.pi * w[1]
        self.cos, self.sin = np.cos(turn).astype(np.float32), np.sin(turn).astype(np.float32)
        self.soft = np.maximum(lens * (0.7 + 0.6 * w[8]), 1).astype(np.float32)
        # Lobes of the outline, of order 2, 3 and 5, as complex amplitudes; together below one half.
        size = np.stack([0.2 * w[2], 0.16 * w[3], 0.07 * w[4]])
        lobes = size * np.exp(2j * np.pi * w[5:8])
        self.lobes = (lobes / (1 + size.sum(0))).astype(np.complex64)
        self.top = (1 / (1 + size.sum(0))).astype(np.float32)  # with all lobes it reaches 1
        self.area = np.pi * long**2 * aspect * self.top**2 * (1 + np.square(size).sum(0) / 2)
        self.area += np.pi / 20 * np.square(self.soft)  # the variance of a soft border
        thick = np.minimum(1, 2 * long * aspect / self.soft)  # thinner than the lens can show
        self.opacity = ((1 - 0.7 * w[9] ** 2) * thick).astype(np.float32)
        self.out = self.long + self.soft / 2 + 1
        self._hairs(look[:hairs], y[:hairs], x[:hairs], largest, v[3:, :hairs], lens)

    def _hairs(self, look: Array, y: Array, x: Array, radius: float, w: Array, lens: float) -> None:
        """Lay the hairs' paths out as points one pixel apart, some thousands at most."""
        length = np.maximum(radius * (5 + 15 * w[0] ** 2), 2)
        s = np.arange(1 + (math.ceil(length.max()) if length.size else 0))
        # Curvature that changes at an even pace, as a thread curls, and a wave in it.
        curl, change = 4 * (2 * w[1] - 1) ** 3, 6 * (2 * w[2] - 1) ** 3
        way = s / length[:, None]
        heading = 2 * np.pi * w[3][:, None] + way * (curl[:, None] + change[:, None] * way)
        wave = 2 * np.pi * ((1 + 2 * w[6])[:, None] * way + w[7][:, None])
        heading += (0.5 * w[8] ** 2)[:, None] * np.sin(wave)
        of, k = np.nonzero(way <= 1)
        py = (y[:, None] + np.cumsum(np.sin(heading), 1))[of, k]
        px = (x[:, None] + np.cumsum(np.cos(heading), 1))[of, k]
        self.hair_row, self.hair_column = np.rint(py).astype(np.int64), np.rint(px).astype(np.int64)
        self.hair_y = (py - self.hair_row).astype(np.float32)
        self.hair_x = (px - self.hair_column).astype(np.float32)
        thick = Range(0.7, 2).at(w[4])
        # A ribbon seen through a lens and a pixel: the same spread, and the same light held back.
        sigma = np.sqrt(thick**2 / 12 + 1 / 12 + (lens / 3) ** 2)
        share = np.minimum(thick / (math.sqrt(2 * np.pi) * sigma), 1)
        opacity = np.minimum((1 - 0.6 * w[5]) * share, OPAQUE)
        peak = -np.log1p(-opacity)
        self.hair_depth = (peak / (math.sqrt(2 * np.pi) * sigma))[of].astype(np.float32)
        across = np.linspace(-3.5, 3.5, 29)
        profile = -np.expm1(-peak[:, None] * np.exp(-0.5 * across**2))
        self.hair_area = (sigma * profile.sum(1) * (across[1] - across[0]))[of]
        self.hair_spread = (-0.5 / sigma**2)[of].astype(np.float32)
        self.hair_look = look[of]
        self.hair_reach = math.ceil(3 * sigma.max()) if sigma.size else 0

    def marks(self, view: View) -> list[Marks]:
        return [*self._specks_in(view), *self._hairs_in(view)]

    def _specks_in(self, view: View) -> list[Marks]:
        dy = np.abs(self.cy - (view.top + view.height / 2)) - view.height / 2
        dx = np.abs(self.cx - (view.left + view.width / 2)) - view.width / 2
        at = np.flatnonzero((dy < self.out) & (dx < self.out))
        if not at.size:
            return []
        # Small and large apart, or every small one would be looked for in a large one's square.
        large = self.out.take(at) > 5
        groups = (at[~large], at[large]) if large.any() else (at,)
        return [part for each in groups if each.size for part in self._rasterised(each, view)]

    def _rasterised(self, at: Array, view: View) -> list[Marks]:
        reach = math.ceil(self.out.take(at).max())
        step = np.arange(-reach, reach + 1)
        cy, cx = self.cy.take(at), self.cx.take(at)
        row, column = (np.floor(c).astype(np.int64)[:, None] + step for c in (cy, cx))
        dy = (row - cy[:, None]).astype(np.float32)[:, :, None]
        dx = (column - cx[:, None]).astype(np.float32)[:, None, :]
        row -= view.top
        column -= view.left
        cos, sin, aspect, top, soft, long, opacity = (
            each.take(at)[:, None, None]
            for each in (
                self.cos, self.sin, self.aspect, self.top, self.soft, self.long, self.opacity,
            )
        )  # fmt: skip
        along = dx * cos + dy * sin
        narrow = (dy * cos - dx * sin) / aspect
        # In the frame that makes the ellipse a circle; its gradient turns radii into distances.
        q = np.sqrt(along * along + narrow * narrow)
        q += np.float32(1e-6)
        turn = np.empty(q.shape, np.complex64)
        np.divide(along, q, out=turn.real)
        np.divide(narrow, q, out=turn.imag)
        two = turn * turn
        three = two * turn
        lobes = self.lobes.take(at, 1)[:, :, None, None]
        outline = (two * lobes[0] + three * lobes[1] + two * three * lobes[2]).real
        outline += top
        outline *= long
        slope = np.hypot(turn.real, turn.imag / aspect)
        cover = (outline - q) / (slope * soft) + np.float32(0.5)
        np.minimum(np.maximum(cover, 0, out=cover), 1, out=cover)
        cover = cover * cover * (3 - 2 * cover) * opacity
        inside = ((row >= 0) & (row < view.height))[:, :, None]
        inside = inside & ((column >= 0) & (column < view.width))[:, None, :]
        keep = np.flatnonzero(inside & (cover > 0))
        if not keep.size:
            return []
        side = step.size
        of, rest = keep // side**2, keep % side**2
        place = row[of, rest // side] * view.width + column[of, rest % side]
        depth = -np.log1p(-np.minimum(cover.ravel().take(keep), np.float32(OPAQUE)))
        return [Marks(place, self.look.take(at).take(of), depth)]

    def _hairs_in(self, view: View) -> list[Marks]:
        row, column, r = self.hair_row - view.top, self.hair_column - view.left, self.hair_reach
        there = (row >= -r) & (row < view.height + r) & (column >= -r) & (column < view.width + r)
        at = np.flatnonzero(there)
        if not at.size:
            return []
        step = np.arange(-r, r + 1)
        spread = self.hair_spread.take(at)[:, None]
        down = np.exp(spread * np.square(step.astype(np.float32) - self.hair_y.take(at)[:, None]))
        down *= self.hair_depth.take(at)[:, None]
        right = np.exp(spread * np.square(step.astype(np.float32) - self.hair_x.take(at)[:, None]))
        rows, columns = row.take(at)[:, None] + step, column.take(at)[:, None] + step
        down[(rows < 0) | (rows >= view.height)] = 0
        right[(columns < 0) | (columns >= view.width)] = 0
        depth = (down[:, :, None] * right[:, None, :]).ravel()
        # What a lens leaves beyond one part in a thousand nobody sees, and no mask should hold.
        keep = np.flatnonzero(depth > 1e-3)
        of, rest = keep // step.size**2, keep % step.size**2
        place = rows[of, rest // step.size] * view.width + columns[of, rest % step.size]
        return [Marks(place, self.hair_look.take(at).take(of), depth.take(keep))]

    def points(self) -> tuple[Array, Array, Array, Array]:
        # A speck as five points: its middle, and halfway out along its axes.
        along = self.long / 2 * np.array([0, 1, -1, 0, 0], np.float32)[:, None]
        narrow = self.long * self.aspect / 2 * np.array([0, 0, 0, 1, -1], np.float32)[:, None]
        y = self.cy + along * self.sin + narrow * self.cos
        x = self.cx + along * self.cos - narrow * self.sin
        area = self.area * self.opacity / 5
        return (
            np.concatenate([y.ravel(), self.hair_row]),
            np.concatenate([x.ravel(), self.hair_column]),
            np.concatenate([np.tile(area, 5), self.hair_area]),
            np.concatenate([np.tile(self.look, 5), self.hair_look]),
        )
