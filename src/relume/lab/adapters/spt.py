"""SAM prior tuning: units at the sites of a frozen, pre-trained backbone."""

import torch
from torch import Tensor, nn

from ...guidance import Guidance
from ..regions import gather_regions, labels_at
from .map import token_rows


class SptUnit(nn.Module):
    """feat + W_o(A * sigmoid(W_s E) + W_t E), A a depthwise look at the feature, E the prior.

    A reconstruction: of "A Dive into SAM Prior in Image Restoration" (Xiao et al., arXiv
    2305.13620) only the principle is known to us, light plug-in units that alone are trained. A is
    1x1 then depthwise 3x3 of the feature; E writes the rows of the regions back to the pixels. W_o
    is the one zero at initialisation; where the rows are zero the unit still sees the feature,
    which is its control at equal cost.

    Args:
        channels: C of the feature at the site.
        dim: D of the token rows.
        stride: Picture pixels per sample of the feature.
        hidden: Channels inside the unit; 0 = C.
        reads: Name of the token rows in the guidance.
        regions: Name of the label maps that the rows belong to.

    Shape:
        feat (N, C, h, w), tokens (N, rows, D), labels (N, H, W) -> (N, C, h, w).

    Raises:
        GuidanceError: The guidance of that name is not token rows of D numbers.
    """

    support = "local"
    asks = ()
    looks = 1  # samples of the site's grid that the unit looks further

    def __init__(
        self, channels: int, dim: int, stride: int, *, reads: str, regions: str, hidden: int = 0
    ) -> None:
        super().__init__()
        c = hidden or channels
        self.reads, self.regions, self.dim, self.stride = (reads,), regions, dim, stride
        self.look = nn.Sequential(
            nn.Conv2d(channels, c, 1), nn.Conv2d(c, c, 3, padding=1, groups=c)
        )
        self.gate = nn.Linear(dim, c)
        self.shift = nn.Linear(dim, c)
        self.out = nn.Conv2d(c, channels, 1)
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(self, feat: Tensor, guidance: Guidance) -> Tensor:
        rows = token_rows(guidance, self.reads[0], self.dim, "spt").tokens
        labels = labels_at(guidance[self.regions].regions, self.stride, feat.shape[-2:])
        said = torch.cat([torch.sigmoid(self.gate(rows)), self.shift(rows)], 2)
        gate, shift = gather_regions(said.to(feat.dtype), labels).chunk(2, dim=1)
        return feat + self.out(self.look(feat) * gate + shift)
