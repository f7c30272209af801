"""Regions without weights: a graph-based segmentation, and masks that overlap made a partition.

Labels are int32. 0 is kept for what is dropped, uncovered or padding; here every pixel belongs to
something, so they count from 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import MissingError, ShapeError
from ..guidance import Guide, Kind, area_resize


class RegionsPrior:
    """Felzenszwalb and Huttenlocher's segmentation (IJCV 2004), then merged where it is too fine.

    The first, scikit-image's, merges neighbouring pixels while the step between two regions is
    small against the variation inside them. It leaves gradients cut into bands and edges wrapped in
    slivers; `merged` takes these back.

    Args:
        max_side: Longest side, in pixels, of the reduced picture that is segmented; the labels are
            spread back to the picture with smooth borders.
        scale: Larger merges more; scikit-image's `scale`, for values in [0, 255] as in the paper.
        min_size: Smallest region of the first segmentation, in pixels of the reduced picture.
        merge: Difference, in units of CIELAB, below which neighbours become one; 0 = never.
    """

    spec: Kind = "regions"

    def __init__(
        self,
        max_side: int = 256,
        *,
        scale: float = 60.0,
        min_size: int = 20,
        merge: float = 12.0,
    ) -> None:
        self.max_side = max_side
        self.scale = scale
        self.min_size = min_size
        self.merge = merge

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the answer, as JSON."""
        return {"prior": "regions", "method": "felzenszwalb", **vars(self)}

    def __call__(self, rgb: np.ndarray) -> Guide:
        """Segment one whole picture.

        Args:
            rgb: (1, 3, H, W) float32 in [0, 1].

        Returns:
            Guide of regions, (1, H, W) int32, labels 1..K without gaps, the largest region 1: it
            is the nearest thing to a background that a segmentation without masks has.

        Raises:
            ShapeError: `rgb` is not one picture.
            MissingError: scikit-image is not installed.
        """
        found, small = _felzenszwalb(rgb, self.max_side, self.scale, self.min_size)
        if self.merge:
            found = merged(found, _lab(small), self.merge)
        labels = _largest_first(spread(found, *rgb.shape[2:]))
        return Guide(regions=labels[None], provenance=self.identity)


def regions(rgb: np.ndarray) -> Guide:
    """The plain segmentation, nothing merged: (1, 3, H, W) -> regions (1, H, W).

    Degradations follow it, and their bytes are promised: it stays as it is, whatever `RegionsPrior`
    learns. Returns and raises as `RegionsPrior`.
    """
    found, _ = _felzenszwalb(rgb, 256, 200.0, 40)
    guide = Guide(regions=_largest_first(found)[None], provenance={"prior": "regions, plain"})
    return guide.resize(*rgb.shape[2:])


def merged(labels: np.ndarray, lab: np.ndarray, below: float, *, thin: float = 2.0) -> np.ndarray:
    """Neighbouring regions made one while they differ by less than `below`, the nearest first.

    How much two differ is the geometric mean of two things: the distance of their mean colours,
    which is small in texture, and the mean contrast along their border, which is small in
    gradients. Where one of them is thinner than twice `thin`, a sliver in an edge, it counts less.

    Args:
        labels: (h, w) int.
        lab: (h, w, 3), colours in which distances mean something.
        below: In units of `lab`.
        thin: Area by border, in pixels, below which the difference shrinks in proportion; a strip
            has half of its width.

    Returns:
        (h, w) int, 0..K - 1.
    """
    sides = _contrast(lab)
    labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    while True:
        count = int(labels.max()) + 1
        area = np.bincount(labels.ravel())
        sums = [np.bincount(labels.ravel(), plane.ravel()) for plane in np.moveaxis(lab, 2, 0)]
        mean = np.stack(sums, 1) / area[:, None]
        a = np.concatenate([labels[:-1].ravel(), labels[:, :-1].ravel()])
        b = np.concatenate([labels[1:].ravel(), labels[:, 1:].ravel()])
        apart = a != b
        low, high = np.minimum(a, b)[apart], np.maximum(a, b)[apart]
        codes, pair = np.unique(low * count + high, return_inverse=True)
        i, j = np.divmod(codes, count)
        border = np.bincount(pair, minlength=len(codes))
        contrast = np.bincount(pair, sides[apart], len(codes)) / np.maximum(border, 1)
        around = np.bincount(i, border, count) + np.bincount(j, border, count)
        breadth = np.minimum(area[i] / around[i], area[j] / around[j])
        differ = np.sqrt(contrast * np.linalg.norm(mean[i] - mean[j], axis=1))
        differ *= np.minimum(1, breadth / thin)
        near = differ < below
        if not near.any():
            return labels
        i, j, differ = i[near], j[near], differ[near]
        least = np.full(count, np.inf)
        np.minimum.at(least, np.concatenate([i, j]), np.concatenate([differ, differ]))
        both = (differ <= least[i]) & (differ <= least[j])  # each other's nearest
        into = np.arange(count)
        into[j[both]] = i[both]
        while (into[into] != into).any():  # equals may form a chain
            into = into[into]
        labels = np.unique(into[labels], return_inverse=True)[1].reshape(labels.shape)


