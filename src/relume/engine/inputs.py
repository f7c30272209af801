"""What goes into a graph: arrays in the order of its card, from a tile and its guidance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..card import Card, Reads
from ..errors import GuidanceError, ShapeError
from ..guidance import Guidance, Guide


def feeds(card: Card, tile: np.ndarray, guidance: Guidance) -> dict[str, np.ndarray]:
    """The graph's inputs: `lq`, then one array for each prior that the card reads.

    A prior that is missing is given as null: zero maps, labels, tokens, vector.

    Raises:
        ShapeError: `tile` is not (1, 3, h, w) with sides that are multiples of the card's.
        GuidanceError: A guide has another kind or shape than the card reads.
    """
    m = card.multiple_of
    if tile.ndim != 4 or tile.shape[:2] != (1, 3) or tile.shape[2] % m or tile.shape[3] % m:
        raise ShapeError(
            f"{card.name} takes tiles of (1, 3, h, w) with sides that {m} divides, got "
            f"{tile.shape}. `tiling.plan` makes them."
        )
    given = {"lq": np.ascontiguousarray(tile, np.float32)}
    for reads in card.reads:
        given[reads.prior] = _guide(card, reads, guidance, tile.shape[2], tile.shape[3])
    for reads in card.prepared:
        if reads.prior not in guidance:
            raise GuidanceError(
                f"{card.name} needs {reads.prior} of the whole picture. Call `prepare` first."
            )
        given[reads.prior] = _guide(card, reads, guidance, tile.shape[2], tile.shape[3])
        if reads.counted and label_count(card, given) > given[reads.prior].shape[1]:
            raise GuidanceError(
                f"{card.name} has {given[reads.prior].shape[1]} rows of {reads.prior}, and the "
                f"tile {label_count(card, given)} labels. Prepare and tile the same picture."
            )
    return given


def label_count(card: Card, given: Mapping[str, np.ndarray]) -> int:
    """One more than the highest label of the regions that a card reads; 1 where it reads none."""
    labels = [given[r.prior] for r in card.reads if r.kind == "regions"]
    return 1 + max((int(a.max()) for a in labels if a.size), default=0)


def asked_of_preparer(
    preparer: Card, card: Card, view: np.ndarray, guidance: Guidance
) -> dict[str, np.ndarray]:
    """The inputs of the graph that prepares: the picture, what it reads, and empty token rows where
    they are as many as labels.

    The rows say how many labels there may be. Their number is a power of two, so that a runtime
    which compiles each shape meets few.
    """
    counted = [r for r in card.prepared if r.counted]
    nulls = {r.prior: Guide(tokens=np.zeros((1, 1, r.channels), np.float32)) for r in counted}
    given = feeds(preparer, view, Guidance({**guidance, **nulls}))
    rows = 1 << max(4, (label_count(preparer, given) - 1).bit_length())
    return given | {r.prior: np.zeros((1, rows, r.channels), np.float32) for r in counted}


def _guide(card: Card, reads: Reads, guidance: Guidance, height: int, width: int) -> np.ndarray:
    free = [height // reads.stride, width // reads.stride]
    last = len(reads.shape)
    sides = [n or (free[i - last] if reads.spatial else 1) for i, n in enumerate(reads.shape)]
    shape = (1, *sides)
    dtype = {"regions": np.int32, "layers": np.bool_}.get(reads.kind, np.float32)
    if reads.prior not in guidance:
        return np.zeros(shape, dtype)
    guide = guidance[reads.prior]
    if guide.kind != reads.kind:
        raise GuidanceError(
            f"{card.name} reads {reads.prior} as {reads.kind}, but this one is {guide.kind}."
        )
    array = np.ascontiguousarray(guide.array, dtype)
    if array.shape != shape and not (reads.counted and array.shape[::2] == shape[::2]):
        raise GuidanceError(
            f"{card.name} reads {reads.prior} as {shape} for this tile, got {array.shape}."
        )
    # -1 would wrap silently in a gather.
    if reads.kind == "regions" and array.size and array.min() < 0:
        raise GuidanceError(f"{reads.prior} has the label {array.min()}; labels are 0 or more.")
    return array


def guide_of(reads: Reads, array: Any) -> Guide:
    """The Guide that a model reads, from its array (N first) or tensor."""
    given: dict[str, Any] = {reads.kind: array}
    return Guide(**given, stride=reads.stride, whole=reads.whole)
