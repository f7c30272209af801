"""Too little light."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch

from .damage import Damage, Parameter, Range, seed, uniform
from .noise import averaged, normals
from .tone import to_file, to_light
from .view import Array, View


class LowLight(Damage):
    """Underexposure: light * gain through a tone curve (light ** gamma), then read noise.

    Read noise is given as it shows in the file, on the 0-255 scale.
    """

    kind = "lowlight"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "gain": Parameter(0.1, 0.5, 0.01, 1, log=True),
        "gamma": Parameter(1, 2.5, 1, 4),
        "read": Parameter(1, 8, 0, 64),
    }
    unit = "share of the mean file value that is lost"
    light = True
    develops = True
    pointwise = True

    def draw(
        self, ranges: Mapping[str, Range], rng: torch.Generator, regions: Array | None
    ) -> None:
        u = uniform(rng, 3)
        self.gain = self.number(ranges, "gain", u[0])
        self.gamma = self.number(ranges, "gamma", u[1])
        self.read = self.number(ranges, "read", u[2]) / 255
        self.seed = seed(rng)
        self.severity = 0.0

    def dark(self, x: Array) -> Array:
        # On file values the curve is file ** gamma, near enough; in light the two powers are one.
        dark = np.power(np.maximum(x, 0), np.float32(self.gamma))
        dark *= np.float32(self.gain)
        return dark

    def apply(self, x: Array, view: View) -> Array:
        file = to_file(self.dark(x))
        if self.read:
            file += normals(self.seed, view) * np.float32(self.read)
        return file

    def prepare(self, gt: Array) -> None:
        rows, columns = max(1, gt.shape[1] // 64), max(1, gt.shape[2] // 64)
        few = gt[:, ::rows, ::columns]
        light = to_light(few)
        file, dark = to_file(light), to_file(self.dark(light))
        self.severity = float(np.clip(1 - dark.mean() / max(file.mean(), 1e-6), 0, 1))

    def truth(self, x: Array, view: View) -> Array:
        return np.full((view.height, view.width), self.severity, np.float32)

    def small(self, x: Array) -> Array:
        file = to_file(self.dark(x))
        file += averaged(self.seed, x, self.size) * np.float32(self.read)
        return file