def spread(labels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Labels on another grid, with smooth borders: (h, w) int -> (height, width) int32.

    Each sample takes the label that has the most of the bilinear weight around it, which where all
    four neighbours are of one region is that region, and makes a slope of a staircase elsewhere.
    """
    h, w = labels.shape
    if (h, w) == (height, width):
        return labels.astype(np.int32)
    y = np.clip((np.arange(height) + 0.5) * h / height - 0.5, 0, h - 1)
    x = np.clip((np.arange(width) + 0.5) * w / width - 0.5, 0, w - 1)
    top, left = np.minimum(y.astype(np.int64), h - 1), np.minimum(x.astype(np.int64), w - 1)
    below, right = np.minimum(top + 1, h - 1), np.minimum(left + 1, w - 1)
    out = labels.astype(np.int32)[top[:, None], left]
    down, across = np.minimum(np.arange(h) + 1, h - 1), np.minimum(np.arange(w) + 1, w - 1)
    corners = [labels, labels[:, across], labels[down], labels[down][:, across]]
    mixed = np.any([corner != labels for corner in corners[1:]], axis=0)
    i, j = np.nonzero(mixed[top[:, None], left])
    if not len(i):
        return out
    fy, fx = y[i] - top[i], x[j] - left[j]
    around = np.stack([labels[r, c] for r in (top[i], below[i]) for c in (left[j], right[j])])
    weight = np.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx])
    votes = [(weight * (around == own)).sum(0) for own in around]
    out[i, j] = np.take_along_axis(around, np.argmax(votes, axis=0)[None], 0)[0]
    return out


def partition(layers: np.ndarray) -> np.ndarray:
    """Masks that may overlap, made one label map: painted from large to small, so small ones win.

    Layer i gets label i + 2 whatever the others look like, so that scores and tokens keep their
    row; a layer that smaller ones cover entirely has no pixel. What no layer covers is the
    background, label 1. Of two layers of one size the earlier wins.

    Args:
        layers: (N, M, h, w) or (M, h, w) bool, M >= 0.

    Returns:
        (N, h, w) or (h, w) int32, labels 1..M + 1. Memory is two label maps, not M.

    Raises:
        ShapeError: `layers` is not a bool array of 3 or 4 dimensions.
    """
    if layers.dtype != np.bool_ or layers.ndim not in (3, 4):
        raise ShapeError(
            f"layers must be (N, M, h, w) or (M, h, w) bool, got {layers.shape} {layers.dtype}."
        )
    count = layers.shape[-3]
    bits = np.packbits(layers, axis=-1)  # counts 64 masks of a megapixel in half the time
    area = np.bitwise_count(bits, out=bits).sum((-2, -1), dtype=np.int64)
    order = np.argsort(area, axis=-1, kind="stable")  # small to large
    rank = np.empty(order.shape, np.int32)
    np.put_along_axis(rank, order, np.arange(count, dtype=np.int32)[(None,) * (order.ndim - 1)], -1)
    # The smallest layer at each pixel; `count` where there is none.
    winner = np.minimum.reduce(
        np.broadcast_to(rank[..., None, None], layers.shape), axis=-3, where=layers, initial=count
    )
    background = np.full((*order.shape[:-1], 1), -1, order.dtype)
    names = (np.concatenate([order, background], -1) + 2).astype(np.int32)
    flat = winner.reshape(*winner.shape[:-2], -1)
    return np.take_along_axis(names, flat, -1).reshape(winner.shape)


def _largest_first(found: np.ndarray) -> np.ndarray:
    """Labels >= 0 to int32 1..K by falling size; ties keep the segmentation's order."""
    sizes = np.bincount(found.ravel())
    order = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
    rank = np.zeros(sizes.size, np.int32)
    rank[order] = np.arange(1, order.size + 1, dtype=np.int32)
    return rank[found]


def _felzenszwalb(
    rgb: np.ndarray, max_side: int, scale: float, min_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Labels (h, w) of the reduced picture, and the picture itself (h, w, 3)."""
    if rgb.ndim != 4 or rgb.shape[:2] != (1, 3):
        raise ShapeError(f"rgb must be (1, 3, H, W) float32 in [0, 1], got {rgb.shape}.")
    try:
        from skimage.segmentation import felzenszwalb
    except ImportError:
        raise MissingError(
            "Region priors need scikit-image: pip install 'relume[regions]'."
        ) from None
    height, width = rgb.shape[2:]
    ratio = min(1.0, max_side / max(height, width))
    h, w = max(1, round(height * ratio)), max(1, round(width * ratio))
    small = rgb if (h, w) == (height, width) else area_resize(rgb, h, w)
    small = np.ascontiguousarray(small[0].transpose(1, 2, 0))
    return felzenszwalb(small, scale=scale, sigma=0.8, min_size=min_size), small


def _lab(rgb: np.ndarray) -> np.ndarray:
    """(h, w, 3) sRGB in [0, 1] to CIELAB, in which a step of 1 is about what an eye can tell."""
    from skimage.color import rgb2lab

    return rgb2lab(rgb).astype(np.float32)


def _contrast(lab: np.ndarray, reach: int = 5) -> np.ndarray:
    """How much the picture changes across each side between two pixels, in units of `lab`.

    Between the means of `reach` pixels on either side, three lines wide, so that neither noise nor
    the softness of an edge decides.

    Returns:
        The (h - 1) w sides between rows, then the h (w - 1) between columns.
    """
    found = []
    for axis in (0, 1):
        lines = np.moveaxis(lab, axis, 0)
        padded = np.pad(lines, ((reach, reach), (1, 1), (0, 0)), mode="edge")
        padded = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
        total = np.cumsum(np.pad(padded, ((1, 0), (0, 0), (0, 0))), axis=0, dtype=np.float64)
        side = np.arange(len(lines) - 1) + reach + 1  # in `total`, the first line after the side
        change = total[side + reach] - 2 * total[side] + total[side - reach]
        step = np.linalg.norm(change, axis=2) / (3 * reach)
        found.append(np.moveaxis(step, 0, axis).ravel())
    return np.concatenate(found)
