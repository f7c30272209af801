"""The whole picture, small: what a crop cannot know (how dark, how hazy, what colour of light)."""

from typing import Any

import numpy as np

from ..guidance import Guide, InRows, Kind, area_resize

SIDE = 96


def thumbnail(rgb: np.ndarray | InRows, side: int = SIDE) -> Guide:
    """The picture as side x side area means, squashed to a square.

    Args:
        rgb: (1, 3, H, W) float32 in [0, 1], the whole degraded picture, or rows of it.
        side: Samples each way. Pictures smaller than that are enlarged by repetition.

    Returns:
        A `whole` Guide with maps (1, 3, side, side) in [0, 1].
    """
    maps = area_resize(rgb, side, side).astype(np.float32)
    return Guide(
        maps=maps,
        names=("red", "green", "blue"),
        units=("file value",) * 3,
        whole=True,
        provenance={"prior": "thumbnail", "side": side},
    )


class ThumbnailPrior:
    """`thumbnail` as a member of PRIORS; `max_side` is the thumbnail's own side."""

    spec: Kind = "maps"

    def __init__(self, max_side: int = SIDE) -> None:
        self.max_side = max_side

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the answer, as JSON."""
        return {"prior": "thumbnail", "side": self.max_side}

    def __call__(self, rgb: np.ndarray | InRows) -> Guide:
        return thumbnail(rgb, self.max_side)
