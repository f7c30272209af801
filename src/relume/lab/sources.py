"""What a training run asks its priors, of which picture, and what stands in for an answer."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..engine import Engine
from ..guidance import Guidance, Guide, Kind
from ..priors import Prior
from ..priors.choice import priors_of
from ..priors.partitions import LAYOUTS
from ..restoration import run_model
from .controls import CONTROLS
from .folds import fold_of


@dataclass(frozen=True)
class Source:
    """One prior as a training run feeds it.

    Args:
        prior: What looks at the whole damaged picture.
        control: What stands in for what it says: a row of CONTROLS, or `none`.
        dropout: Share of the samples that are told nothing, so that one set of weights runs with
            the prior and without.
        folds: Where given, who looks at the training photographs of each fold: one that was trained
            without them (`folds.fold_of`). `prior` looks at all others.
    """

    prior: Prior
    control: str = "none"
    dropout: float = 0.0
    folds: tuple[Prior, ...] = ()

    def looking_at(self, photograph: str) -> Prior:
        """Who looks at a training photograph, by its file's name."""
        return self.folds[fold_of(photograph, len(self.folds))] if self.folds else self.prior


def controlled(
    known: Guidance,
    sources: Mapping[str, Source],
    truth: Guidance,
    donor: Guidance,
    rng: torch.Generator,
) -> Guidance:
    """What a network is told of one picture: each prior's own words, or its control's."""
    for name, source in sources.items():
        if source.control != "none":
            one = CONTROLS[source.control](Guidance({name: known[name]}), truth, donor, rng)
            known = known.with_guide(name, one[name])
    return known


class AfterModel:
    """A prior that looks at what a model makes of the picture: SAM-Deblur's pre-deblurring.

    Args:
        prior: What looks.
        engine: The model that runs first, with its own priors.
    """

    def __init__(self, prior: Prior, engine: Engine) -> None:
        self.prior, self.engine = prior, engine
        self.spec: Kind = prior.spec
        self.max_side = prior.max_side
        self.own = priors_of(engine.card, "auto", masks=engine.masks)

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the answer, as JSON."""
        engine = [self.engine.name, self.engine.precision, self.engine.card.digest]
        return {"after": engine, "prior": self.prior.identity}

    def __call__(self, rgb: np.ndarray) -> Guide:
        restored, _ = run_model(rgb, self.engine, self.own)
        return self.prior(np.clip(restored, 0, 1))


class LaidOut:
    """The regions of a prior moved elsewhere: their areas are kept, where they lay is not.

    Args:
        prior: Of regions.
        layout: Row of `priors.partitions.LAYOUTS`.
    """

    spec: Kind = "regions"

    def __init__(self, prior: Prior, layout: str) -> None:
        self.prior, self.layout = prior, layout
        self.max_side = prior.max_side

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the answer, as JSON."""
        return {"layout": self.layout, "areas_of": self.prior.identity}

    def __call__(self, rgb: np.ndarray) -> Guide:
        found = self.prior(rgb)
        labels = LAYOUTS[self.layout](found.array[0], np.random.default_rng(0))
        return found.with_array(labels[None])


class InTurn:
    """A prior that threads may share: they ask it one after the other."""

    def __init__(self, prior: Prior) -> None:
        self.prior = prior
        self.spec: Kind = prior.spec
        self.max_side = prior.max_side
        self._turn = threading.Lock()

    @property
    def identity(self) -> dict[str, Any]:
        """The prior's own."""
        return self.prior.identity

    def __call__(self, rgb: np.ndarray) -> Guide:
        with self._turn:
            return self.prior(rgb)


def told_by_gt(gt: np.ndarray, sources: Mapping[str, Source], size: tuple[int, int]) -> Guidance:
    """What stands for the truth under the control `oracle` where none is known: what the prior
    says of the good picture itself. It leaks what is to be restored.

    Args:
        gt: (1, 3, H, W) in [0, 1].
        size: (height, width) of the damaged picture.
    """
    asked = {name: source for name, source in sources.items() if source.control == "oracle"}
    return Guidance({name: s.prior(gt) for name, s in asked.items()}).resize(*size)
