"""What is true of a picture's damage, in two kinds that must not be mixed.

`severities` is the physics: what our own degradations did, on [0, 1], as the contract's table of
SPECs has it. `visible` is what a person could see of it: the difference to the clean picture, by a
rule for each kind, for real pairs of which no physics is known. A network that is told `visible` of
the picture it restores is told the answer: such an arm is called `oracle_residual`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

from ..errors import UsageError, nearest
from ..guidance import Guidance, Guide
from ..priors.damage import KINDS

DONE_BY: Mapping[str, tuple[str, ...]] = {
    "noise": ("noise", "poisson", "sensor"),
    "compression": ("jpeg",),
    "blur": ("blur", "regionblur", "defocus"),
    "rain": ("rain",),
    "raindrop": ("raindrop",),
    "haze": ("haze",),
    "lowlight": ("lowlight",),
    "scratch": ("scratch",),
    "dust": ("dust",),
    "fade": ("fade",),
}
"""Map -> the kinds of a SPEC that make such damage."""


def severities(truth: Guidance, size: tuple[int, int], kinds: Sequence[str] = KINDS) -> Guide:
    """One map for each kind, from what a chain of degradations says it did.

    Args:
        truth: "damage.KIND" -> one map (1, 1, h, w), as `Chain.apply` gives it.
        size: (h, w) of the maps, where there was no damage at all.
        kinds: The maps wanted, in order.

    Returns:
        maps (1, K, h, w) float32 in [0, 1]; of two damages of one kind the larger counts.

    Raises:
        UsageError: A kind that is none.
    """
    maps = np.zeros((1, len(kinds), *size), np.float32)
    for at, kind in enumerate(kinds):
        if kind not in DONE_BY:
            raise UsageError(f"no kind of damage {kind!r}.{nearest(kind, DONE_BY)}")
        for name in DONE_BY[kind]:
            if f"damage.{name}" in truth:
                found = truth[f"damage.{name}"].array[0, 0]
                np.maximum(maps[0, at], found, out=maps[0, at])
    return Guide(
        maps=maps,
        names=tuple(kinds),
        units=("severity",) * len(kinds),
        provenance={"prior": "truth", "of": "severity"},
    )


def residual(lq: np.ndarray, gt: np.ndarray, kinds: Sequence[str]) -> Guide:
    """`visible` of each kind as one Guide: what an arm called `oracle_residual` is told.

    Args:
        lq, gt: (3, h, w) in [0, 1].
        kinds: The maps wanted, in order.

    Returns:
        maps (1, K, h, w) float32 in [0, 1].

    Raises:
        UsageError: A kind that is none.
    """
    return Guide(
        maps=np.stack([visible(lq, gt, kind) for kind in kinds])[None],
        names=tuple(kinds),
        units=("severity",) * len(kinds),
        provenance={"prior": "truth", "of": "residual"},
    )


INSIDE = 0.5
"""Severity above which a pixel counts as damaged."""


def inside(truth: Guidance) -> np.ndarray | None:
    """Where any damage is worse than INSIDE.

    Args:
        truth: "damage.KIND" -> one map (1, 1, h, w), as `Chain.apply` gives it.

    Returns:
        (h, w) bool; None where no damage is known.
    """
    names = [f"damage.{name}" for made in DONE_BY.values() for name in made]
    maps = [truth[name].array[0, 0] for name in names if name in truth]
    return np.max(maps, 0) > INSIDE if maps else None


FLOOR = 4 / 255
"""Differences up to here are no damage: rounding, and what two photographs of a pair differ by."""


def visible(lq: np.ndarray, gt: np.ndarray, kind: str) -> np.ndarray:
    """What can be seen of a damage, by the difference to the clean picture.

    The rules, in levels of 255 (d is the largest absolute difference over the colours):

    - rain, scratch, dust: d from 5 to 15 rises from 0 to 1.
    - raindrop: d, smoothed over 1 pixel, from 15 to 30 (as raindrop removal usually has it), then
      opened and closed by 3 x 3, because real pairs are shifted against each other a little.
    - blur: the root of the local energy of the difference, over 3 pixels, from 4 to 12: the bare
      difference is there only at edges.
    - haze, low light, fade: they change every pixel. The picture is taken for gain x clean + offset
      in each colour, fitted to all but the fifth of the pixels that fit worst, which are damaged
      otherwise; what gain and offset do to a pixel, from FLOOR up to half the range.
    - noise, compression: the local root mean square of the difference, over 7 pixels, from FLOOR to
      50 / 255.

    Args:
        lq, gt: (3, h, w) in [0, 1].

    Returns:
        (h, w) float32 in [0, 1].

    Raises:
        UsageError: A kind that is none.
    """
    if kind not in DONE_BY:
        raise UsageError(f"no kind of damage {kind!r}.{nearest(kind, DONE_BY)}")
    difference = np.abs(lq.astype(np.float32) - gt)
    largest = difference.max(0)
    if kind in ("rain", "scratch", "dust"):
        return _rise(largest, 5 / 255, 15 / 255)
    if kind == "raindrop":
        seen = _rise(ndimage.gaussian_filter(largest, 1), 15 / 255, 30 / 255)
        return ndimage.grey_closing(ndimage.grey_opening(seen, (3, 3)), (3, 3))
    energy = (difference**2).mean(0)
    if kind == "blur":
        return _rise(np.sqrt(ndimage.gaussian_filter(energy, 3)), 4 / 255, 12 / 255)
    if kind in ("haze", "lowlight", "fade"):
        fitted = np.stack([_fitted(a, b) for a, b in zip(lq, gt, strict=True)])
        return _rise(np.abs(fitted - gt).mean(0), FLOOR, 0.5)
    return _rise(np.sqrt(ndimage.uniform_filter(energy, 7)), FLOOR, 50 / 255)


def _fitted(damaged: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """gain x clean + offset by least squares, trimmed: fitted anew to the best four fifths."""
    x, y = clean.astype(np.float64).ravel(), damaged.astype(np.float64).ravel()
    kept = np.ones(x.size, bool)
    gain = offset = 0.0
    for _ in range(6):
        mean, level = x[kept].mean(), y[kept].mean()
        spread = ((x[kept] - mean) ** 2).sum()
        gain = ((x[kept] - mean) * (y[kept] - level)).sum() / spread if spread else 1.0
        offset = level - gain * mean
        apart = np.abs(gain * x + offset - y)
        kept = apart <= np.quantile(apart, 0.8)
    return (gain * clean + offset).astype(np.float32)


def _rise(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((values - low) / (high - low), 0, 1).astype(np.float32)


LEAST, MOST = 0.01, 0.90


def coverage(maps: Sequence[np.ndarray], kind: str, *, localised: bool) -> float:
    """Mean share of the pixels that a set of maps calls degraded (above a half).

    Args:
        localised: Whether the kind claims to have a place.

    Raises:
        UsageError: It claims one, and covers less than 1 % or more than 90 % on average: then the
            rule does not fit these pairs.
    """
    share = float(np.mean([(m > 0.5).mean() for m in maps]))
    if localised and not LEAST <= share <= MOST:
        raise UsageError(
            f"{kind} covers {100 * share:.1f} % of these pictures by the rule of what is visible, "
            f"not {100 * LEAST:.0f} to {100 * MOST:.0f} %. The pairs may be misaligned."
        )
    return share
