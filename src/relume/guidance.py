"""Guidance, the one currency: what priors say of a picture, and how it follows the picture.

A `Guide` is what one prior says; `Guidance` maps prior names to Guides. Arrays are numpy here, and
torch tensors once the lab has batched them: nothing below but the geometry asks which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from .errors import GuidanceError, ShapeError, nearest

Kind = Literal["maps", "regions", "layers", "tokens", "vector"]
KINDS: tuple[Kind, ...] = ("maps", "regions", "layers", "tokens", "vector")
SPATIAL: tuple[Kind, ...] = ("maps", "regions", "layers")
_DIMENSIONS = {"maps": 4, "regions": 3, "layers": 4, "tokens": 3, "vector": 2}
_CHANNEL_AXIS = {"maps": 1, "regions": None, "layers": 1, "tokens": 2, "vector": 1}


@dataclass(frozen=True, eq=False)
class Guide:
    """What one prior says of a batch of N pictures: exactly one of five kinds.

    Args:
        maps: (N, K, h, w) float. In damage maps 1 = degraded; other maps keep their own units.
        regions: (N, h, w) int32. 0 = dropped, uncovered or padding; the background has a label.
        layers: (N, M, h, w) bool, masks that may overlap.
        tokens: (N, T, D) float; row r belongs to region or layer r where there are any.
        vector: (N, D) float.
        names: One name per channel of maps, column of a vector or tokens; () where they have none.
        units: One unit per name, or ().
        stride: Picture pixels per sample of a spatial kind: the picture is (stride h, stride w).
        whole: True for a map that shows the whole picture at every crop of it (a thumbnail): it is
            turned with the picture, but never cropped, padded or resized.
        provenance: Which prior said so, from what, with which settings.

    Raises:
        GuidanceError: Not exactly one kind is given, or names and units do not match its channels.
        ShapeError: The array of the kind has the wrong number of dimensions, labels that are not
            integers or layers that are not bool.
    """

    maps: Any = None
    regions: Any = None
    layers: Any = None
    tokens: Any = None
    vector: Any = None
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    stride: int = 1
    whole: bool = False
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise GuidanceError(f"A Guide holds exactly one of {', '.join(KINDS)}; got {given}.")
        if self.array.ndim != _DIMENSIONS[self.kind]:
            raise ShapeError(
                f"Guide.{self.kind} must have {_DIMENSIONS[self.kind]} dimensions, got shape "
                f"{tuple(self.array.shape)}."
            )
        wanted = {"regions": "int", "layers": "bool"}.get(self.kind, "")
        if wanted not in str(self.array.dtype):
            raise ShapeError(f"Guide.{self.kind} must be {wanted}, got {self.array.dtype}.")
        if self.names and len(self.names) != self.channels:
            raise GuidanceError(
                f"Guide.{self.kind} has {self.channels} channels but {len(self.names)} names."
            )
        if self.units and len(self.units) != len(self.names):
            raise GuidanceError(
                f"Guide.{self.kind} has {len(self.names)} names but {len(self.units)} units."
            )

    @property
    def kind(self) -> Kind:
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def array(self) -> Any:
        """The one array that is given."""
        return getattr(self, self.kind)

    @property
    def channels(self) -> int:
        """K of maps, M of layers, D of tokens and vector; 1 for regions."""
        axis = _CHANNEL_AXIS[self.kind]
        return 1 if axis is None else int(self.array.shape[axis])

    @property
    def batch(self) -> int:
        return int(self.array.shape[0])

    def with_array(self, array: Any, **changes: Any) -> Guide:
        """The same Guide with another array of the same kind."""
        return replace(self, **{self.kind: array}, **changes)

    def map(self, change: Callable[[Any], Any]) -> Guide:
        return self.with_array(change(self.array))

    def null(self) -> Guide:
        """What a prior that knows nothing would say: zeros, and for tokens one zero row."""
        shape = tuple(self.array.shape)
        if self.kind == "tokens":
            shape = (shape[0], 1, shape[2])
        if isinstance(self.array, np.ndarray):
            return self.with_array(np.zeros(shape, self.array.dtype))
        return self.with_array(self.array.new_zeros(shape))

    # Geometry, in picture coordinates. Each follows the picture through one change.

    @property
    def spatial(self) -> bool:
        return self.kind in SPATIAL

    def crop(self, top: int, left: int, height: int, width: int) -> Guide:
        """The part that belongs to a crop of the picture, all four in picture pixels.

        Raises:
            GuidanceError: The rectangle reaches beyond the picture, or off the grid of the stride
                (tiles are planned so that it does).
        """
        if not self.spatial or self.whole:
            return self
        box = (top, left, height, width)
        top, left, height, width = self._on_grid("crop", box)
        h, w = self.array.shape[-2:]
        if min(box) < 0 or top + height > h or left + width > w:
            raise GuidanceError(
                f"The crop {box} reaches beyond a picture of {(h * self.stride, w * self.stride)}."
            )
        rows, columns = slice(top, top + height), slice(left, left + width)
        return self.map(lambda a: a[..., rows, columns])

    def flip(self) -> Guide:
        """Left to right."""
        return self.map(lambda a: a[..., ::-1].copy()) if self.spatial else self

    def rot90(self, k: int = 1) -> Guide:
        """Anti-clockwise by k quarter turns, as numpy.rot90 turns (rows, columns)."""
        return self.map(lambda a: np.rot90(a, k, axes=(-2, -1)).copy()) if self.spatial else self

    def resize(self, height: int, width: int) -> Guide:
        """To a grid of (height, width) samples: area means of maps, nearest label or layer."""
        if not self.spatial or self.whole:
            return self
        if self.kind == "maps":
            return self.map(lambda a: area_resize(a, height, width))
        h, w = self.array.shape[-2:]
        rows = ((np.arange(height) + 0.5) * h / height).astype(np.int64)
        columns = ((np.arange(width) + 0.5) * w / width).astype(np.int64)
        return self.map(lambda a: a[..., rows[:, None], columns])

    def pad(self, top: int, left: int, bottom: int, right: int) -> Guide:
        """By picture pixels, at the edges' own values; labels by 0, which no statistic counts.

        Raises:
            GuidanceError: The stride does not divide the four widths.
        """
        if not self.spatial or self.whole:
            return self
        top, left, bottom, right = self._on_grid("pad", (top, left, bottom, right))
        pads = [(0, 0)] * (self.array.ndim - 2) + [(top, bottom), (left, right)]
        mode: Any = "edge" if self.kind == "maps" else "constant"
        return self.map(lambda a: np.pad(a, pads, mode=mode))

    def _on_grid(self, change: str, pixels: tuple[int, ...]) -> tuple[int, ...]:
        """Picture pixels as samples of this Guide."""
        if any(v % self.stride for v in pixels):
            raise GuidanceError(
                f"A {change} of a Guide with stride {self.stride} must lie on its grid, got "
                f"{pixels}. Use multiples of {self.stride}."
            )
        return tuple(v // self.stride for v in pixels)


class Guidance(Mapping[str, Guide]):
    """All that is known about a picture: prior names to Guides. Immutable; geometry acts on each.

    Raises:
        GuidanceError: On access, a prior that is not there; the message names the nearest one.
    """

    def __init__(self, guides: Mapping[str, Guide] | None = None, **named: Guide) -> None:
        self._guides = {**(guides or {}), **named}

    def __getitem__(self, name: str) -> Guide:
        try:
            return self._guides[name]
        except KeyError:
            raise GuidanceError(
                f"No guidance called {name!r}; there is {', '.join(self._guides) or 'none'}."
                f"{nearest(name, self._guides)}"
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._guides

    def __iter__(self) -> Iterator[str]:
        return iter(self._guides)

    def __len__(self) -> int:
        return len(self._guides)

    def __repr__(self) -> str:
        shapes = (f"{n}: {g.kind}{tuple(g.array.shape)}" for n, g in self._guides.items())
        return f"Guidance({', '.join(shapes)})"

    def map(self, change: Callable[[Guide], Guide]) -> Guidance:
        return Guidance({name: change(guide) for name, guide in self._guides.items()})

    def with_guide(self, name: str, guide: Guide) -> Guidance:
        return Guidance({**self._guides, name: guide})

    def crop(self, top: int, left: int, height: int, width: int) -> Guidance:
        return self.map(lambda g: g.crop(top, left, height, width))

    def flip(self) -> Guidance:
        return self.map(Guide.flip)

    def rot90(self, k: int = 1) -> Guidance:
        return self.map(lambda g: g.rot90(k))

    def resize(self, height: int, width: int) -> Guidance:
        """With a picture that becomes (height, width) pixels; each Guide keeps its stride.

        Raises:
            GuidanceError: A Guide's stride does not divide the new size.
        """

        def resized(g: Guide) -> Guide:
            if not g.spatial or g.whole:
                return g
            h, w = g._on_grid("resize", (height, width))
            return g.resize(h, w)

        return self.map(resized)

    def pad(self, top: int, left: int, bottom: int, right: int) -> Guidance:
        return self.map(lambda g: g.pad(top, left, bottom, right))

    def null(self) -> Guidance:
        return self.map(Guide.null)


def stack(guidances: Sequence[Guidance]) -> Guidance:
    """One batch from several pictures' guidance.

    Token rows and layers are padded with zeros to the longest: nothing is there.

    Raises:
        GuidanceError: There is no picture, or they do not carry the same priors, each of one kind,
            shape and stride.
    """
    if not guidances:
        raise GuidanceError("A batch needs the guidance of at least one picture.")
    first = guidances[0]
    for other in guidances[1:]:
        if set(other) != set(first):
            raise GuidanceError(
                f"A batch needs the same priors, got {list(first)} and {list(other)}."
            )

    def joined(name: str) -> Guide:
        guides = [g[name] for g in guidances]
        ragged = guides[0].kind in ("tokens", "layers")
        looks = {(g.kind, g.stride, g.whole, tuple(g.array.shape[1 + ragged :])) for g in guides}
        if len(looks) > 1:
            raise GuidanceError(
                f"A batch needs {name!r} of one kind, stride and size; got (kind, stride, whole, "
                f"shape) {', '.join(sorted(map(str, looks)))}."
            )
        arrays = [g.array for g in guides]
        if not ragged:
            return guides[0].with_array(np.concatenate(arrays))
        longest = max(guides, key=lambda g: g.array.shape[1])
        rest = [(0, 0)] * (longest.array.ndim - 2)
        missing = [longest.array.shape[1] - a.shape[1] for a in arrays]
        padded = [np.pad(a, [(0, 0), (0, m), *rest]) for a, m in zip(arrays, missing, strict=True)]
        return longest.with_array(np.concatenate(padded))

    return Guidance({name: joined(name) for name in first})


def area_weights(size: int, to: int) -> np.ndarray:
    """(to, size) float32: each row averages the samples that one output sample covers."""
    edges = np.linspace(0, size, to + 1)
    cells = np.arange(size)
    cover = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    cover = np.clip(cover, 0, None)
    return (cover / cover.sum(1, keepdims=True)).astype(np.float32)


class InRows(Protocol):
    """A picture that is not there as a whole: (N, C, H, W) float32, `rows` at a time."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def rows(self, top: int, bottom: int) -> np.ndarray:
        """(N, C, bottom - top, W)."""
        ...


LARGE = 32_000_000
"""Pixels from which the sums over a whole picture are taken over strips: of that size alone, so
that they are the same wherever the picture lies."""
ROWS = 256
"""Rows of such a strip."""


def area_resize(array: np.ndarray | InRows, height: int, width: int) -> np.ndarray:
    """(..., h, w) float to (..., height, width): the mean over the area each new sample covers.

    A picture that comes in rows is read once, from top to bottom.
    """
    h, w = array.shape[-2:]
    rows, columns = area_weights(h, height), area_weights(w, width)
    if isinstance(array, np.ndarray):
        return rows @ array @ columns.T
    if h * w <= LARGE:
        return rows @ array.rows(0, h) @ columns.T
    total = np.zeros((*array.shape[:-2], height, width), np.float32)
    for top in range(0, h, ROWS):
        bottom = min(h, top + ROWS)
        total += rows[:, top:bottom] @ (array.rows(top, bottom) @ columns.T)
    return total
