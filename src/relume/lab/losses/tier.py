"""How excellent a restored picture looks to a frozen judge of quality in three tiers.

A judge is a callable: rgb (N, 3, h, w) in [0, 1] -> the probabilities (N, 3) of low, medium and
high quality, at the temperature that it was trained with. All functions: rgb -> one value an image.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Judge = Callable[[Tensor], Tensor]


def surprise(rgb: Tensor, judge: Judge) -> Tensor:
    """-log p(high), at the judge's own temperature and the picture's own resolution. Ours.

    Its gradient does not fade where the judge is sure that the quality is low.

    Args:
        rgb: (N, 3, h, w), clamped here to what a file holds.

    Returns:
        (N,), 0 where the judge is sure that it is high.
    """
    high = judge(rgb.float().clamp(0, 1)).float()[:, 2]
    return -high.clamp_min(torch.finfo(high.dtype).tiny).log()


def release(rgb: Tensor, judge: Judge, *, trained: float = 100.0, side: int = 224) -> Tensor:
    """1 - p(high) with p the softmax of bare cosines: Perceive-IR (arXiv 2408.15994), late release.

    Its prompts are trained on cosines times CLIP's 100, the loss reads them times 1: where p(high)
    is 0.92 to the judge, the loss sees 0.34.

    Args:
        rgb: (N, 3, h, w), clamped to [0, 1] and resized to a square.
        trained: The factor of the logits that the judge's probabilities come from.
        side: Of the square in pixels.

    Returns:
        (N,).
    """
    square = F.interpolate(
        rgb.float().clamp(0, 1), (side, side), mode="bicubic", align_corners=False
    )
    p = judge(square).float()
    # Logits are known up to a constant from what their softmax is.
    bare = p.clamp_min(torch.finfo(p.dtype).tiny).log() / trained
    return 1 - bare.softmax(1)[:, 2]


def gradient_norm(loss: Tensor, at: Tensor) -> Tensor:
    """|d sum(loss) / d at|, a number without a gradient; the graph is kept."""
    (gradient,) = torch.autograd.grad(loss.sum(), at, retain_graph=True, allow_unused=True)
    return at.new_zeros(()) if gradient is None else gradient.detach().norm()


def balance(of: Tensor, against: Tensor, *, least: float = 1e-3, most: float = 1e3) -> Tensor:
    """|gradient of one loss| / |gradient of another|: times this the other pulls as hard.

    Args:
        of: `gradient_norm` of the loss that sets the scale.
        against: `gradient_norm` of the loss to be weighed.
        least, most: Bounds: a loss that is all but flat is not blown up without end.
    """
    return (of / against.clamp_min(torch.finfo(against.dtype).tiny)).clamp(least, most).detach()


TIERS = {
    "release": release,
    "surprise": surprise,
}
