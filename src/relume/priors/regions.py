"""Regions without weights: a graph-based segmentation, and masks that overlap made a partition.

Labels are int32. 0 is kept for what is dropped, uncovered or padding; here every pixel belongs to
something, so they count from 1.
"""

from __future__ import annotations

import numpy as np

from ..errors import MissingError, ShapeError
from ..guidance import Guide, Kind, area_resize


class RegionsPrior:
    """Felzenszwalb and Huttenlocher's segmentation (IJCV 2004) through scikit-image.

    It merges neighbouring pixels while the step between two regions is small against the variation
    inside them.

    Args:
        max_side: Longest side, in pixels, of the reduced picture that is segmented; the labels are
            spread back to the picture by nearest neighbour.
        scale: Larger merges more; scikit-image's `scale`, for values in [0, 255] as in the paper.
        min_size: Smallest region, in pixels of the reduced picture.
    """

    spec: Kind = "regions"

    def __init__(self, max_side: int = 256, *, scale: float = 200.0, min_size: int = 40) -> None:
        self.max_side = max_side
        self.scale = scale
        self.min_size = min_size

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
        if rgb.ndim != 4 or rgb.shape[:2] != (1, 3):
            raise ShapeError(f"rgb must be (1, 3, H, W) float32 in [0, 1], got {rgb.shape}.")
        try:
            from skimage.segmentation import felzenszwalb
        except ImportError:
            raise MissingError(
                "Region priors need scikit-image: pip install 'relume[regions]'."
            ) from None
        height, width = rgb.shape[2:]
        ratio = min(1.0, self.max_side / max(height, width))
        h, w = max(1, round(height * ratio)), max(1, round(width * ratio))
        small = rgb if (h, w) == (height, width) else area_resize(rgb, h, w)
        found = felzenszwalb(
            np.ascontiguousarray(small[0].transpose(1, 2, 0)),
            scale=self.scale,
            sigma=0.8,
            min_size=self.min_size,
        )
        labels = _largest_first(found)[None]
        guide = Guide(
            regions=labels,
            provenance={
                "prior": "regions",
                "method": "felzenszwalb",
                "max_side": self.max_side,
                "scale": self.scale,
                "min_size": self.min_size,
            },
        )
        return guide.resize(height, width)


def regions(rgb: np.ndarray) -> Guide:
    """`RegionsPrior` with its default settings: (1, 3, H, W) -> regions (1, H, W)."""
    return RegionsPrior()(rgb)


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
    """Any integer labels to int32 1..K by falling size; ties keep the segmentation's order."""
    _, inverse, sizes = np.unique(found, return_inverse=True, return_counts=True)
    rank = np.empty(sizes.size, np.int32)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(1, sizes.size + 1, dtype=np.int32)
    return rank[inverse].reshape(found.shape)
