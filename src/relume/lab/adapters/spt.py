"""SAM prior tuning: units at the sites of a frozen, pre-trained backbone."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...guidance import Guidance
from ..regions import gather_regions, labels_at
from .map import token_rows


class SptUnit(nn.Module):
    """feat + W_o(A * sigmoid(W_s E) + W_t E), A a depthwise look at the feature, E the prior.

    A reconstruction: of "A Dive into SAM Prior in Image Restoration" (Xiao et al., arXiv
    2305.13620) only the principle is known to us, light plug-in units that alone are trained. A is
    1x1 then depthwise 3x3 of the feature; E is what the prior says at each pixel, the rows of the
    regions written back (the set encoder) or maps (`slots`). W_o is the one zero at initialisation;
    where E is zero the unit still sees the feature, which is its control at equal cost.

    Args:
        channels: C of the feature at the site.
        dim: D of what the prior says.
        stride: Picture pixels per sample of the feature.
        hidden: Channels inside the unit; 0 = C.
        reads: Name of the token rows or maps in the guidance.
        regions: Name of the label maps that rows belong to.

    Shape:
        feat (N, C, h, w), tokens (N, rows, D) with labels (N, H, W), or maps (N, D, H, W)
        -> (N, C, h, w).

    Raises:
        GuidanceError: The guidance of that name is neither token rows nor maps of D numbers.
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
        gate, shift = self._said(guidance, feat).to(feat.dtype).chunk(2, dim=1)
        return feat + self.out(self.look(feat) * gate + shift)

    def _said(self, guidance: Guidance, feat: Tensor) -> Tensor:
        """Gate and shift at every sample of the feature: (N, 2 hidden, h, w)."""
        name = self.reads[0]
        if guidance[name].kind == "maps" and guidance[name].channels == self.dim:
            said = self._read(guidance[name].maps.movedim(1, -1)).movedim(-1, 1)
            if not torch.compiler.is_exporting():  # the backbone may have padded the picture
                wanted = (self.stride * side for side in feat.shape[-2:])
                down, right = (w - h for w, h in zip(wanted, said.shape[-2:], strict=True))
                said = F.pad(said, (0, right, 0, down), mode="replicate") if down or right else said
            return F.avg_pool2d(said, self.stride) if self.stride > 1 else said
        rows = token_rows(guidance, name, self.dim, "spt").tokens
        labels = labels_at(guidance[self.regions].regions, self.stride, feat.shape[-2:])
        return gather_regions(self._read(rows), labels)

    def _read(self, said: Tensor) -> Tensor:
        return torch.cat([torch.sigmoid(self.gate(said)), self.shift(said)], -1)
