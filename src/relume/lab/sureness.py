"""How sure a mask network may be: its evidence on photographs whose damage is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..card import Sureness
from ..diagnosis import NOTHING, Evidence
from ..errors import UsageError
from ..priors.damage import ACTION, UNKNOWN, DamagePrior
from .data import Damage
from .degrade import generator, parse
from .photographs import Photograph, load_photographs, part_of
from .recipe import Recipe
from .truth import severities

WINDOWS = (0.4, 1.0)
LEAST = 256
MARGIN = 0.01  # of confidence, above that of undamaged photographs
USUAL = 0.95  # share of their parts in other lights that it is above too: one may look hazy, and be


def measure(
    prior: DamagePrior,
    folder: Path,
    *,
    count: int = 400,
    seed: int = 12,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Sureness]:
    """Fit, for each kind, the odds that it is there to what the network's map holds.

    Parts of photographs are damaged as the network's own recipe damages them; a kind is there where
    its severity reaches the action level anywhere. Maps that stay below it everywhere do not count:
    of them nothing is told, whatever the odds. A kind is told from a confidence of 0.5, or above
    what it comes to on any of the photographs as they are, and on nearly all undamaged parts.
    Platt's logistic fit (Probabilistic outputs for support vector machines, 1999), with his
    targets, so that few examples make no certainty.

    Args:
        prior: The mask network, whose card has its recipe.
        folder: Photographs that it was not trained on.
        count: Parts, as many of each photograph as of any other.

    Raises:
        UsageError: No photographs, or parts of them in which a kind is never there, or always.
    """
    recipe = Recipe.model_validate(prior.engine.card.recipe)
    drawn = recipe.data
    damage = Damage(
        drawn.damage, drawn.counts, soft=drawn.soft, softest=drawn.softest, lens=drawn.lens
    )
    photographs = load_photographs(folder, factors=recipe.data.factors, sizes=2, seed=seed)
    kinds = prior.engine.card.emits
    levels = [ACTION.get(kind, UNKNOWN) for kind in kinds]
    logs = np.zeros((len(kinds), count, 2))
    there = np.zeros((len(kinds), count), bool)
    whole = np.zeros(count, bool)  # undamaged
    for i in range(count):
        rng = np.random.default_rng((seed, i))
        sizes = photographs[i % len(photographs)]
        photo = part_of(sizes[int(rng.integers(len(sizes)))], rng, WINDOWS, LEAST)
        size = photo.pixels.shape[-2:]
        rgb, did = photo.pixels * np.float32(1 / 255), None
        spec = damage.draw(rng)
        whole[i] = spec in ("", damage.softening(()))
        if spec:
            chain = parse(spec)
            sampled = chain.sample(generator(seed, i), size, photo.regions)
            done = chain.apply(photo.pixels, sampled, truth=True, finish="uint8")
            rgb, did = done.lq, severities(done.truth, size, kinds).array[0]
        for k, severity in enumerate(prior(rgb[None]).array[0]):
            logs[k, i] = Evidence.of(severity, levels[k]).logs
            there[k, i] = did is not None and bool((did[k] >= levels[k]).any())
        if progress:
            progress(i + 1, count)
    counts = logs[:, :, 0] > NOTHING
    sure = [
        Sureness(levels[k], *fitted(kind, logs[k, counts[k]], there[k, counts[k]]))
        for k, kind in enumerate(kinds)
    ]
    clean = np.array([_evidence(prior, sizes[0], levels) for sizes in photographs])
    return {
        kind: replace(sure[k], told=_told(sure[k], clean[:, k], logs[k, whole]))
        for k, kind in enumerate(kinds)
    }


def _told(sure: Sureness, photographs: np.ndarray, parts: np.ndarray) -> float:
    """The confidence from which a kind is told, from the evidence in what is undamaged: (n, 2) of
    photographs as they are, and of parts of them in other lights."""
    of = [np.array([sure.confidence(*one) for one in some]) for some in (photographs, parts)]
    usual = float(np.quantile(of[1], USUAL)) if len(parts) else 0.0
    return round(max(0.5, float(of[0].max()) + MARGIN, usual + MARGIN), 3)


def _evidence(prior: DamagePrior, photo: Photograph, levels: Sequence[float]) -> list[Any]:
    """Of each kind, in a photograph as it is: `Evidence.logs`."""
    maps = prior(photo.pixels[None] * np.float32(1 / 255)).array[0]
    return [Evidence.of(m, level).logs for m, level in zip(maps, levels, strict=True)]


def fitted(kind: str, logs: np.ndarray, there: np.ndarray) -> tuple[float, float, float]:
    """(offset, slope of each log): the logistic fit, in which more evidence never means less.

    Args:
        logs: (n, 2) of `Evidence.logs`.
        there: (n,) bool.

    Raises:
        UsageError: All of them, or none, are there.
    """
    yes, no = int(there.sum()), int((~there).sum())
    if not (yes and no):
        raise UsageError(f"{kind} is in {yes} of {yes + no} pictures: give more photographs.")
    target = np.where(there, (yes + 1) / (yes + 2), 1 / (no + 2))
    for used in ((0, 1), (0,), (1,)):
        x = np.column_stack([np.ones(len(logs)), logs[:, used]])
        weights = _newton(x, target)
        if (weights[1:] >= 0).all():
            slopes = np.zeros(2)
            slopes[list(used)] = weights[1:]
            offset, mean, worst = (round(float(w), 4) for w in (weights[0], *slopes))
            return offset, mean, worst
    raise UsageError(f"The map of {kind} says less where there is more: it learnt nothing.")


def _newton(x: np.ndarray, target: np.ndarray, ridge: float = 1e-2) -> np.ndarray:
    """Weights of the logistic fit of (n, d) to targets in [0, 1]."""
    weights = np.zeros(x.shape[1])
    keep = ridge * np.diag([0.0] + [1.0] * (x.shape[1] - 1))
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -60, 60)))
        slope = x.T @ (p - target) + keep @ weights
        curve = (x * (p * (1 - p) + 1e-9)[:, None]).T @ x + keep
        step = np.linalg.solve(curve, slope)
        weights = weights - step * min(1.0, 5 / (np.abs(step).max() + 1e-12))
        if np.abs(step).max() < 1e-8:
            break
    return weights
