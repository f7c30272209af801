"""What is wrong with a picture, where, how badly, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .card import MASKS, QUALITY, Sureness
from .guidance import Guide
from .image import Picture, read
from .priors.damage import ACTION, UNKNOWN, DamagePrior
from .priors.quality import Quality, QualityPrior, shipped
from .priors.quality import judged as quality_of

BLOCK = 64
"""Side of the squares, in pixels, of which the worst one is evidence: a scratch is small."""


NOTHING = -6.0
"""Decimal logarithm of so little evidence that there is none."""


@dataclass(frozen=True)
class Finding:
    """One kind of damage in one picture.

    Attributes:
        kind: Its name.
        severity: Mean over what lies above the action level, in [0, 1].
        area: Share of the picture above the action level, in [0, 1].
        where: In words.
        confidence: How often such a finding was right on photographs that are known, in [0, 1]; or
            None, where the mask network was never held against any.
    """

    kind: str
    severity: float
    area: float
    where: str
    confidence: float | None

    def to_json(self) -> dict[str, Any]:
        """As the contract has it, numbers rounded to what they are good for."""
        sure = None if self.confidence is None else round(self.confidence, 3)
        return {
            "kind": self.kind,
            "severity": round(self.severity, 3),
            "area": round(self.area, 5),
            "where": self.where,
            "confidence": sure,
        }

    def __str__(self) -> str:
        share = f"{100 * self.area:.0f}" if self.area >= 0.1 else f"{100 * self.area:.2g}"
        sure = "" if self.confidence is None else f", {100 * self.confidence:.0f} % sure"
        return f"{self.kind} {self.severity:.2f} on {share} % ({self.where}{sure})"


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What a mask network sees in one picture, and how good a quality model finds it.

    Attributes:
        damage: What is wrong, the worst (severity times area) first; nothing of a clean picture.
        maps: Severity of every kind the network knows, (1, K, H, W) in [0, 1].
        levels: Kind -> its action level.
        tier: low, medium or high; None, as the next two, where no quality model looked.
        tier_margin: By how much it is more probable than the second, in [0, 1].
        difficulty: What the default restorer is expected to leave wrong, from 0, nothing, to 1.
    """

    damage: tuple[Finding, ...]
    maps: Guide
    levels: Mapping[str, float]
    tier: str | None = None
    tier_margin: float | None = None
    difficulty: float | None = None

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.damage

    def map_of(self, kind: str) -> np.ndarray:
        """(H, W) severity of one kind."""
        return self.maps.array[0, self.maps.names.index(kind)]

    def to_json(self) -> dict[str, Any]:
        """The contract's fields but `input`, numbers rounded to what they are good for."""
        rounded = [None if n is None else round(n, 3) for n in (self.tier_margin, self.difficulty)]
        return {
            "clean": self.clean,
            "tier": self.tier,
            "tier_margin": rounded[0],
            "difficulty": rounded[1],
            "damage": [found.to_json() for found in self.damage],
        }


def diagnose(
    picture: Picture | str | Path | np.ndarray,
    prior: DamagePrior | str | Path = MASKS,
    quality: QualityPrior | str | Path | None = QUALITY,
) -> Diagnosis:
    """Say what is wrong with one picture, and how good it looks.

    Args:
        picture: A Picture, the path of an image file, or (1, 3, H, W) float RGB in [0, 1].
        prior: A mask network, by name or file, or opened (open it once for many pictures).
        quality: A quality model in the same way; None asks none, and the default is asked where it
            ships.

    Raises:
        PictureError: The file cannot be read.
        UsageError, ModelError, MissingError: A model is none of its kind, or cannot be opened.
    """
    looks = prior if isinstance(prior, DamagePrior) else DamagePrior(prior)
    if isinstance(picture, (str, Path)):
        picture = read(Path(picture))
    if isinstance(picture, Picture):
        # The colours that alpha hides are nobody's damage.
        picture = picture.rgb(fill_hidden=picture.hidden is not None)
    found = judged(looks(picture), looks.engine.card.sureness)
    if isinstance(quality, (str, Path)):
        quality = shipped() if quality == QUALITY else QualityPrior(quality)
    return found if quality is None else with_quality(found, quality_of(quality(picture)))


