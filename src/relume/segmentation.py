"""What is in each picture of a job: its regions as a label map, and drawn over the photograph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__
from .errors import PictureError, UsageError
from .guidance import Guide
from .image import Picture, encode
from .image.apart import decoder
from .priors import PRIORS
from .priors.own import OwnMasks
from .priors.sam import TOGETHER, SamPrior
from .survey import Seen, Task

Look = Callable[[Path, np.ndarray], tuple[Guide, Sequence[str]]]
"""(file, (1, 3, H, W) RGB) -> regions of that size, and what has to be announced."""

ENDINGS = {"regions": ".regions.png", "overlay": ".overlay.png"}
KINDS = ("regions", "grid", "voronoi", "sam")

# Ten hues at one lightness and chroma in OKLab (Ottosson 2020), every other one darker; neighbours
# in the table are far apart on the wheel.
INKS = (
    (235, 141, 134), (118, 161, 85), (98, 180, 236), (198, 116, 157), (191, 171, 79),
    (0, 166, 180), (196, 149, 223), (197, 128, 66), (83, 194, 158), (129, 139, 216),
)  # fmt: skip


def looking(
    prior: str = "regions",
    *,
    sam: str | None = None,
    masks: Path | None = None,
    one: bool = False,
) -> tuple[Look, dict[str, Any]]:
    """What finds the regions, and the settings that decide them.

    Args:
        prior: One of KINDS.
        sam: SAM's weights, a folder or the id of a hub model, which is fetched where it is not on
            this machine.
        masks: A person's own masks instead (`priors.own`).
        one: There is but one picture.

    Raises:
        UsageError: Another prior, flags that do not go together, no masks.
        MissingError, ModelError: SAM's weights.
    """
    if (sam is not None) != (prior == "sam"):
        raise UsageError(TOGETHER)
    if masks is not None:
        if prior != "regions":
            raise UsageError("--masks takes the place of --prior; give one of them.")
        own = OwnMasks(masks, one=one, reads=decoder().read)
        return lambda source, rgb: own.of(source, *rgb.shape[2:]), own.identity
    if prior not in KINDS:
        raise UsageError(f"no regions called {prior!r}; there is {', '.join(KINDS)}.")
    if prior == "sam":
        found = SamPrior(sam, network=True)
        return lambda _, rgb: (found(rgb), ()), dict(found.identity)
    kind = PRIORS[prior]()
    return lambda _, rgb: (kind(rgb), ()), {"prior": prior, "relume": __version__}


def task(look: Look) -> Task:
    """What `survey.run` does with every picture: NAME.regions.png and NAME.overlay.png.

    Args:
        look: What finds the regions.
    """

    def see(source: Path, picture: Picture) -> Seen:
        rgb = picture.rgb()
        guide, announced = look(source, rgb)
        labels = np.asarray(guide.regions)[0]
        if labels.max() > 65535:
            raise PictureError(f"{source}: {labels.max()} regions are more than 16 bits can count.")
        drawn = {
            ENDINGS["regions"]: encode(
                Picture(labels.astype(np.uint16)[..., None], bits=16), "png"
            ),
            ENDINGS["overlay"]: encode(Picture.from_rgb(overlay(rgb, labels)), "png"),
        }
        return Seen({"count": len(np.unique(labels[labels > 0]))}, drawn, announced)

    ends = tuple(ENDINGS.values())
    return Task(see, "segmented", {"count": None}, lambda name: name.endswith(ends), ENDINGS)


# The overlay.


def overlay(rgb: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Regions in muted colours over the photograph, with thin light borders: (1, 3, H, W).

    Regions that touch differ in colour, unless one touches more than there are colours. Light and
    shade are the photograph's. Where no region is (label 0), the photograph is left as it is.

    Args:
        rgb: (1, 3, H, W) float32 in [0, 1].
        labels: (H, W) int, >= 0.
    """
    luma = np.tensordot(np.array([0.299, 0.587, 0.114], np.float32), rgb[0], 1)
    inks = np.array(INKS, np.float32)[colours(labels)].transpose(2, 0, 1) / 255
    tinted = inks * (0.35 + 0.8 * luma)
    out = np.where(labels > 0, 0.5 * rgb[0] + 0.5 * tinted, rgb[0])
    line, shade = _borders(labels, max(1, round(max(labels.shape) / 900)))
    out = out * np.where(shade & ~line, np.float32(0.72), np.float32(1))
    out = np.where(line, 0.15 * out + 0.85 * np.float32(0.98), out)
    return np.clip(out, 0, 1).astype(np.float32)[None]


def colours(labels: np.ndarray) -> np.ndarray:
    """(H, W) index into INKS of every pixel's region.

    Rounds of Jones and Plassmann (SIAM J. Sci. Comput. 1993): a region chooses once it has more
    neighbours than all of those that have not chosen; it takes the colour that the fewest of its
    neighbours have, the first of these from one that its own number picks.
    """
    values, index = np.unique(labels, return_inverse=True)
    index = index.reshape(labels.shape)
    count = len(values)
    sides = [(index[1:], index[:-1]), (index[:, 1:], index[:, :-1])]
    pairs = np.concatenate([np.stack([a[a != b], b[a != b]], 1) for a, b in sides])
    a, b = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0).T
    rank = np.empty(count, np.int64)
    rank[np.argsort(np.bincount(a, minlength=count), kind="stable")] = np.arange(count)
    chosen = np.full(count, -1)
    kinds = np.arange(len(INKS))
    while (chosen < 0).any():
        waits = (chosen[a] < 0) & (chosen[b] < 0) & (rank[b] > rank[a])
        ready = (chosen < 0) & (np.bincount(a[waits], minlength=count) == 0)
        taken = np.zeros((count, len(INKS)), np.int64)
        known = chosen[b] >= 0
        np.add.at(taken, (a[known], chosen[b[known]]), 1)
        turn = (kinds + values[:, None] * 3) % len(INKS)
        first = np.take_along_axis(taken, turn, 1).argmin(1)
        chosen[ready] = turn[np.arange(count), first][ready]
    return chosen[index]


def _borders(labels: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) bool, the lines between regions, `width` pixels wide, and the pixels next to them."""
    line = np.zeros(labels.shape, bool)
    line[:-1] |= labels[1:] != labels[:-1]
    line[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    for _ in range(width - 1):
        line = _grown(line)
    return line, _grown(line)


def _grown(mask: np.ndarray) -> np.ndarray:
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:, 1:] |= mask[:, :-1]
    grown[:-1] |= mask[1:]
    grown[:, :-1] |= mask[:, 1:]
    return grown
