"""What can be known from the degraded picture alone. One file and one row each.

A prior is a callable with `spec`, the kind of Guide it makes, and `max_side`, the longest side in
pixels at which it looks. It sees the whole picture, once.
"""

from typing import Any, Protocol

import numpy as np

from ..guidance import Guide, Kind
from .damage import DamagePrior
from .partitions import GridPrior, VoronoiPrior
from .quality import QualityPrior
from .regions import RegionsPrior
from .sam import SamPrior
from .thumbnail import ThumbnailPrior

__all__ = ["PRIORS", "Prior"]


class Prior(Protocol):
    """(rgb) -> Guide; rgb is (1, 3, H, W) float32 in [0, 1]."""

    spec: Kind
    max_side: int

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the answer, as JSON."""
        ...

    def __call__(self, rgb: np.ndarray) -> Guide: ...


PRIORS: dict[str, type[Prior]] = {
    "damage": DamagePrior,
    "grid": GridPrior,
    "quality": QualityPrior,
    "regions": RegionsPrior,
    "sam": SamPrior,
    "thumbnail": ThumbnailPrior,
    "voronoi": VoronoiPrior,
}
