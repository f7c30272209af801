"""Overlapping masks as run lengths: what a segmenter, or a person, says before it is a Guide.

Runs are COCO's: pixels column by column, zeros first, so that the masks of the usual tools can be
read as they are (format: pycocotools' maskApi). A hundred masks of a megapixel are some 100 KB here
and 100 MB as booleans.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import PictureError, ShapeError
from ..guidance import Guide, Kind
from ..image.limits import LIMITS

SCORES = ("predicted_iou", "stability", "area")
AT_ONCE = 1 << 25  # pixels of masks that are unpacked at a time
MOST = 1 << 32  # bytes of layers that are given out


@dataclass(frozen=True, eq=False)
class Masks:
    """M >= 0 masks of one picture, which may overlap; the order is their maker's.

    Args:
        size: (h, w).
        counts: Run lengths of all masks in turn, integers >= 0; zeros and ones alternate in each.
        ends: (M,) int64, where each mask's runs end in `counts`.
        scores: (M, 3) float32 in [0, 1]: predicted IoU, stability, share of the picture.
        provenance: Who made them, from what, with which settings.
    """

    size: tuple[int, int]
    counts: np.ndarray
    ends: np.ndarray
    scores: np.ndarray
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pixels = self.size[0] * self.size[1]
        if pixels < 1 or self.scores.shape != (len(self.ends), len(SCORES)):
            raise ShapeError(
                f"Masks need a size and (M, {len(SCORES)}) scores, got {self.size} and "
                f"{self.scores.shape} for {len(self.ends)} masks."
            )
        runs = np.diff(self.ends, prepend=0)
        if runs.sum() != len(self.counts) or (runs < 1).any():
            raise ShapeError(f"{len(self.counts)} runs do not end where the masks' ends say.")
        covered = np.diff(np.cumsum(self.counts, dtype=np.int64)[self.ends - 1], prepend=0)
        if (covered != pixels).any():
            raise ShapeError(f"The runs of a mask do not add up to its {pixels} pixels.")

    def __len__(self) -> int:
        return len(self.ends)

    @staticmethod
    def of(
        layers: np.ndarray,
        scores: np.ndarray | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> Masks:
        """From (M, h, w) bool. Without scores the first two are 1: somebody meant these masks.

        Raises:
            ShapeError: `layers` is not (M, h, w) bool.
        """
        if layers.ndim != 3 or layers.dtype != np.bool_:
            raise ShapeError(f"layers must be (M, h, w) bool, got {layers.shape} {layers.dtype}.")
        counts, ends = encode(layers)
        if scores is None:
            scores = certain(layers.sum((1, 2)), layers.shape[1] * layers.shape[2])
        size = (layers.shape[1], layers.shape[2])
        return Masks(size, counts, ends, scores.astype(np.float32), provenance or {})

    @staticmethod
    def of_labels(labels: np.ndarray) -> Masks:
        """A mask for each label above 0 of (h, w) int, in the labels' order."""
        h, w = labels.shape
        flat = labels.T.ravel()
        start = np.flatnonzero(np.diff(flat, prepend=flat[0] - 1))
        length = np.diff(start, append=flat.size)
        label = flat[start]
        turn = np.argsort(label, kind="stable")
        turn = turn[label[turn] > 0]
        start, length, label = start[turn], length[turn], label[turn]
        first = np.diff(label, prepend=0) > 0
        last = np.diff(label, append=0) != 0
        before = start - np.where(first, 0, np.roll(start + length, 1))
        after = (flat.size - start - length)[last]
        counts = np.stack([before, length], 1).ravel()
        rows = np.flatnonzero(last) + 1  # runs of ones that each label and those before it have
        counts = np.insert(counts, 2 * rows, after)
        ends = 2 * rows + np.arange(1, len(rows) + 1)
        areas = np.add.reduceat(length, np.flatnonzero(first)) if len(rows) else length
        return Masks((h, w), counts.astype(np.uint32), ends, certain(areas, flat.size))

    @property
    def areas(self) -> np.ndarray:
        """(M,) int64, pixels of each."""
        mask, _, length = self._runs()
        return np.bincount(mask, length, len(self)).astype(np.int64)

    def layers(self, first: int | None = None) -> np.ndarray:
        """(M, h, w) bool; `first` masks only, where there are more.

        Raises:
            ShapeError: They would take more than 4 GB.
        """
        count = len(self) if first is None else min(first, len(self))
        h, w = self.size
        if count * h * w > MOST:
            raise ShapeError(
                f"{count} layers of {h} x {w} take {count * h * w >> 30} GB: take regions, which "
                "are one label map, or fewer masks."
            )
        bits = np.arange(self.ends[count - 1] if count else 0) - self._starts(count)
        flat = np.repeat(bits % 2 == 1, self.counts[: len(bits)])
        return np.ascontiguousarray(flat.reshape(count, w, h).transpose(0, 2, 1))

    def labels(self) -> np.ndarray:
        """(h, w) int32: `partition` of the layers, without unpacking them.

        Mask i has label i + 2, what no mask covers label 1; painted from large to small.
        """
        h, w = self.size
        order = np.argsort(self.areas, kind="stable")[::-1]  # of equals the earlier is painted last
        when = np.empty(len(self), np.int64)
        when[order] = np.arange(len(self))
        mask, start, length = self._runs()
        turn = np.argsort(when[mask], kind="stable")
        mask, start, length = mask[turn], start[turn], length[turn]
        labels = np.ones(h * w, np.int32)
        for part in _stretches(length):
            many = length[part]
            step = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
            # Where an index stands twice, numpy keeps the last value: the smaller mask.
            labels[np.repeat(start[part], many) + step] = np.repeat(mask[part] + 2, many)
        return np.ascontiguousarray(labels.reshape(w, h).T)

    def best(self, most: int) -> Masks:
        """The `most` masks of the largest area, the rest left out; of equals the earlier stays."""
        if len(self) <= most:
            return self
        chosen = np.sort(np.argsort(-self.areas, kind="stable")[:most])
        begins = self.ends - np.diff(self.ends, prepend=0)
        taken = np.zeros(len(self.counts) + 1, np.int64)
        np.add.at(taken, begins[chosen], 1)
        np.add.at(taken, self.ends[chosen], -1)
        counts = self.counts[np.cumsum(taken)[:-1] > 0]
        ends = np.cumsum(np.diff(self.ends, prepend=0)[chosen])
        return Masks(self.size, counts, ends, self.scores[chosen], self.provenance)

    def guide(self, gives: Kind, height: int, width: int) -> Guide:
        """What a network reads, for a picture of (height, width).

        Args:
            gives: "regions", the partition; "layers", every mask; "tokens", a row of scores for
                each label of the partition (0 and the background's are zero).

        Raises:
            ShapeError: Another kind.
        """
        if gives == "tokens":
            rows = np.concatenate([np.zeros((2, len(SCORES)), np.float32), self.scores])
            return Guide(tokens=rows[None], names=SCORES, provenance=self.provenance)
        if gives == "regions":
            found = Guide(regions=self.labels()[None], provenance=self.provenance)
        elif gives == "layers":
            found = Guide(layers=self.layers()[None], provenance=self.provenance)
        else:
            raise ShapeError(f"Masks give regions, layers or tokens, not {gives!r}.")
        return found if self.size == (height, width) else found.resize(height, width)

    def _starts(self, count: int) -> np.ndarray:
        """For each run of the first `count` masks, where its mask's runs start in `counts`."""
        runs = np.diff(self.ends[:count], prepend=0)
        return np.repeat(self.ends[:count] - runs, runs)

    def _runs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mask, first pixel (column by column) and length of every run of ones."""
        runs = np.diff(self.ends, prepend=0)
        mask = np.repeat(np.arange(len(self)), runs)
        length = self.counts.astype(np.int64)
        start = np.cumsum(length) - length - mask * (self.size[0] * self.size[1])
        ones = (np.arange(len(length)) - self._starts(len(self))) % 2 == 1
        return mask[ones], start[ones], length[ones]


def encode(layers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(M, h, w) bool to run lengths (uint32) and where each mask's end (int64)."""
    count, h, w = layers.shape
    pixels = h * w
    parts: list[np.ndarray] = []
    runs: list[np.ndarray] = []
    step = max(1, AT_ONCE // max(1, pixels))
    for first in range(0, count, step):
        flat = layers[first : first + step].transpose(0, 2, 1).reshape(-1, pixels)
        mask, column = np.nonzero(flat[:, 1:] != flat[:, :-1])
        m = np.arange(len(flat))
        inked = m[flat[:, 0]]  # these start with an empty run of zeros
        who = np.concatenate([m, inked, mask, m])
        edge = np.concatenate([0 * m, 0 * inked, column + 1, 0 * m + pixels])
        turn = np.lexsort((edge, who))
        who, edge = who[turn], edge[turn]
        inside = who[1:] == who[:-1]
        parts.append(np.diff(edge)[inside].astype(np.uint32))
        runs.append(np.bincount(who, minlength=len(flat)) - 1)
    if not parts:
        return np.zeros(0, np.uint32), np.zeros(0, np.int64)
    return np.concatenate(parts), np.cumsum(np.concatenate(runs)).astype(np.int64)


def certain(areas: np.ndarray, pixels: int) -> np.ndarray:
    """Scores (M, 3) of masks that somebody meant: 1, 1, share of the picture."""
    ones = np.ones(len(areas))
    return np.stack([ones, ones, areas / pixels], 1).astype(np.float32)


def from_json(document: Any, name: str) -> Masks:
    """Masks of a parsed JSON document, in any of the forms that segmenters write.

    One run-length mask `{"size": [h, w], "counts": […] or "…"}`, a list of them, or objects that
    hold one as `segmentation` beside `predicted_iou` and `stability_score`, in a list or under
    `annotations`.

    Args:
        document: What json.loads gave.
        name: What messages call it.

    Raises:
        PictureError: It is something else, or its runs do not add up.
    """
    found = document.get("annotations", [document]) if isinstance(document, dict) else document
    try:
        entries = [entry.get("segmentation", entry) for entry in found]
        sizes = {tuple(int(v) for v in entry["size"]) for entry in entries}
        counts = [_counts(entry["counts"]) for entry in entries]
        said = [[float(e.get(k, 1)) for k in ("predicted_iou", "stability_score")] for e in found]
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise PictureError(
            f'{name}: it is no list of run-length masks {{"size": [h, w], "counts": …}} ({error}).'
        ) from None
    if not entries:
        raise PictureError(f"{name}: it lists no mask, so nothing tells the size; leave it out.")
    if len(sizes) > 1 or any(len(size) != 2 or min(size) < 1 for size in sizes):
        raise PictureError(f"{name}: its masks are of sizes {sorted(sizes)}; give them one size.")
    h, w = sizes.pop()
    if h * w > LIMITS.input:
        raise PictureError(f"{name}: masks of {h} x {w} are larger than any picture that is read.")
    if any(len(c) == 0 or c.min() < 0 or c.sum() != h * w for c in counts):
        raise PictureError(f"{name}: the runs of a mask do not add up to its {h} x {w} pixels.")
    ends = np.cumsum([len(c) for c in counts]).astype(np.int64)
    runs = np.concatenate(counts).astype(np.uint32)
    scores = np.zeros((len(entries), len(SCORES)), np.float32)
    scores[:, :2] = np.clip(said, 0, 1)
    masks = Masks((h, w), runs, ends, scores)
    scores[:, 2] = masks.areas / (h * w)
    return masks


def _counts(written: str | Sequence[int]) -> np.ndarray:
    """Runs as listed, or from COCO's string.

    There a run is written in groups of five bits, low ones first, one character (48 + bits) each, a
    sixth bit telling that more follow; negative numbers end in a set fifth bit. From the fourth run
    on it is the difference to the run before last.
    """
    if not isinstance(written, str):
        counts = np.asarray(written)
        if counts.ndim != 1 or counts.dtype.kind not in "iu":
            raise ValueError("counts are whole numbers")
        return counts.astype(np.int64)
    code = np.frombuffer(written.encode("ascii"), np.uint8).astype(np.int64) - 48
    if not code.size or code.min() < 0 or code.max() > 63 or code[-1] & 32:
        raise ValueError("its counts are no COCO string")
    last = np.flatnonzero(code & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    if (last - first).max() > 6:
        raise ValueError("its counts are no COCO string")
    shift = 5 * (np.arange(code.size) - np.repeat(first, last - first + 1))
    runs = np.add.reduceat((code & 31) << shift, first)
    runs -= np.where(code[last] & 16, 1 << (5 * (last - first + 1)), 0)
    for strand in (runs[1::2], runs[2::2]):  # views: the sums go back into `runs`
        np.cumsum(strand, out=strand)
    return runs


def _stretches(length: np.ndarray) -> Iterator[slice]:
    """Consecutive runs whose pixels fit in memory at once."""
    total = np.cumsum(length)
    first = 0
    while first < len(length):
        room = (total[first - 1] if first else 0) + AT_ONCE
        last = max(first + 1, int(np.searchsorted(total, room, side="right")))
        yield slice(first, last)
        first = last
