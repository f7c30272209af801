"""How good a picture looks: tiers of damaged, poorly restored and clean crops, and difficulty."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import RecipeError
from ...guidance import Guidance
from ...priors.quality import TIERS
from ..data import Batch
from ..triplets import LEFT, MEDIUM, TASK
from .masks import entropy

MARGIN = 0.25


class Tiers(nn.Module):
    """Cross entropy over the tiers of triplets, as Perceive-IR's prompts are trained (Zhang et al.,
    arXiv 2408.15994, stage 1), and of the difficulty.

    All damages of a batch weigh alike, however often each was drawn. With the scores s = 0, 0.5, 1
    of the tiers and a crop's expected score E = sum s p, `ordinal` adds what the order of a triplet
    lacks: max(0, 0.25 - (E(medium) - E(low))) and the same from medium to high.

    Difficulty is what it is told where it was measured; its loss is the cross entropy to it, less
    the entropy of the truth itself, whose minimum is the mean of what the difficulty could be.

    Args:
        ordinal: Weight of the order.
        difficulty: Weight of the difficulty.

    Raises:
        RecipeError: A negative weight.
    """

    def __init__(self, ordinal: float = 0.0, difficulty: float = 1.0) -> None:
        super().__init__()
        if min(ordinal, difficulty) < 0:
            raise RecipeError(
                f"objective.ordinal and difficulty must be 0 or more, got {ordinal}, {difficulty}."
            )
        self.ordinal, self.difficulty = ordinal, difficulty

    def begin(self, step: int, ema: nn.Module) -> None:
        """Called before each step; nothing here changes with time."""

    def forward(self, batch: Batch, model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
        n, k = batch.lq.shape[0], len(TIERS)
        crops = torch.cat([batch.lq, batch.truth[MEDIUM].maps, batch.gt])
        said = model(crops, Guidance()).float()
        logits, feared = said[:, :k], said[:, k].view(k, n)
        tiers = torch.arange(k, device=said.device).repeat_interleave(n)
        wrong = F.cross_entropy(logits, tiers, reduction="none").view(k, n).mean(0)
        scores = (logits.softmax(1) @ torch.linspace(0, 1, k, device=said.device)).view(k, n)
        unordered = (MARGIN - scores.diff(dim=0)).clamp_min(0).sum(0)
        told = batch.truth[LEFT].vector.T
        known = told.isfinite()
        told = torch.where(known, told, 0.0)
        missed = F.binary_cross_entropy_with_logits(feared, told, reduction="none") - entropy(told)
        # Over the batch, of those that were measured, whatever their number.
        missed = (missed * known).sum(0) * n / known.sum().clamp_min(1)
        weight = balance(batch.truth[TASK].vector)
        loss = weight * (wrong + self.ordinal * unordered) + self.difficulty * missed
        right = (logits.argmax(1) == tiers).float().view(k, n)
        logs = {
            "tiers": wrong,
            "difficulty": missed,
            "right": right.mean(0),
            "ordered": (scores.diff(dim=0) > 0).all(0).float(),
        }
        return loss, {name: value.detach() for name, value in logs.items()}


def balance(tasks: Tensor) -> Tensor:
    """Weights (N,) of mean 1 under which all tasks of a batch weigh alike; tasks (N, T), one 1."""
    share = tasks.mean(0)
    return (tasks / (share.clamp_min(1e-9) * (share > 0).sum())).sum(1)
