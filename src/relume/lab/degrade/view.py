"""Rectangles of a frame, and what a picture looks like beyond its border."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Array = np.ndarray


class View(NamedTuple):
    """A rectangle of a frame, in that frame's pixels. It may reach beyond the frame."""

    top: int
    left: int
    height: int
    width: int

    def grown(self, margin: int) -> View:
        m = margin
        return View(self.top - m, self.left - m, self.height + 2 * m, self.width + 2 * m)

    def aligned(self, grid: int) -> View:
        """The smallest view on a grid of `grid` pixels that holds this one."""
        top, left = self.top // grid * grid, self.left // grid * grid
        bottom = -(-(self.top + self.height) // grid) * grid
        right = -(-(self.left + self.width) // grid) * grid
        return View(top, left, bottom - top, right - left)

    def within(self, size: tuple[int, int]) -> View:
        """The part that lies in a frame of (height, width)."""
        top, left = max(self.top, 0), max(self.left, 0)
        bottom = min(self.top + self.height, size[0])
        right = min(self.left + self.width, size[1])
        return View(top, left, bottom - top, right - left)

    def scaled(self, scale: int) -> View:
        return View(*(v * scale for v in self))

    def cut(self, array: Array, outer: View) -> Array:
        """This view of an array (..., h, w) that shows `outer`."""
        if self == outer:
            return array
        top, left = self.top - outer.top, self.left - outer.left
        return array[..., top : top + self.height, left : left + self.width]


def mirrored(x: Array, inner: View, outer: View) -> Array:
    """An array that shows `inner` continued to `outer` by reflection about its border pixels."""
    if inner == outer:
        return x

    def index(start: int, length: int, have: int, count: int) -> Array:
        period = max(2 * (count - 1), 1)
        i = np.abs(np.arange(start - have, start - have + length)) % period
        return np.where(i < count, i, period - i)

    rows = index(outer.top, outer.height, inner.top, inner.height)
    columns = index(outer.left, outer.width, inner.left, inner.width)
    return x.take(rows, axis=-2).take(columns, axis=-1)
