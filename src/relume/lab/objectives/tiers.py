"""How good a picture looks: tiers of damaged, poorly restored and clean crops, and difficulty."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import RecipeError
from ...guidance import Guidance
from ...priors.damage import KINDS
from ...priors.quality import TIERS
from ..data import DAMAGE, FOLD, Asks, Batch
from ..triplets import LEFT, MEDIUM, TASK, TOLD
from .masks import entropy

MARGIN = 0.25


class Tiers(nn.Module):
    """Cross entropy over the tiers of triplets, as Perceive-IR's prompts are trained (Zhang et al.,
    arXiv 2408.15994, stage 1), and of the difficulty.

    All damages of a batch weigh alike, however often each was drawn. With the scores s = 0, 0.5, 1
    of the tiers and a crop's expected score E = sum s p, `ordinal` adds what the order of a triplet
    lacks: max(0, 0.25 - (E(medium) - E(low))) and the same from medium to high. Where nobody can
    tell the tiers of a triplet (`triplets.TOLD`) their order is all that is learnt of them.

    Difficulty is what it is told where it was measured; its loss is the cross entropy to it, less
    the entropy of the truth itself, whose minimum is the mean of what the difficulty could be.

    With `medium` the crops of medium quality are made here, by frozen restorers: of pairs whose
    samples hold none. Samples are asked for the severity of their damage, whose worst kind is the
    task, and for the fold: a restorer looks at what it was trained without. A crop that shows
    nothing of its damage is of no tier, and left out.

    Args:
        ordinal: Weight of the order.
        difficulty: Weight of the difficulty; 0 where the network gives none.
        medium: One restorer, or one for each fold of the photographs.

    Raises:
        RecipeError: A negative weight.
    """

    def __init__(
        self,
        ordinal: float = 0.0,
        difficulty: float = 1.0,
        medium: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        if min(ordinal, difficulty) < 0:
            raise RecipeError(
                f"objective.ordinal and difficulty must be 0 or more, got {ordinal}, {difficulty}."
            )
        self.ordinal, self.difficulty = ordinal, difficulty
        # A dictionary is no submodule: these are neither saved nor trained.
        self.held = {f"medium.{i}": network for i, network in enumerate(medium)}
        for network in self.held.values():
            network.eval().requires_grad_(False)

    @staticmethod
    def asks(options: Mapping[str, Any]) -> Asks:
        """What it has to know of a sample, by the options of its recipe."""
        medium = options.get("medium")
        folds = len(medium.get("folds", ())) if isinstance(medium, Mapping) else 0
        return Asks(KINDS, folds=folds) if medium else Asks()

    def begin(self, step: int, ema: nn.Module) -> None:
        """Called before each step; nothing here changes with time."""

    def forward(self, batch: Batch, model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
        n, k = batch.lq.shape[0], len(TIERS)
        medium, tasks = self._medium(batch)
        crops = torch.cat([batch.lq, medium, batch.gt])
        said = model(crops, Guidance()).float()
        logits = said[:, :k]
        tiers = torch.arange(k, device=said.device).repeat_interleave(n)
        wrong = F.cross_entropy(logits, tiers, reduction="none").view(k, n).mean(0)
        scores = (logits.softmax(1) @ torch.linspace(0, 1, k, device=said.device)).view(k, n)
        unordered = (MARGIN - scores.diff(dim=0)).clamp_min(0).sum(0)
        weight = balance(tasks)
        told = batch.truth[TOLD].vector[:, 0] if TOLD in batch.truth else 1.0
        loss = weight * (told * wrong + self.ordinal * unordered)
        logs: dict[str, Tensor] = {}
        if self.difficulty:
            missed = _missed(said[:, k].view(k, n), batch.truth[LEFT].vector.T)
            loss, logs = loss + self.difficulty * missed, {"difficulty": missed}
        right = (logits.argmax(1) == tiers).float().view(k, n)
        logs |= {
            "tiers": wrong,
            "right": right.mean(0),
            "ordered": (scores.diff(dim=0) > 0).all(0).float(),
        }
        return loss, {name: value.detach() for name, value in logs.items()}

    @torch.no_grad()
    def _medium(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The crops of medium quality, as files would hold them, and the tasks (N, T), one 1."""
        if not self.held:
            return batch.truth[MEDIUM].maps, batch.truth[TASK].vector
        fold = torch.zeros(len(batch.lq), dtype=torch.long, device=batch.lq.device)
        if len(self.held) > 1:
            fold = batch.truth[FOLD].vector[:, 0].long()
        medium = torch.empty_like(batch.lq)
        for number, network in enumerate(self.held.values()):
            mine = (fold == number).nonzero()[:, 0]
            if len(mine):
                made = network.to(batch.lq.device)(batch.lq[mine], Guidance())
                medium[mine] = (made.float().clamp(0, 1) * 255).round() / 255
        worst = batch.truth[DAMAGE].maps.amax((2, 3))
        tasks = F.one_hot(worst.argmax(1), worst.shape[1]) * (worst.amax(1, keepdim=True) > 0)
        return medium, tasks.float()


def _missed(feared: Tensor, told: Tensor) -> Tensor:
    """Cross entropy (N,) of the difficulties (3, N), over those that were measured, whatever their
    number; NaN where one was not."""
    known = told.isfinite()
    told = torch.where(known, told, 0.0)
    missed = F.binary_cross_entropy_with_logits(feared, told, reduction="none") - entropy(told)
    return (missed * known).sum(0) * told.shape[1] / known.sum().clamp_min(1)


def balance(tasks: Tensor) -> Tensor:
    """Weights (N,) of mean 1 under which all tasks of a batch weigh alike; tasks (N, T), one 1. A
    row of zeros weighs nothing."""
    share = tasks.mean(0)
    return (tasks / (share.clamp_min(1e-9) * (share > 0).sum())).sum(1)
