"""How good a picture looks, and how hard it is to mend: tiers and difficulty all over it."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..card import QUALITY, is_shipped
from ..engine import Engine, open_engine
from ..errors import UsageError
from ..guidance import Guidance, Guide, Kind

TIERS = ("low", "medium", "high")
"""Perceive-IR's (arXiv 2408.15994): damaged, restored not quite, and as a good camera wrote it."""

JUDGED = (*TIERS, "difficulty")
"""Columns of what a quality model says of a crop: three probabilities, and the difficulty."""

CROP = 128
"""Side of a crop, in pixels of the picture: nothing is scaled, or noise would be lost."""

MOST = 64
"""Crops of one picture at most, so that twelve megapixels cost what one does."""

STEP = 32
"""What the distance between crops is a multiple of."""

EASY, HARD = 45.0, 15.0
"""PSNR in dB, of what the default restorer makes of a crop, at difficulty 0 and at 1."""


def shipped(engine: str = "onnx", device: str = "auto") -> QualityPrior | None:
    """The quality model that ships; None where an installation has none.

    Args:
        engine: As `open_engine` takes it; "auto" is ONNX Runtime, which opens it in a tenth of the
            time that OpenVINO takes to compile it.
        device: The same.
    """
    if not is_shipped(QUALITY):
        return None
    return QualityPrior(open_engine(QUALITY, "onnx" if engine == "auto" else engine, device))


def difficulty_of(mse: Any) -> Any:
    """Difficulty in [0, 1] of the mean squared error that a restorer leaves, on the [0, 1] scale.

    Affine in its logarithm: 0 at 45 dB of PSNR, where nothing is left to fear, to 1 at 15 dB, where
    nothing can be hoped for; 0.1 is 3 dB.
    """
    psnr = -10 * np.log10(np.maximum(mse, 1e-12))
    return np.clip((EASY - psnr) / (EASY - HARD), 0, 1)


def error_of(difficulty: Any) -> Any:
    """The mean squared error that a difficulty stands for, the inverse of `difficulty_of`."""
    return 10 ** (-(EASY - (EASY - HARD) * np.asarray(difficulty)) / 10)


@dataclass(frozen=True)
class Quality:
    """What a whole picture is judged to be.

    Attributes:
        tier: low, medium or high: the most probable.
        margin: By how much it is more probable than the second, in [0, 1]; 0 is a tie.
        difficulty: As `difficulty_of` has it, of the mean over the crops of the errors expected.
        score: low counts 0, medium 0.5, high 1, each by its probability.
    """

    tier: str
    margin: float
    difficulty: float
    score: float


def said(tier: str, margin: float, difficulty: float | None = None) -> str:
    """A tier with its margin, and a difficulty where there is something to restore, in words."""
    sure = "clearly" if margin >= 0.6 else "rather" if margin >= 0.2 else "narrowly"
    words = f"{sure} of {tier} quality (margin {margin:.2f})"
    if difficulty is None:
        return words
    hard = "easy" if difficulty < 0.35 else "hard" if difficulty > 0.6 else "not easy"
    return f"{words}, {hard} to restore (difficulty {difficulty:.2f})"


def judged(guide: Guide) -> Quality:
    """What crops say of the whole picture: the mean of their probabilities.

    Args:
        guide: Of a `QualityPrior`, of one picture.
    """
    rows = guide.array[0].reshape(len(JUDGED), -1).astype(np.float64)
    # Not of their logits: one crop that is sure beyond reason would outvote a hundred.
    p = rows[: len(TIERS)].mean(1)
    p /= p.sum()
    second, first = np.sort(p)[-2:]
    return Quality(
        TIERS[int(p.argmax())],
        float(first - second),
        float(difficulty_of(error_of(rows[-1]).mean())),
        float(p @ np.linspace(0, 1, len(TIERS))),
    )


class QualityPrior:
    """What a quality model says of crops on a fixed grid, each at the picture's own resolution.

    The grid's distance is a crop's side where that makes `MOST` crops at most: then the whole
    picture is seen. Else it is larger, and each crop lies in the middle of its cell. Of a picture
    smaller than a crop the rest is its reflection.

    Args:
        model: A quality model: its name, its file, or an engine that runs it.

    Shape:
        (1, 3, H, W) float32 in [0, 1] -> maps (1, 4, h, w) in [0, 1], named `JUDGED`, with the
        grid's distance as stride.

    Raises:
        UsageError: The model judges nothing, or other things, or reads what is not known here.
        ModelError, MissingError: It cannot be opened.
    """

    spec: Kind = "maps"
    max_side: int = 0  # it looks at the picture as it is

    def __init__(self, model: str | Path | Engine = QUALITY) -> None:
        if isinstance(model, (str, Path)):
            kind = "auto" if str(model).endswith(".safetensors") else "onnx"
            model = open_engine(model, kind)
        self.engine = model
        card = self.engine.card
        if card.vector != JUDGED:
            raise UsageError(f"{card.name} does not say how good a picture is. Give {QUALITY}.")
        if card.reads or CROP % card.multiple_of:
            raise UsageError(f"{card.name} does not look at crops of {CROP} pixels alone.")
        self._turn = threading.Lock()

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the answer, as JSON."""
        engine = self.engine
        return {
            "prior": "quality",
            "model": engine.card.digest,
            "engine": [engine.name, engine.precision],
        }

    def __call__(self, rgb: np.ndarray) -> Guide:
        height, width = rgb.shape[-2:]
        stride = distance(height, width)
        rows, columns = places(height, stride), places(width, stride)
        maps = np.empty((1, len(JUDGED), len(rows), len(columns)), np.float32)
        with self._turn:
            for i, top in enumerate(rows):
                for j, left in enumerate(columns):
                    crop = _filled(rgb[..., top : top + CROP, left : left + CROP])
                    maps[..., i, j] = self.engine(crop, Guidance())
        card = self.engine.card
        return Guide(
            maps=maps,
            names=JUDGED,
            units=("probability",) * len(TIERS) + ("difficulty",),
            stride=stride,
            provenance={"prior": "quality", "model": card.name, "digest": card.digest},
        )


def distance(height: int, width: int) -> int:
    """Pixels from crop to crop, the least at which there are `MOST` of them at most."""
    stride = CROP
    while math.ceil(height / stride) * math.ceil(width / stride) > MOST:
        stride += STEP
    return stride


def places(side: int, stride: int) -> list[int]:
    """Where crops begin along one axis: one in the middle of each cell, within the picture."""
    middles = range((stride - CROP) // 2, side + (stride - CROP) // 2, stride)
    return [max(0, min(at, side - CROP)) for at in middles]


def _filled(crop: np.ndarray) -> np.ndarray:
    """As large as a crop, by reflection."""
    down, right = (CROP - side for side in crop.shape[-2:])
    return np.pad(crop, ((0, 0), (0, 0), (0, down), (0, right)), mode="symmetric")
