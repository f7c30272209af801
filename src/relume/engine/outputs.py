"""What comes out of a graph, held to its card: shapes as promised, and every value finite."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..card import Card
from ..errors import CheckError
from ..guidance import Guidance
from .inputs import guide_of


def checked(card: Card, tile: np.ndarray, out: np.ndarray) -> np.ndarray:
    """`out`, when it has the shape the card promises and every value is finite.

    Raises:
        CheckError: It has not.
    """
    n, _, h, w = tile.shape
    c = len(card.emits) or 3
    picture = (n, c, h * card.scale, w * card.scale)
    if out.shape != ((n, len(card.vector)) if card.vector else picture):
        raise CheckError(f"{card.name} gave {out.shape} for a tile of {tile.shape}.")
    # One pass without a mask: a sum in double is finite exactly when every term is.
    if not math.isfinite(float(out.sum(dtype=np.float64))):
        raise CheckError(f"{card.name} gave values that are not finite; nothing was written.")
    return out


def with_prepared(card: Card, guidance: Guidance, outs: Sequence[np.ndarray]) -> Guidance:
    """The guidance with what a preparer gave, in the card's order.

    Raises:
        CheckError: They are not finite.
    """
    for reads, rows in zip(card.prepared, outs, strict=True):
        if not np.isfinite(rows).all():
            raise CheckError(
                f"{card.name} prepared {reads.prior} that is not finite; nothing was written."
            )
        guidance = guidance.with_guide(reads.prior, guide_of(reads, np.array(rows, np.float32)))
    return guidance