def with_quality(found: Diagnosis, quality: Quality) -> Diagnosis:
    """A diagnosis with what a quality model says of the same picture."""
    return replace(
        found, tier=quality.tier, tier_margin=quality.margin, difficulty=quality.difficulty
    )


def judged(maps: Guide, sureness: Mapping[str, Sureness]) -> Diagnosis:
    """What is worth telling of severity maps.

    Args:
        maps: (1, K, H, W) in [0, 1], named by kind.
        sureness: Of the mask network's card. A kind that it does not name is reported where a
            two-hundredth of the picture lies above its action level.
    """
    found: list[Finding] = []
    levels: dict[str, float] = {}
    for kind, severity in zip(maps.names, maps.array[0], strict=True):
        known = sureness.get(kind)
        levels[kind] = known.level if known else ACTION.get(kind, UNKNOWN)
        seen = Evidence.of(severity, levels[kind])
        sure = seen.confidence(known) if known else None
        enough = seen.area >= 0.005 if sure is None or known is None else sure >= known.told
        if seen.area and enough:
            found.append(Finding(kind, seen.mean / seen.area, seen.area, seen.where, sure))
    found.sort(key=lambda one: -one.severity * one.area)
    return Diagnosis(tuple(found), maps, levels)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What one severity map holds above its action level.

    Attributes:
        mean: Of the severity there, over the whole picture (0 elsewhere).
        worst: The same over the worst square of BLOCK pixels.
        area: Share of the picture.
        squares: (h, w) that share, of each square.
    """

    mean: float
    worst: float
    area: float
    squares: np.ndarray

    @classmethod
    def of(cls, severity: np.ndarray, level: float) -> Evidence:
        """Of a map (H, W)."""
        height, width = severity.shape
        above = severity >= level
        rows, columns = (np.arange(0, side, BLOCK) for side in severity.shape)
        pixels = np.outer(np.diff(rows, append=height), np.diff(columns, append=width))
        count = _summed(above, rows, columns)
        total = _summed(np.where(above, severity, np.float32(0)), rows, columns)
        # A sliver at the edge is no square: a few pixels of it are not the worst of a picture.
        worst = (total / np.maximum(pixels, BLOCK * BLOCK / 2)).max()
        return cls(
            float(total.sum() / severity.size),
            float(worst),
            float(count.sum() / severity.size),
            count / pixels,
        )

    @property
    def where(self) -> str:
        """In words."""
        return place(self.squares)

    @property
    def logs(self) -> tuple[float, float]:
        """Decimal logarithms of mean and worst square, what confidence is read from; NOTHING at
        least."""
        mean, worst = (max(NOTHING, math.log10(v + 1e-12)) for v in (self.mean, self.worst))
        return mean, worst

    def confidence(self, known: Sureness) -> float:
        """How often as much was damage, in [0, 1]."""
        return known.confidence(*self.logs)


def _summed(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Sums over blocks that begin at these rows and columns."""
    across = np.add.reduceat(values, columns, axis=1, dtype=np.float32)
    return np.add.reduceat(across, rows, axis=0, dtype=np.float64)


NAMES = (
    ("upper left", "top", "upper right"),
    ("left", "centre", "right"),
    ("lower left", "bottom", "lower right"),
)


