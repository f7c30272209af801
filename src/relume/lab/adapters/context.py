"""Global context aggregation: what is degraded looks for the like among what is clean."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...card import Reads
from ...guidance import Guidance
from .gate import damage_maps, maps_at


class Context(nn.Module):
    """x_i + m_i W_o sum_j A_ij v_j, A_ij = softmax_j(q_i k_j / sqrt(d) + log(1 - m_j + eps)).

    A reconstruction: of DAKD (Suin et al., IEEE JSTSP 2021, doi 10.1109/JSTSP.2020.3043622) only
    the abstract is known to us, which names the module; the equation is ours. x is the feature, d =
    C / 4. Keys and values are means
    over squares of `every` picture pixels, weighted by 1 - m + eps, and m_j is the mean of m there.
    So a square counts by what is clean in it; where nothing is clean anywhere all count alike, and
    it is plain attention. m is the largest of the K maps. Keys are sorted by no place: attention
    knows what is where only from the feature.

    It is a mean over features of whatever it is shown, so the network is `global`: a tile sees the
    clean parts of the tile. With `every` pixels a token, a crop of 256 has 16 x 16 of them; a tile
    twice as wide has four times as many, each still of the size seen in training. The attention
    takes (H W / stride^2) (H W / every^2) numbers: for sites of stride 4 and more.

    Args:
        channels: C of the feature at the site.
        stride: Picture pixels per sample of the feature.
        reads: Name of the damage maps in the guidance.
        maps: K, how many there are.
        every: Side in picture pixels of the squares that become tokens.
        eps: Weight of what is wholly degraded, beside 1 of what is clean.

    Shape:
        feat (N, C, h, w), maps (N, K, H, W) in [0, 1], 1 = degraded, with H = h stride or, where
        the backbone padded the picture, less -> (N, C, h, w).

    Raises:
        GuidanceError: The guidance of that name is not K maps at the picture's resolution.
    """

    support = "global"

    def __init__(
        self,
        channels: int,
        stride: int,
        *,
        reads: str,
        maps: int = 1,
        every: int = 16,
        eps: float = 1e-2,
    ) -> None:
        super().__init__()
        self.reads, self.maps, self.stride, self.eps = (reads,), maps, stride, eps
        self.asks = (Reads(reads, "maps", maps, (maps, 0, 0)),)
        self.kernel = max(1, every // stride)
        d = max(1, channels // 4)
        self.query = nn.Conv2d(channels, d, 1)
        # A constant in all keys falls out of the softmax, one in all values is `out`'s own.
        self.key = nn.Conv2d(channels, d, 1, bias=False)
        self.value = nn.Conv2d(channels, d, 1, bias=False)
        self.out = nn.Conv2d(d, channels, 1)
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(self, feat: Tensor, guidance: Guidance) -> Tensor:
        maps = damage_maps(guidance, self.reads[0], self.maps, "context")
        m = maps.amax(1, keepdim=True).clamp(0, 1)
        size = feat.shape[-2:]
        clean = 1 - maps_at(m, self.stride, size, mean=True) + self.eps
        share = self._pooled(clean)
        tokens = self._pooled(clean * feat) / share
        q = self.query(feat).flatten(2).transpose(1, 2)
        k, v = self.key(tokens).flatten(2), self.value(tokens).flatten(2).transpose(1, 2)
        # The fused form is the one that OpenVINO got wrong.
        near = torch.softmax(q @ k / math.sqrt(q.shape[-1]) + share.flatten(2).log(), -1)
        found = (near @ v).transpose(1, 2).unflatten(2, size)
        return feat + (maps_at(m, self.stride, size) * self.out(found)).to(feat.dtype)

    def _pooled(self, x: Tensor) -> Tensor:
        """Sums over the squares, up to one factor. What hangs over the border weighs nothing, so
        that a square at the border counts by its part of the picture."""
        over = self.kernel - 1  # whatever the size: a width that depends on it does not export
        return F.avg_pool2d(F.pad(x, (0, over, 0, over)), self.kernel)
