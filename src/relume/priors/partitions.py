"""Regions that know nothing of the picture but how large its regions are: a prior's controls.

Both keep the areas of a given label map, label by label, and forget where they were. What a network
gains from the true map beyond these comes from where the regions lie.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..errors import ShapeError
from ..guidance import Guide, Kind
from .regions import RegionsPrior

SAMPLES = 1 << 15  # pixels on which a power diagram is fitted, at most
AT_ONCE = 1 << 22  # distances that are held at a time


def grid(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Near-rectangles with exactly the areas of `labels`, in random order.

    The picture is halved across its longer side so that each half holds about half of the area of
    a random order of labels, and so is each half, until each part is one label: a guillotine
    treemap, each cut ragged by part of one row so that every area is met to the pixel.

    Args:
        labels: (h, w) int. Every value, 0 too, keeps its area.
        rng: Draws the order.

    Returns:
        (h, w) int32.

    Raises:
        ShapeError: `labels` is not (h, w) int.
    """
    values, areas = _areas(labels)
    height, width = labels.shape
    order = rng.permutation(len(values))
    ends = np.cumsum(areas[order])  # where, among all pixels, each label's pixels end
    begins = ends - areas[order]
    place = np.arange(height * width)  # pixels, those of a part side by side
    parts = np.array([0, len(values)])  # part i holds the labels order[parts[i]:parts[i + 1]]
    side = max(height, width)
    while len(parts) <= len(values):
        first, last = parts[:-1], parts[1:]
        start = begins[first]
        y, x = np.divmod(place, width)
        tall = np.maximum.reduceat(y, start) - np.minimum.reduceat(y, start)
        wide = np.maximum.reduceat(x, start) - np.minimum.reduceat(x, start)
        held = np.diff(np.append(start, height * width))
        across = np.repeat(tall > wide, held)
        part = np.repeat(np.arange(len(start)), held)
        key = (part * side + np.where(across, y, x)) * side + np.where(across, x, y)
        place = place[np.argsort(key, kind="stable")]
        half = (start + ends[last - 1]) / 2
        cut = np.searchsorted(ends, half)  # the label in which the middle lies
        cut += half - begins[cut] > ends[cut] - half
        cut = np.clip(cut, first + 1, last - 1)
        parts = np.unique(np.concatenate([parts, cut[last - first > 1]]))
    out = np.empty(height * width, np.int32)
    out[place] = np.repeat(values[order], areas[order])
    return out.reshape(height, width)


def voronoi(
    labels: np.ndarray, rng: np.random.Generator, *, within: float = 0.005, rounds: int = 60
) -> np.ndarray:
    """A power diagram of random seeds, weighted until its cells have the areas of `labels`.

    A pixel belongs to the seed with the least |x - seed|^2 - weight. Weights that give any wanted
    areas exist (Aurenhammer, Hoffmann and Aronov, Algorithmica 1998). They are found by damped
    Newton steps (Kitagawa, Merigot and Thibert, JEMS 2019), which never lose a cell: first on a
    reduced picture, then on the picture itself.

    Args:
        labels: (h, w) int. Every value, 0 too, keeps its area.
        rng: Draws the seeds.
        within: `area_gap` at which the steps end.
        rounds: Steps at most.

    Returns:
        (h, w) int32. A label of a pixel or two may be lost.

    Raises:
        ShapeError: `labels` is not (h, w) int.
    """
    values, areas = _areas(labels)
    height, width = labels.shape
    drawn = np.divmod(rng.choice(labels.size, len(values), replace=False), width)
    sites = np.stack(drawn, 1) + rng.uniform(-0.5, 0.5, (len(values), 2))
    reduced = max(1, int(np.ceil(np.sqrt(labels.size / SAMPLES))))
    weights, owner = np.zeros(len(values)), np.zeros((1, 1), np.int64)
    for step in sorted({reduced, 1}, reverse=True):
        owner, weights = _fit(sites, weights, areas, (height, width), step, within, rounds)
    return values[owner].astype(np.int32)


def area_gap(a: np.ndarray, b: np.ndarray) -> float:
    """Share of the pixels that would have to change label for `a` to have the areas of `b`.

    Half the sum of |area in a - area in b| over all labels, divided by the pixels: 0 = the same
    histogram, 1 = no label in common.
    """
    values = np.unique(np.concatenate([a.ravel(), b.ravel()]))
    counts = [
        np.bincount(np.searchsorted(values, m.ravel()), minlength=len(values)) for m in (a, b)
    ]
    return float(np.abs(counts[0] - counts[1]).sum() / (2 * a.size))