def place(share: np.ndarray) -> str:
    """Where most of it lies: "everywhere", one of nine places, a half, a band, or "scattered".

    Args:
        share: (h, w) in [0, 1], how much of each part of the picture is damaged.

    Returns:
        A ninth that holds three fifths of it; else "along the edges" where the middle is free; else
        "everywhere" where three fifths of the picture are damaged; else a half, or a middle band,
        that holds four fifths; else "everywhere" where it lies on every ninth, or "scattered".
    """
    ninths = _thirds(_thirds(share, 0), 1)  # (3, 3), what lies in each
    total = ninths.sum()
    if not total:
        return "nowhere"
    ninths = ninths / total
    area = share.mean()
    at = np.unravel_index(np.argmax(ninths), (3, 3))
    if ninths[at] >= 0.6:
        return NAMES[at[0]][at[1]]
    if ninths[1, 1] <= 0.02 and min(ninths.sum(0).min(), ninths.sum(1).min()) >= 0.1:
        return "along the edges"
    if area >= 0.6:
        return "everywhere"
    halves = {
        "upper half": _half(share.sum(1)),
        "lower half": _half(share.sum(1)[::-1]),
        "left half": _half(share.sum(0)),
        "right half": _half(share.sum(0)[::-1]),
    }
    name = max(halves, key=lambda half: halves[half])
    if halves[name] >= 0.8:
        return name
    if ninths[1].sum() >= 0.8:
        return "across the middle"
    if ninths[:, 1].sum() >= 0.8:
        return "down the middle"
    return "everywhere" if ninths.min() >= 0.05 else "scattered"


def _thirds(values: np.ndarray, axis: int) -> np.ndarray:
    """Sums over the thirds of an axis; what lies between two of them is shared."""
    n = values.shape[axis]
    edges = np.clip(np.arange(n + 1)[:, None] / n * 3 - np.arange(3), 0, 1)
    return np.moveaxis(np.tensordot(np.diff(edges, axis=0).T * n / 3, values, (1, axis)), 0, axis)


def _half(values: np.ndarray) -> float:
    """What share of it lies in the first half."""
    whole, rest = divmod(len(values), 2)
    first = values[:whole].sum() + (values[whole] / 2 if rest else 0)
    return float(first / values.sum())


# Drawn over the photograph.

INKS: Mapping[str, tuple[int, int, int]] = {
    "noise": (179, 157, 255),
    "compression": (255, 138, 80),
    "blur": (120, 170, 255),
    "rain": (0, 214, 255),
    "raindrop": (0, 255, 176),
    "haze": (255, 255, 160),
    "lowlight": (255, 120, 220),
    "scratch": (255, 64, 64),
    "dust": (255, 200, 0),
    "fade": (196, 255, 64),
}


def overlay(rgb: np.ndarray, found: Diagnosis, kinds: Sequence[str]) -> np.ndarray:
    """Damage in colours over a darker gray of the photograph: (1, 3, H, W).

    Args:
        rgb: (1, 3, h, w) in [0, 1]; smaller than the maps, these are shown by their largest value,
            so that what is thin stays visible.
        kinds: Which; where several meet, that which is furthest above its action level.
    """
    luma = np.tensordot(np.array([0.299, 0.587, 0.114], np.float32), rgb[0], 1)
    height, width = luma.shape
    strength = np.zeros_like(luma)
    ink = np.zeros((3, height, width), np.float32)
    for kind in kinds:
        severity = _largest(found.map_of(kind), height, width)
        share = np.clip(severity / found.levels[kind] - 0.5, 0, 1)
        ahead = share * (1 + severity) > strength
        colour = np.array(INKS.get(kind, (255, 255, 255)), np.float32)[:, None, None] / 255
        ink = np.where(ahead, colour * (0.45 + 0.55 * severity), ink)
        strength = np.where(ahead, share * (1 + severity), strength)
    alpha = 0.8 * np.clip(strength, 0, 1)
    return np.clip(0.75 * luma * (1 - alpha) + ink * alpha, 0, 1).astype(np.float32)[None]


def _largest(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width) largest values of what each pixel stands for."""
    if values.shape == (height, width):
        return values
    rows = np.arange(height) * values.shape[0] // height
    columns = np.arange(width) * values.shape[1] // width
    return np.maximum.reduceat(np.maximum.reduceat(values, columns, 1), rows, 0)
