"""Prints, negatives and slides with age: faded dyes, in linear light."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch

from .damage import Damage, Parameter, Range, uniform
from .view import Array, View


class Fade(Damage):
    """Faded dyes: each loses its own share of its density, and the paper turns yellow.

    Density is -log10 of light. Dyes go at nearly a constant rate, each at its own, so that
    (1 - amount) ** k is left of one, the mean of the three k being 1. The rest is
    D' = M diag(left) M^-1 D + stain, where M holds what each dye absorbs of each colour. An
    original has no more than its largest density; black in the file is that, and lifts as dyes go.
    """

    kind = "fade"
    parameters: ClassVar[Mapping[str, Parameter]] = {"amount": Parameter(0.2, 0.8, 0, 1)}
    unit = "share of the dyes that is lost"
    light = True
    pointwise = True
    densest: ClassVar[Mapping[str, Range]] = {"black_density": Range(1.7, 2.3)}
    # What cyan, magenta and yellow (columns) absorb of red, green and blue, in round figures for
    # chromogenic dyes; the three together are gray.
    dyes: ClassVar[Array] = np.array([[0.92, 0.06, 0.02], [0.16, 0.76, 0.08], [0.08, 0.2, 0.72]])

    def draw(
        self, ranges: Mapping[str, Range], rng: torch.Generator, regions: Array | None
    ) -> None:
        u = uniform(rng, 6)
        self.amount = self.number(ranges, "amount", u[0])
        # Kept in the dark, cyan goes first; hung in the light, magenta.
        rate = np.array([0.75, 0.55, 0.45]) + 0.8 * u[1:4]
        left = (1 - self.amount) ** (3 * rate / rate.sum())
        self.power = (self.dyes @ np.diag(left) @ np.linalg.inv(self.dyes)).astype(np.float32)
        self.black = np.float32(10 ** -self.number(self.densest, "black_density", u[4]))
        stain = self.amount * Range(0.05, 0.3).at(u[5]) * np.array([0.12, 0.35, 1])
        self.stain = (stain * -math.log(10)).astype(np.float32)
        self.drawn["dyes_left_cmy"] = [round(float(v), 4) for v in left]
        self.drawn["stain_rgb"] = [round(float(v), 4) for v in stain]

    def apply(self, x: Array, view: View) -> Array:
        light = x * (1 - self.black)
        light += self.black
        dense = np.log(np.maximum(light, self.black, out=light), out=light)
        faded = (self.power @ dense.reshape(3, -1)).reshape(x.shape)
        faded += self.stain[:, None, None]
        np.exp(faded, out=faded)
        # The scanner's black stays where it was.
        faded -= self.black
        faded *= 1 / (1 - self.black)
        return np.clip(faded, 0, 1, out=faded)

    def truth(self, x: Array, view: View) -> Array:
        return np.full((view.height, view.width), self.amount, np.float32)

    def small(self, x: Array) -> Array:
        return self.apply(x, View(0, 0, *x.shape[-2:]))
