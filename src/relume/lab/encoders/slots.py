"""Masks as channels: one slot a mask, looked at beside the picture."""

import torch
from torch import Tensor, nn

from ...card import Reads
from ...guidance import Guidance, Guide


class MaskSlots(nn.Module):
    """Two 3x3 convolutions over the picture and a fixed number of mask channels.

    SPT's other mask encoder (Xiao et al., arXiv 2305.13620; a reconstruction): what a plain network
    does with a list of masks. Which slot a mask stands in means nothing, so the convolution has to
    learn that no slot differs from another, and masks beyond the last slot are not seen: both are
    what `RegionStatistics`, the set encoder, does not suffer from.

    Args:
        dim: Channels of what it emits.
        slots: Labels 1..slots have a channel each. `RegionsPrior` numbers the largest regions
            first, so that the small ones are left out.
        reads: Name of the label maps in the guidance.

    Shape:
        lq (N, 3, H, W), labels (N, H, W) -> maps (N, dim, H, W).
    """

    prepared = False
    looks = 2  # pixels: two 3x3 convolutions

    def __init__(self, *, dim: int = 32, slots: int = 64, reads: str = "regions") -> None:
        super().__init__()
        self.dim, self.slots, self.regions = dim, slots, reads
        self.asks = (Reads(reads, "regions", 1, (0, 0)),)
        self.stem = nn.Sequential(
            nn.Conv2d(3 + slots, dim, 3, padding=1), nn.GELU(), nn.Conv2d(dim, dim, 3, padding=1)
        )

    def forward(self, lq: Tensor, guidance: Guidance) -> Guide:
        labels = guidance[self.regions].regions
        names = torch.arange(1, self.slots + 1, device=lq.device, dtype=labels.dtype)
        masks = (labels[:, None] == names[:, None, None]).to(lq.dtype)
        return Guide(maps=self.stem(torch.cat([lq, masks], 1)))
