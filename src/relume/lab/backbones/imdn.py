"""IMDN, "Information Multi-distillation Network" (Hui et al., arXiv 1909.11856), from the paper.

Modules carry the names of the authors' state dicts, so theirs load here as they are.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .sites import Adapt, Output, Site, Visit, check_input

_SLOPE = 0.05  # of every leaky ReLU


class ContrastAttention(nn.Module):
    """Contrast-aware channel attention, the paper's equations 5 and 6: channels are weighted by
    the sum of their standard deviation and their mean over the whole feature.

    Shape:
        (N, C, h, w) -> (N, C, h, w).
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.conv_du = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        variance = (x - mean).square().mean((2, 3), keepdim=True)
        # A flat channel has no contrast, and the root no finite slope at 0.
        return x * self.conv_du(variance.clamp_min(1e-12).sqrt() + mean)


class IMDB(nn.Module):
    """Information multi-distillation block (the paper's figure 3): of each of three convolutions a
    quarter of the channels is kept, the rest goes on; what was kept is fused and added.

    Shape:
        (N, C, h, w) -> (N, C, h, w).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        kept = channels // 4
        self.split = (kept, channels - kept)
        self.c1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.c2 = nn.Conv2d(channels - kept, channels, 3, padding=1)
        self.c3 = nn.Conv2d(channels - kept, channels, 3, padding=1)
        self.c4 = nn.Conv2d(channels - kept, kept, 3, padding=1)
        self.cca = ContrastAttention(4 * kept)
        self.c5 = nn.Conv2d(4 * kept, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        distilled: list[Tensor] = []
        rest = x
        for conv in (self.c1, self.c2, self.c3):
            kept, rest = F.leaky_relu(conv(rest), _SLOPE).split(self.split, 1)
            distilled.append(kept)
        return x + self.c5(self.cca(torch.cat([*distilled, self.c4(rest)], 1)))


class IMDN(nn.Module):
    """Super-resolution by a chain of distillation blocks, all of whose outputs are gathered.

    Args:
        scale: Enlargement; the authors trained 2, 3 and 4.
        width: Channels, a multiple of 4.
        blocks: Distillation blocks.

    Sites: `input` (the picture), `block.I` behind block I, counted from 0.

    Shape:
        (N, 3, H, W) -> Output.image (N, 3, scale H, scale W), any H, W >= 1.

    Raises:
        ShapeError: The input has other channels.
    """

    multiple_of = 1
    in_channels = 3
    inputs: tuple[str, ...] = ()
    reach: int | None = None  # the channel attention looks at the whole picture

    def __init__(self, *, scale: int = 4, width: int = 64, blocks: int = 6) -> None:
        super().__init__()
        self.scale = scale
        self.fea_conv = nn.Conv2d(3, width, 3, padding=1)
        for i in range(blocks):
            self.add_module(f"IMDB{i + 1}", IMDB(width))
        self.c = nn.Sequential(nn.Conv2d(blocks * width, width, 1), nn.LeakyReLU(_SLOPE))
        self.LR_conv = nn.Conv2d(width, width, 3, padding=1)
        self.upsampler = nn.Sequential(
            nn.Conv2d(width, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale)
        )
        self.blocks = blocks
        self.sites = {"input": Site(3, 1), **{f"block.{i}": Site(width, 1) for i in range(blocks)}}

    def forward(self, x: Tensor, taps: Sequence[str] = (), adapt: Adapt | None = None) -> Output:
        check_input(x, self.in_channels, "IMDN")
        visit = Visit(taps, adapt)
        first = y = self.fea_conv(visit("input", x))
        gathered: list[Tensor] = []
        for i in range(self.blocks):
            y = visit(f"block.{i}", self.get_submodule(f"IMDB{i + 1}")(y))
            gathered.append(y)
        y = self.LR_conv(self.c(torch.cat(gathered, 1))) + first
        return Output(self.upsampler(y), visit.aux)
