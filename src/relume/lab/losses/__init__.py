"""Losses: functions or small modules, one value per image. One file an idea, one row each."""

from .pixel import charbonnier, l1, log_mse, psnr_loss

__all__ = ["LOSSES", "charbonnier", "l1", "log_mse", "psnr_loss"]

LOSSES = {
    "charbonnier": charbonnier,
    "l1": l1,
    "log_mse": log_mse,
    "psnr": psnr_loss,
}
