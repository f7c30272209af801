"""Losses between pixels: functions of (out, gt), one value per image."""

import math

from torch import Tensor


def charbonnier(out: Tensor, gt: Tensor, *, eps: float = 1e-3) -> Tensor:
    """Smooth L1, mean of sqrt((out - gt)^2 + eps^2) (Charbonnier et al., 1994).

    Args:
        out: (N, C, H, W), not clamped: clipping kills the gradient.
        gt: The same shape.
        eps: Where the corner of |x| is rounded, on the [0, 1] scale.

    Returns:
        (N,).
    """
    return ((out - gt).square() + eps**2).sqrt().mean((1, 2, 3))


def l1(out: Tensor, gt: Tensor) -> Tensor:
    """Mean absolute difference, (N, C, H, W) twice -> (N,)."""
    return (out - gt).abs().mean((1, 2, 3))


def log_mse(out: Tensor, gt: Tensor, *, floor: float = 1e-4) -> Tensor:
    """10 log10(MSE + floor): minus PSNR in decibels, levelled off where a picture is nearly right.

    Tasks weigh alike, because a decibel is a decibel at 15 and at 35; and the floor (40 dB at 1e-4)
    keeps clean pictures, whose PSNR has no bound, from drowning the others. The logarithm without a
    floor is NAFNet's PSNR loss (arXiv 2204.04676).

    Args:
        out: (N, C, H, W), not clamped.
        gt: The same shape.
        floor: Added to the mean squared error, on the [0, 1] scale squared.

    Returns:
        (N,) in decibels.
    """
    return 10 / math.log(10) * ((out - gt).square().mean((1, 2, 3)) + floor).log()


def psnr_loss(out: Tensor, gt: Tensor) -> Tensor:
    """10 log10(MSE + 1e-8), NAFNet's loss (arXiv 2204.04676): (N, C, H, W) twice -> (N,)."""
    return log_mse(out, gt, floor=1e-8)
