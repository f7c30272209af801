"""The label map as one more channel of the picture: the CAT baseline of SAM-Deblur."""

import torch
from torch import Tensor, nn

from ...card import Reads
from ...guidance import Guidance


class Concat(nn.Module):
    """labels / 255, at most 1, joined to the picture (Li et al., arXiv 2309.02270, baseline CAT).

    The published code adds gray codes of overlapping masks up in 8 bits, where different overlaps
    share a value; a partition needs no sum: labels differ as long as there are 255 or fewer.

    Args:
        reads: Name of the label maps in the guidance.

    Shape:
        lq (N, 3, H, W), labels (N, H, W) -> (N, 1, H, W).
    """

    support = "local"
    joins = True
    channels = 1

    def __init__(self, *, reads: str) -> None:
        super().__init__()
        self.reads = (reads,)
        self.asks = (Reads(reads, "regions", 1, (0, 0)),)

    def forward(self, lq: Tensor, guidance: Guidance) -> Tensor:
        labels = guidance[self.reads[0]].regions
        return torch.clamp(labels[:, None].to(lq.dtype) / 255, max=1)
