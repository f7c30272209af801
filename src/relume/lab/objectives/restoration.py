"""Train a restorer to give the clean picture back."""

from collections.abc import Callable

from torch import Tensor, nn

from ..data import Batch


class Restoration(nn.Module):
    """loss(model(lq, guidance), gt).

    Args:
        loss: (out, gt) -> (N,).
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.loss = loss

    def begin(self, step: int, ema: nn.Module) -> None:
        """Called before each step; nothing here changes with time."""

    def forward(self, batch: Batch, model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
        out = model(batch.lq, batch.guidance)
        loss = self.loss(out.float(), batch.gt)
        return loss, {"mse": (out.detach().float() - batch.gt).square().mean((1, 2, 3))}
