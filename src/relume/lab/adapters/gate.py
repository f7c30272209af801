"""Mask-guided gated convolution at a site: what the damage maps say opens and shuts features."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...card import Reads
from ...errors import GuidanceError
from ...guidance import Guidance


class Gate(nn.Module):
    """feat + W_o(psi(W_f * feat) sigmoid(W_g * [feat; m])), m the damage maps, psi the GELU.

    A reconstruction: of DAKD (Suin et al., IEEE JSTSP 2021, doi 10.1109/JSTSP.2020.3043622) only
    the abstract is known to us, which names the mask-guided gated convolution; the equation is
    gated convolution (Yu et al., arXiv 1806.03589) told the mask, added to the feature. W_f and W_g
    are 3x3, W_o is the 1x1 that starts at zero. The gate's bias starts at +1: a gate that starts
    shut passes no gradient to what it shuts.

    Args:
        channels: C of the feature at the site.
        stride: Picture pixels per sample of the feature.
        reads: Name of the damage maps in the guidance.
        maps: K, how many there are.
        hidden: Channels inside the block; 0 = C.
        gated: False adds psi(W_g * [feat; m]) instead of gating with it. That is the control: the
            same block with the same parameters, to the number, told the same; only the product is
            gone. What the block does untold is another control's to say: the null of the maps.
        hard: What is added is times the largest of the K maps, so that the feature passes unchanged
            where all are 0 ("solely on degraded regions", arXiv 2201.00187).

    Shape:
        feat (N, C, h, w), maps (N, K, H, W) in [0, 1], 1 = degraded, with H = h stride or, where
        the backbone padded the picture, less -> (N, C, h, w).

    Raises:
        GuidanceError: The guidance of that name is not K maps at the picture's resolution.
    """

    support = "local"
    looks = 1  # samples of the site's grid that the block looks further

    def __init__(
        self,
        channels: int,
        stride: int,
        *,
        reads: str,
        maps: int = 1,
        hidden: int = 0,
        gated: bool = True,
        hard: bool = False,
    ) -> None:
        super().__init__()
        c = hidden or channels
        self.reads, self.maps, self.stride = (reads,), maps, stride
        self.gated, self.hard = gated, hard
        self.asks = (Reads(reads, "maps", maps, (maps, 0, 0)),)
        self.feature = nn.Conv2d(channels, c, 3, padding=1)
        self.gate = nn.Conv2d(channels + maps, c, 3, padding=1)
        self.out = nn.Conv2d(c, channels, 1)
        assert self.gate.bias is not None and self.out.bias is not None
        if gated:
            nn.init.ones_(self.gate.bias)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, feat: Tensor, guidance: Guidance) -> Tensor:
        maps = damage_maps(guidance, self.reads[0], self.maps, "gate")
        m = maps_at(maps, self.stride, feat.shape[-2:]).to(feat.dtype)
        y, told = F.gelu(self.feature(feat)), self.gate(torch.cat([feat, m], 1))
        added = self.out(y * torch.sigmoid(told) if self.gated else y + F.gelu(told))
        return feat + (m.amax(1, keepdim=True) * added if self.hard else added)


def damage_maps(guidance: Guidance, name: str, count: int, who: str) -> Tensor:
    """The guidance of that name, (N, count, H, W), when it is that many maps of picture pixels.

    Raises:
        GuidanceError: It is something else.
    """
    guide = guidance[name]
    if guide.kind != "maps" or guide.channels != count or guide.stride != 1 or guide.whole:
        raise GuidanceError(
            f"{who} reads {name!r} as {count} damage maps at the picture's resolution, got "
            f"{guide.kind} {tuple(guide.array.shape)} of stride {guide.stride}. Set `maps` to what "
            "the prior says, or read another."
        )
    return guide.maps


def maps_at(maps: Tensor, stride: int, size: tuple[int, ...], *, mean: bool = False) -> Tensor:
    """Maps on the grid of a feature: (N, K, H, W) -> (N, K, *size).

    Args:
        stride: Picture pixels per sample of the feature.
        size: (h, w) of the feature. Where it reaches beyond the maps (a backbone padded the picture
            to its multiple), their last row and column go on. Never so in a graph, whose tiles are
            multiples.
        mean: The largest value of a cell opens gates: a streak one pixel wide is still there at
            stride 8. The mean is for weights: by their largest value streaks would cover all.
    """
    if not torch.compiler.is_exporting():
        down, right = (stride * w - h for w, h in zip(size, maps.shape[-2:], strict=True))
        maps = F.pad(maps, (0, right, 0, down), mode="replicate") if down or right else maps
    if stride == 1:
        return maps
    # Kernel = stride: pooling to a given size does not export where sizes are free.
    return F.avg_pool2d(maps, stride) if mean else F.max_pool2d(maps, stride)
