"""Tiles: the plan with the fewest pixels, and the blend.

A tile sees `overlap` more pixels on each inner side than it answers for, so a local network whose
reach is no larger gives there what it gives on the whole picture. Tiles lie on multiples of
`multiple_of`, because a strided network must meet the same grid in a tile as in the whole. A plan
is a function of model and picture alone; only running out of memory changes it, and that is
announced.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .errors import GuidanceError, PictureError, ShapeError, UsageError
from .guidance import LARGE, Guidance, Guide, InRows

AUTO = 448  # as a whole process fastest on half a megapixel, in 375 MB; see benchmarks/start.py
SMALLEST = 64
BLEND = 8  # least width of the ramp between two tiles, in pixels of the input

Restore = Callable[[np.ndarray, Guidance], np.ndarray]
"""What is done to a tile. Its answer is the plan's: it is faded where it lies."""


@dataclass(frozen=True)
class Plan:
    """Where tiles of one shape lie on a picture of (height, width), in pixels of the input.

    `tops` and `lefts` are the tiles' corners; together they are a grid. `tile` is each one's
    (height, width). The last ones may reach beyond the picture by less than `multiple_of`; what
    lies there is the picture's edge repeated, as a network pads that is given the whole.
    """

    height: int
    width: int
    scale: int
    multiple_of: int
    overlap: int
    tile: tuple[int, int]
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    @property
    def pixels(self) -> int:
        """How many are computed, overlaps and padding counted."""
        return len(self) * self.tile[0] * self.tile[1]

    def __iter__(self) -> Iterator[tuple[int, int, int, int]]:
        """(top, left, height, width) of each tile."""
        for top in self.tops:
            for left in self.lefts:
                yield top, left, *self.tile

    def run(
        self,
        rgb: np.ndarray | InRows,
        guidance: Guidance,
        fn: Restore,
        *,
        announce: Callable[[str], None] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Restore a picture tile by tile, and give it as a whole.

        Args:
            rgb: (1, C, height, width) float32, or rows of it.
            guidance: Of the whole picture; it is cropped with each tile.
            fn: (tile, guidance) -> (1, K, scale h, scale w), an engine for example.
            announce: Told in words when memory ran out and tiles became smaller; None: the
                MemoryError is the caller's.
            progress: Told (tiles done, tiles in all).

        Returns:
            (1, K, scale height, scale width) float32.

        Raises:
            As `strips`.
        """
        out = np.empty((1, 0, 0, 0), np.float32)
        for top, rows in self.strips(rgb, guidance, fn, announce=announce, progress=progress):
            if rows.shape[2] == self.height * self.scale:
                return rows
            if out.shape[1] != rows.shape[1]:
                size = (1, rows.shape[1], self.height * self.scale, rows.shape[3])
                out = np.empty(size, np.float32)
            out[:, :, top : top + rows.shape[2]] = rows
        return out

    def strips(
        self,
        rgb: np.ndarray | InRows,
        guidance: Guidance,
        fn: Restore,
        *,
        announce: Callable[[str], None] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Restore a picture tile by tile; memory is taken for a row of tiles.

        Args:
            As for `run`.

        Yields:
            (first row, (1, K, h, scale width) float32) of the result, from top to bottom. Where
            memory runs out they begin again at the top, from smaller tiles.

        Raises:
            ShapeError: `rgb` is not of the planned size, or `fn` gives another size than promised.
            GuidanceError: A guide does not fit the picture or the grid of tiles.
            PictureError: There is not the memory for the smallest tile.
        """
        shape = rgb.shape
        if len(shape) != 4 or shape[0] != 1 or shape[2:] != (self.height, self.width):
            raise ShapeError(f"The plan is for (1, C, {self.height}, {self.width}), got {shape}.")
        try:
            yield from self._strips(rgb, guidance, fn, progress)
            return
        except MemoryError:
            if announce is None:
                raise
            smaller = self._smaller()
        announce(f"memory ran out; tiles of {smaller.tile[0]} x {smaller.tile[1]} pixels instead")
        yield from smaller.strips(rgb, guidance, fn, announce=announce, progress=progress)

    def _smaller(self) -> Plan:
        area, smallest = self.tile[0] * self.tile[1], max(SMALLEST, self.multiple_of)
        smaller = plan(
            self.height,
            self.width,
            scale=self.scale,
            multiple_of=self.multiple_of,
            overlap=self.overlap,
            tile=max(int(area**0.5) // 2, smallest),
        )
        if smaller.tile[0] * smaller.tile[1] >= area:
            raise PictureError(
                f"there is not the memory to restore {self.height} x {self.width} pixels, even in "
                f"tiles of {self.tile[0]} x {self.tile[1]}. Close other programs, or use a smaller "
                "model."
            )
        return smaller

    def _strips(
        self,
        rgb: np.ndarray | InRows,
        guidance: Guidance,
        fn: Restore,
        progress: Callable[[int, int], None] | None,
    ) -> Iterator[tuple[int, np.ndarray]]:
        s = self.scale
        padded = guidance.map(self._padded)
        rows = _shares(self.tops, self.tile[0], self.overlap, self.height, s)
        columns = _shares(self.lefts, self.tile[1], self.overlap, self.width, s)
        # Rows that no later tile answers for.
        ends = [*[y0 for y0, wy in rows if len(wy)][1:], self.height * s]
        # Where no tiles share a pixel each is put down; else what they say is added up.
        apart = all((weights == 1).all() for _, weights in (*rows, *columns))
        blank = np.empty if apart else np.zeros
        begin, channels = 0, 0
        under_way = np.zeros((1, 0, 0, self.width * s), np.float32)
        for i, top in enumerate(self.tops):
            y0, wy = rows[i]
            band = _band(rgb, top, min(self.height, top + self.tile[0]))
            for j, left in enumerate(self.lefts):
                tile = _cut(_cut(band, 0, self.tile[0], axis=2), left, self.tile[1], axis=3)
                restored = fn(np.ascontiguousarray(tile), padded.crop(top, left, *self.tile))
                if not channels:
                    channels = restored.shape[1]
                    under_way = np.zeros((1, channels, 0, self.width * s), np.float32)
                if restored.shape != (1, channels, self.tile[0] * s, self.tile[1] * s):
                    raise ShapeError(f"A tile of {tile.shape} came back as {restored.shape}.")
                x0, wx = columns[j]
                part = restored[..., y0 - top * s :, x0 - left * s :][..., : len(wy), : len(wx)]
                if len(self) == 1:
                    under_way = part.copy()
                elif len(wy):
                    more = y0 + len(wy) - begin - under_way.shape[2]
                    if more > 0:
                        added = blank((1, channels, more, self.width * s), np.float32)
                        if under_way.shape[2]:
                            added = np.concatenate([under_way, added], axis=2)
                        under_way = added
                    at = y0 - begin
                    place = under_way[..., at : at + len(wy), x0 : x0 + len(wx)]
                    if apart:
                        place[...] = part
                    else:
                        place += _faded(part, wy, wx)
                if progress:
                    progress(i * len(self.lefts) + j + 1, len(self))
            if len(wy):
                end = ends.pop(0) // s * s
                if end > begin:
                    yield begin, under_way[:, :, : end - begin]
                    begin, under_way = end, under_way[:, :, end - begin :]

    def _padded(self, guide: Guide) -> Guide:
        """A spatial guide, continued to the padded picture."""
        if not guide.spatial or guide.whole:
            return guide
        if self.multiple_of % guide.stride:
            raise GuidanceError(
                f"A guide with stride {guide.stride} does not fit tiles on multiples of "
                f"{self.multiple_of}. Resize it to a stride that divides {self.multiple_of}."
            )
        h, w = (n * guide.stride for n in guide.array.shape[-2:])
        full_h, full_w = self.tops[-1] + self.tile[0], self.lefts[-1] + self.tile[1]
        if not (self.height <= h <= full_h and self.width <= w <= full_w):
            raise GuidanceError(
                f"A guide shows {h} x {w} pixels, the picture has {self.height} x {self.width}. "
                "Resize it to the picture."
            )
        return guide.pad(0, 0, full_h - h, full_w - w) if (h, w) != (full_h, full_w) else guide


# Finding the grid of half a megapixel takes 3 ms, and the pictures of a folder have few sizes.
@functools.lru_cache(maxsize=64, typed=True)
def plan(
    height: int,
    width: int,
    *,
    scale: int = 1,
    multiple_of: int = 1,
    overlap: int = 0,
    tile: int | Literal["auto"] = "auto",
) -> Plan:
    """The grid of equal tiles that computes the fewest pixels.

    Args:
        height, width: Of the picture, in pixels.
        scale: Output pixels per input pixel.
        multiple_of: What corners and sides of tiles must be multiples of.
        overlap: Context of a tile on each inner side, in pixels.
        tile: N allows tiles of N x N pixels, and longer ones of the same area. A tile is larger
            only where the overlap itself asks for it.

    Raises:
        UsageError: A size that is none.
    """
    side = AUTO if tile == "auto" else tile
    for what, value, least in (
        ("height", height, 1),
        ("width", width, 1),
        ("scale", scale, 1),
        ("multiple_of", multiple_of, 1),
        ("overlap", overlap, 0),
        ("tile", side, 1),
    ):
        if not isinstance(value, int) or value < least:
            raise UsageError(f"{what} must be a whole number of at least {least}, got {value!r}.")
    m = multiple_of
    rows, columns = -(-height // m), -(-width // m)  # in units of m from here on
    shared = -(-(2 * overlap + BLEND) // m) if overlap else 0
    most = max(side * side // (m * m), (shared + 1) ** 2)
    across = _splits(columns, shared)
    _, _, _, n, h, k, w = min(
        (n * h * k * w, n * k, abs(h - w), n, h, k, w)
        for n, h in _splits(rows, shared)
        for k, w in across
        # A row of tiles of a large picture has to fit in memory.
        if h * w <= most and (height * width <= LARGE or h * m <= max(2 * side, (shared + 1) * m))
    )
    return Plan(
        height=height,
        width=width,
        scale=scale,
        multiple_of=m,
        overlap=overlap,
        tile=(h * m, w * m),
        tops=tuple(i * (rows - h) // max(n - 1, 1) * m for i in range(n)),
        lefts=tuple(i * (columns - w) // max(k - 1, 1) * m for i in range(k)),
    )


def _splits(length: int, shared: int) -> list[tuple[int, int]]:
    """(count, side) of the equal tiles that cover `length`, neighbours sharing `shared` or more."""
    splits: list[tuple[int, int]] = []
    for count in range(1, max(1, length - shared) + 1):
        side = -(-(length + (count - 1) * shared) // count)
        # Of the counts with one side, the first has the fewest tiles.
        if not splits or side < splits[-1][1]:
            splits.append((count, side))
        if side <= shared + 1:
            break
    return splits


# As with plans: the pictures of a folder have few sizes, and finding this takes half a millisecond.
@functools.lru_cache(maxsize=16)
def _shares(
    starts: tuple[int, ...], side: int, overlap: int, length: int, scale: int
) -> tuple[tuple[int, np.ndarray], ...]:
    """For each tile along one axis: where its answer begins in the output, and its weights there.

    Between two tiles one ramp rises as the other falls, in the middle of what both may answer for.
    A tile's weight is the ramp before it minus the ramp after it, so all weights sum to 1 anywhere.
    """
    joins = [(b + overlap, a + side - overlap) for a, b in itertools.pairwise(starts)]
    # Ramps of one width keep their order even where three tiles overlap.
    ramp = min((end - begin for begin, end in joins), default=0) * scale
    at = np.arange(length * scale, dtype=np.float32) + 0.5
    one, none = np.ones_like(at), np.zeros_like(at)
    rises = [one]
    for begin, end in joins:
        middle = (begin + end) / 2 * scale
        linear = (at - middle) / ramp + 0.5 if ramp else at > middle
        rises.append(np.clip(linear, 0, 1).astype(np.float32))
    rises.append(none)
    shares: list[tuple[int, np.ndarray]] = []
    for before, after in itertools.pairwise(rises):
        weight = before - after
        used = np.flatnonzero(weight)
        first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
        kept = weight[first:last].copy()
        kept.flags.writeable = False
        shares.append((first, kept))
    return tuple(shares)


def _faded(part: np.ndarray, wy: np.ndarray, wx: np.ndarray) -> np.ndarray:
    """part * wy * wx, in place where that may be: where a weight is 1, nothing is touched."""
    part = part if part.flags.writeable else part.copy()
    rows, columns = np.flatnonzero(wy != 1), np.flatnonzero(wx != 1)
    part[..., rows, :] *= wy[rows, None]
    part[..., columns] *= wx[columns]
    return part


def _band(rgb: np.ndarray | InRows, top: int, bottom: int) -> np.ndarray:
    """Rows of a picture, (1, C, bottom - top, W)."""
    return rgb[:, :, top:bottom] if isinstance(rgb, np.ndarray) else rgb.rows(top, bottom)


def _cut(array: np.ndarray, start: int, size: int, *, axis: int) -> np.ndarray:
    """array[start : start + size] along an axis, the last value repeated beyond the end."""
    length = array.shape[axis]
    if start + size <= length:
        return array[(slice(None),) * axis + (slice(start, start + size),)]
    return np.take(array, np.minimum(np.arange(start, start + size), length - 1), axis=axis)
