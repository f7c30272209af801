"""Controls: what a prior could say without knowing the picture, and what it could say at best.

Each is `(guidance, truth, donor, rng) -> guidance`. A probe swaps them in under a trained model and
shows that the prior is *used*; an arm trained under one shows whether the prior *helps*.
"""

from collections.abc import Callable

import numpy as np
import torch

from ..errors import GuidanceError
from ..guidance import Guidance, Guide

Control = Callable[[Guidance, Guidance, Guidance, torch.Generator], Guidance]


def null(guidance: Guidance, truth: Guidance, donor: Guidance, rng: torch.Generator) -> Guidance:
    """A prior that says nothing: zeros."""
    return guidance.null()


def constant(
    guidance: Guidance, truth: Guidance, donor: Guidance, rng: torch.Generator
) -> Guidance:
    """A prior that says the same of every place: maps and vectors at their own mean, one region.

    A thumbnail at its own mean would still tell how dark the picture is: it is mid-grey.
    """

    def flat(guide: Guide) -> Guide:
        array = guide.array
        if guide.whole:
            return guide.map(lambda a: np.full_like(a, 0.5))
        if guide.kind == "maps":
            return guide.map(
                lambda a: np.broadcast_to(a.mean((-2, -1), keepdims=True), a.shape).copy()
            )
        if guide.kind == "regions":
            return guide.map(np.ones_like)
        if guide.kind == "vector":
            return guide.map(lambda a: np.full_like(a, a.mean()))
        return guide.with_array(np.zeros_like(array))

    return guidance.map(flat)


def shuffled(
    guidance: Guidance, truth: Guidance, donor: Guidance, rng: torch.Generator
) -> Guidance:
    """What the prior said of another picture, fitted to this one's grid. The caller deranges."""

    def other(name: str) -> Guide:
        mine, theirs = guidance[name], donor[name]
        if not mine.spatial or mine.whole:
            return theirs
        return theirs.resize(*mine.array.shape[-2:])

    return Guidance({name: other(name) for name in guidance})


def oracle(guidance: Guidance, truth: Guidance, donor: Guidance, rng: torch.Generator) -> Guidance:
    """The physical truth of the damage, where there is one under a prior's name.

    Raises:
        GuidanceError: The truth holds nothing that this guidance reads.
    """
    known = {name: truth[name] for name in guidance if name in truth}
    if not known:
        raise GuidanceError(
            f"No physical truth stands behind {', '.join(guidance) or 'no prior'}; the control "
            "'oracle' needs a prior of damage maps or regions."
        )
    return Guidance({**guidance, **known})


def oracle_residual(
    guidance: Guidance, truth: Guidance, donor: Guidance, rng: torch.Generator
) -> Guidance:
    """What the difference to the good picture shows of the damage (`truth.visible`), where the
    truth holds it as `NAME.residual`: it leaks what is to be restored.

    Raises:
        GuidanceError: As `oracle`.
    """
    shown = {name: truth[f"{name}.residual"] for name in guidance if f"{name}.residual" in truth}
    return oracle(guidance, Guidance(shown), donor, rng)


TOLD_THE_TRUTH = {"oracle", "oracle_residual"}
"""The controls that look at the truth."""

CONTROLS: dict[str, Control] = {
    "null": null,
    "constant": constant,
    "shuffled": shuffled,
    "oracle": oracle,
    "oracle_residual": oracle_residual,
}
