"""Losses: functions or small modules, one value per image. One file an idea, one row each.

LOSSES are between pictures, (out, gt) -> (N,); DISTILLATIONS, in their own file, between features.
"""

from .distill import ATTENTIONS, DISTILLATIONS
from .pixel import charbonnier, l1, log_mse, psnr_loss

__all__ = [
    "ATTENTIONS",
    "DISTILLATIONS",
    "LOSSES",
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
