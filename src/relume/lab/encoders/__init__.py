"""Priors inside the network, which travel in the exported graph. One file and one row each.

An encoder is `(lq, guidance) -> Guide`; `asks` says what it reads from outside, `dim` the size of
what it emits. One with `prepared` must see the whole picture's pixels: it is called once a
picture, `(view, guidance, rows) -> Guide` of token rows, one a label; or, where it has a `shape`,
of a vector (D,) or of so many rows (T, D). `controlled` stands in for any that looks at the picture
itself, and is no row.
"""

from .degradation import DegradationEncoder
from .dino import DinoLevels
from .regions import RegionMeans, RegionStatistics
from .semantics import Semantics
from .slots import MaskSlots
from .thumbnail import ThumbnailEncoder

__all__ = [
    "ENCODERS",
    "DegradationEncoder",
    "DinoLevels",
    "MaskSlots",
    "RegionMeans",
    "RegionStatistics",
    "Semantics",
    "ThumbnailEncoder",
]

ENCODERS = {
    "degradation": DegradationEncoder,
    "dino": DinoLevels,
    "mask_slots": MaskSlots,
    "region_means": RegionMeans,
    "region_statistics": RegionStatistics,
    "semantics": Semantics,
    "thumbnail": ThumbnailEncoder,
}
