"""Priors inside the network, which travel in the exported graph. One file and one row each.

An encoder is `(lq, guidance) -> Guide`; `asks` says what it reads from outside, `dim` the size of
what it emits. One with `prepared` must see the whole picture's pixels: it is called once a picture,
`(view, guidance, rows) -> Guide` of token rows.
"""

from .regions import RegionMeans, RegionStatistics
from .slots import MaskSlots
from .thumbnail import ThumbnailEncoder

__all__ = ["ENCODERS", "MaskSlots", "RegionMeans", "RegionStatistics", "ThumbnailEncoder"]

ENCODERS = {
    "mask_slots": MaskSlots,
    "region_means": RegionMeans,
    "region_statistics": RegionStatistics,
    "thumbnail": ThumbnailEncoder,
}
