"""Losses: functions or small modules, one value per image. One file an idea, one row each.

LOSSES are between pictures, (out, gt) -> (N,). The other tables are each in their own file:
DISTILLATIONS between features, CONTRASTS between codes, TIERS by a judge of quality, PERCEPTUAL by
the features of a frozen network.
"""

from .contrastive import CONTRASTS
from .distill import ATTENTIONS, DISTILLATIONS
from .perceptual import PERCEPTUAL
from .pixel import charbonnier, l1, log_mse, psnr_loss
from .tier import TIERS

__all__ = [
    "ATTENTIONS",
    "CONTRASTS",
    "DISTILLATIONS",
    "LOSSES",
    "PERCEPTUAL",
    "TIERS",
    "charbonnier",
    "l1",
    "log_mse",
    "psnr_loss",
]

LOSSES = {
    "charbonnier": charbonnier,
    "l1": l1,
    "log_mse": log_mse,
    "psnr": psnr_loss,
}
