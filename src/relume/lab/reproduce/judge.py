"""Who judges what networks restored that learnt from a perceiver: another one, never itself."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from ...card import find, is_shipped
from ...engine import open_engine
from ...errors import UsageError
from ...guidance import Guidance
from ...priors.quality import JUDGED, TIERS, QualityPrior, judged
from ..objectives.perception import WEIGHTS
from ..recipe import Recipe, restorer_of
from ..weights import load as load_weights
from ..weights import named


class Judge:
    """A quality model that says how good a picture looks; what it has once seen it remembers.

    Args:
        model: A shipped name, or a file: of a quality model, or finished weights of CLIP's prompts.
        name: As tables call it; "" for the name on its card.

    Shape:
        (1, 3, H, W) float32 in [0, 1] -> expected score in [0, 1]: low counts 0, medium 0.5, high
        1, each by its probability, which is the mean over crops.

    Raises:
        UsageError: There is no such model, or it judges nothing.
        ModelError, MissingError: It cannot be opened.
    """

    def __init__(self, model: str | Path, name: str = "") -> None:
        self._file = find(model)
        self.card = self._file.card
        self.name = name or self.card.name
        path = self._file.path
        self._prompts = bool(path and path.suffix == ".safetensors" and self.card.vector == TIERS)
        if not self._prompts and self.card.vector != JUDGED:
            raise UsageError(f"{model} does not say how good a picture is, so it cannot judge.")
        self._scores: dict[str, float] = {}

    def __str__(self) -> str:
        return f"{self.name} ({self.card.digest[:8]})"

    def __call__(self, rgb: np.ndarray) -> float:
        pixels = np.ascontiguousarray(rgb, np.float32)
        # All rows of a table have the same inputs and truths.
        key = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
        if key not in self._scores:
            self._scores[key] = self._look(pixels)
        return self._scores[key]

    def refuse(self, recipe: Recipe) -> None:
        """Whoever served as a loss is never the judge.

        Raises:
            UsageError: The recipe learns from the judge.
        """
        path = named(perceiver_of(recipe))
        if path.is_file() and find(path).card.digest == self.card.digest:
            raise UsageError(
                f"{self} judges, but is the perceiver of the loss in {recipe.name}: it would judge "
                "its own pupil. Name a judge of another seed and other photographs."
            )

    @cached_property
    def _look(self) -> Callable[[np.ndarray], float]:
        path = self._file.path
        if path is not None and self._prompts:
            return _by_network(path)
        if path is not None and path.suffix == ".safetensors":
            prior = QualityPrior(path)
        else:
            prior = QualityPrior(open_engine(self._file, "onnx", "cpu", threads=1))
        return lambda rgb: judged(prior(rgb)).score


def absent(model: str) -> str:
    """Why a named judge is not here, in words, or ""."""
    if is_shipped(model) or Path(model).is_file():
        return ""
    return f"{model} is not in this installation"


def perceiver_of(recipe: Recipe) -> str:
    """The quality perceiver that a recipe's losses ask, as it names it; "" for none."""
    return str((recipe.objective.model_extra or {}).get("perceiver", ""))


def learns_tiers(recipe: Recipe) -> bool:
    """Whether a recipe's objective has the tier loss."""
    said = recipe.objective.model_extra or {}
    return bool(perceiver_of(recipe)) and bool(said.get("tier", WEIGHTS["tier"]))


def crops(rgb: np.ndarray, side: int) -> np.ndarray:
    """Crops that cover a picture, evenly far from each other; where it is smaller, its reflection.

    Shape:
        (1, 3, H, W) -> (N, 3, side, side).
    """
    down, right = (max(0, side - n) for n in rgb.shape[-2:])
    rgb = np.pad(rgb, ((0, 0), (0, 0), (0, down), (0, right)), mode="symmetric")
    tops, lefts = (
        np.linspace(0, n - side, math.ceil(n / side)).round().astype(int) for n in rgb.shape[-2:]
    )
    return np.concatenate([rgb[..., t : t + side, u : u + side] for t in tops for u in lefts])


def _by_network(path: Path) -> Callable[[np.ndarray], float]:
    """A perceiver that tells nothing but tiers, on crops as large as it learnt on."""
    stored = load_weights(path)
    side = int(stored.recipe["schedule"]["crop"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = restorer_of(stored).eval().to(device)

    @torch.inference_mode()
    def look(rgb: np.ndarray) -> float:
        pictures = torch.from_numpy(crops(rgb, side)).to(device)
        p = network(pictures, Guidance()).double().mean(0).cpu().numpy()
        return float(p / p.sum() @ np.linspace(0, 1, len(TIERS)))

    return look
