"""Train a restorer to give the clean picture back."""

from collections.abc import Callable

from torch import Tensor, nn

from ...errors import RecipeError
from ..data import Batch


class Restoration(nn.Module):
    """loss(model(lq, guidance), gt), and more where that is worse than loss(lq, gt).

    A mean over pictures forgives a few that come back worse than they went in, as long as the
    others gain; whoever gets one of those does not. With d = loss(out, gt) - loss(lq, gt), a
    picture with d > 0 costs harm * d^2 more: of no weight near 0, so that weak damages may still
    be tried, and steep where a picture is wrong as a whole.

    Args:
        loss: (out, gt) -> (N,).
        harm: Weight of d^2, per unit of the loss. 0 leaves it out; above 0 lq and gt must have the
            same size.

    Raises:
        RecipeError: harm is negative.
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor], harm: float = 0.0) -> None:
        super().__init__()
        if harm < 0:
            raise RecipeError(f"objective.harm must be 0 or more, got {harm}.")
        self.loss, self.harm = loss, harm

    def begin(self, step: int, ema: nn.Module) -> None:
        """Called before each step; nothing here changes with time."""

    def forward(self, batch: Batch, model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
        return self.judged(model(batch.lq, batch.guidance), batch)

    def judged(self, out: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss (N,) and logs of what the network made of a batch."""
        loss = self.loss(out.float(), batch.gt)
        logs = {"mse": (out.detach().float() - batch.gt).square().mean((1, 2, 3))}
        if self.harm:
            worse = (loss - self.loss(batch.lq, batch.gt)).clamp_min(0)
            loss = loss + self.harm * worse.square()
            logs["worse"] = worse.detach()
        return loss, logs