class _LaidOut:
    """A partition in the place of `regions`: the same areas, laid out without looking.

    Args:
        max_side: Of the `RegionsPrior` whose areas are kept.
        seed: Of the layout.
    """

    spec: Kind = "regions"
    name: ClassVar[str]

    def __init__(self, max_side: int = 256, *, seed: int = 0) -> None:
        self.max_side = max_side
        self.seed = seed

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the answer, as JSON."""
        areas_of = RegionsPrior(self.max_side).identity
        return {"prior": self.name, "seed": self.seed, "areas_of": areas_of}

    def __call__(self, rgb: np.ndarray) -> Guide:
        found = RegionsPrior(self.max_side)(rgb)
        labels = LAYOUTS[self.name](found.array[0], np.random.default_rng(self.seed))
        return found.with_array(labels[None], provenance=self.identity)


class GridPrior(_LaidOut):
    """`grid` in the place of `regions`."""

    name = "grid"


class VoronoiPrior(_LaidOut):
    """`voronoi` in the place of `regions`."""

    name = "voronoi"


LAYOUTS = {"grid": grid, "voronoi": voronoi}


def _areas(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if labels.ndim != 2 or labels.dtype.kind not in "iu" or not labels.size:
        raise ShapeError(f"labels must be (h, w) int, got {labels.shape} {labels.dtype}.")
    return np.unique(labels, return_counts=True)


def _fit(
    sites: np.ndarray,
    weights: np.ndarray,
    areas: np.ndarray,
    size: tuple[int, int],
    step: int,
    within: float,
    rounds: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Owners (index of the site) on every `step`-th pixel, and the weights that give them."""
    y = np.arange(step // 2, size[0], step, dtype=np.float64)
    x = np.arange(step // 2, size[1], step, dtype=np.float64)
    pixels = size[0] * size[1]

    def cells(w: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        owner = _owners(sites, w, y, x)
        held = np.bincount(owner.ravel(), minlength=len(sites)) * (pixels / owner.size)
        return owner, held, float(np.abs(held - areas).sum()) / (2 * pixels)

    now = cells(weights)
    for _ in range(rounds):
        owner, held, gap = now
        if gap <= within:
            break
        change = _newton(sites, owner, areas - held, step)
        for share in 0.5 ** np.arange(8):
            after = cells(weights + share * change)
            if after[2] < gap and (after[1] >= 0.3 * np.minimum(held, areas)).all():
                weights, now = weights + share * change, after
                break
        else:
            break
    return now[0], weights


def _newton(sites: np.ndarray, owner: np.ndarray, due: np.ndarray, step: int) -> np.ndarray:
    """Change of weights that moves `due` pixels into each cell, to first order.

    Where cells k and l share a border of length b, one unit of weight moves b / (2 |s_k - s_l|)
    pixels: a Laplacian over who borders whom, solved by conjugate gradients.
    """
    count = len(sites)
    sides = [(owner[1:], owner[:-1]), (owner[:, 1:], owner[:, :-1])]
    pairs = np.concatenate([np.stack([a[a != b], b[a != b]], 1) for a, b in sides])
    pairs, border = np.unique(np.sort(pairs, axis=1), axis=0, return_counts=True)
    k, m = pairs.T
    # The sides of pixels make a border of any direction longer, by 4 / pi on average.
    flow = np.pi / 4 * step * border / (2 * np.linalg.norm(sites[k] - sites[m], axis=1))
    total = np.bincount(k, flow, count) + np.bincount(m, flow, count)
    alive = total > 0  # a cell too small for this grid borders nobody, and stays
    scale = np.where(alive, total, 1)

    def laplacian(v: np.ndarray) -> np.ndarray:
        moved = flow * (v[k] - v[m])
        return np.bincount(k, moved, count) - np.bincount(m, moved, count)

    found = np.zeros(count)
    rest = np.where(alive, due - due[alive].mean() if alive.any() else 0, 0)
    toward = rest / scale
    product = float(rest @ toward)
    for _ in range(count):
        if product <= 1e-6:
            break
        image = laplacian(toward)
        length = product / float(toward @ image)
        found += length * toward
        rest -= length * image
        before, product = product, float(rest @ (rest / scale))
        toward = rest / scale + product / before * toward
    return found


def _owners(sites: np.ndarray, weights: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(len(y), len(x)) index of the site with the least power, some rows at a time."""
    out = np.empty((len(y), len(x)), np.int64)
    rows = max(1, AT_ONCE // (len(x) * len(sites)))
    across = (x[:, None] - sites[:, 1]) ** 2 - weights
    down = (y[:, None] - sites[:, 0]) ** 2
    for top in range(0, len(y), rows):
        out[top : top + rows] = (down[top : top + rows, None] + across).argmin(2)
    return out
