"""Train a mask network to say where a picture is damaged, by what, and how badly."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import RecipeError, nearest
from ...priors.damage import KINDS
from ..data import DAMAGE, Batch


class Masks(nn.Module):
    """Cross entropy between predicted and true severity, of each kind and pixel.

    Its minimum is the mean of what the severity could be, so that what comes out is calibrated: it
    may be added up to an area, and an action level means the same everywhere. The entropy of the
    truth itself is taken off: 0 is perfect. A kind's weight scales all of its pixels, damaged or
    not, which keeps that; weighting the damaged ones alone would not.

    The blur of a flat wall cannot be seen. There the loss of `blur` is weighted by the gradient
    energy of the clean picture, relative to its mean in the crop, from 0.1 to 4.

    Args:
        weights: Kind -> weight, 1 where nothing is said: what covers a few pixels weighs more.

    Raises:
        RecipeError: A kind that is none, or a negative weight.
    """

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        given = dict(weights or {})
        for kind, weight in given.items():
            if kind not in KINDS or weight < 0:
                raise RecipeError(
                    f"objective.weights: {kind} = {weight} is no weight of a kind of damage."
                    f"{nearest(kind, KINDS)}"
                )
        self.weights = given

    def begin(self, step: int, ema: nn.Module) -> None:
        """Called before each step; nothing here changes with time."""

    def forward(self, batch: Batch, model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
        logits = model(batch.lq, batch.guidance).float()
        kinds, truth = batch.truth[DAMAGE].names, batch.truth[DAMAGE].maps
        each = F.binary_cross_entropy_with_logits(logits, truth, reduction="none") - entropy(truth)
        energy = gradient_energy(batch.gt)
        seen = (energy / energy.mean((1, 2, 3), keepdim=True).clamp_min(1e-8)).clamp(0.1, 4)
        seen = (seen / seen.mean((1, 2, 3), keepdim=True))[:, 0]
        logs = {
            kind: (each[:, i] * (seen if kind == "blur" else 1)).mean((1, 2))
            for i, kind in enumerate(kinds)
        }
        total = sum(self.weights.get(kind, 1.0) * loss for kind, loss in logs.items())
        assert isinstance(total, Tensor)
        return total, {kind: loss.detach() for kind, loss in logs.items()}


def entropy(p: Tensor) -> Tensor:
    """-p log p - (1 - p) log(1 - p), in nats; 0 at 0 and 1."""
    return -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p))


def gradient_energy(rgb: Tensor) -> Tensor:
    """(N, 1, h, w): squared central differences of the mean of the colours, borders repeated."""
    gray = F.pad(rgb.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across = (gray[..., 1:-1, 2:] - gray[..., 1:-1, :-2]) / 2
    down = (gray[..., 2:, 1:-1] - gray[..., :-2, 1:-1]) / 2
    return across.square() + down.square()
