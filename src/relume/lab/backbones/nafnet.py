"""NAFNet, "Simple Baselines for Image Restoration" (Chen et al., arXiv 2204.04676), from the paper.

Modules carry the names of the authors' state dicts, so theirs load here as they are.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import RecipeError, ShapeError, nearest
from ..blocks import LayerNorm2d, SimpleGate
from .sites import Adapt, Output, Site, Visit, check_input
from .ushape import u_shaped


class NAFBlock(nn.Module):
    """The paper's figure 3c: two gated residual branches, each times a vector that starts at 0.

    Args:
        channels: C.
        attention: `global` is the paper's simplified channel attention (eq. 6), a mean over the
            whole feature; `none` leaves it out, which makes the block local.

    Shape:
        (N, C, h, w) -> (N, C, h, w).
    """

    def __init__(self, channels: int, attention: Literal["global", "none"] = "global") -> None:
        super().__init__()
        c = channels
        self.norm1 = LayerNorm2d(c)
        self.conv1 = nn.Conv2d(c, 2 * c, 1)
        self.conv2 = nn.Conv2d(2 * c, 2 * c, 3, padding=1, groups=2 * c)
        self.sg = SimpleGate()
        self.sca = (
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c, 1))
            if attention == "global"
            else None
        )
        self.conv3 = nn.Conv2d(c, c, 1)
        self.norm2 = LayerNorm2d(c)
        self.conv4 = nn.Conv2d(c, 2 * c, 1)
        self.conv5 = nn.Conv2d(c, c, 1)
        self.beta = nn.Parameter(torch.zeros(1, c, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, c, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.sg(self.conv2(self.conv1(self.norm1(x))))
        if self.sca is not None:
            y = y * self.sca(y)
        x = x + _scaled(self.conv3, self.beta, y)
        return x + _scaled(self.conv5, self.gamma, self.sg(self.conv4(self.norm2(x))))


def _scaled(conv: nn.Conv2d, scale: Tensor, x: Tensor) -> Tensor:
    """scale * conv(x) for a 1x1 convolution. Scaling the weights, not the feature, saves a pass
    over it in either direction: 8 % of a training step."""
    assert conv.bias is not None
    return F.conv2d(x, conv.weight * scale.view(-1, 1, 1, 1), conv.bias * scale.flatten())


class NAFNet(nn.Module):
    """A U-Net of NAFBlocks with a global residual.

    Args:
        width: Channels at full resolution; they double with each level.
        enc_blocks: Blocks of each encoder level, finest first.
        middle_blocks: Blocks at the coarsest resolution.
        dec_blocks: Blocks of each decoder level, coarsest first, as the authors list them.
        attention: See NAFBlock. With `none` the network is local and `reach` is a number.
        in_channels: Channels of the input; the first three are the picture that the residual adds.
        out_channels: Channels of the output; 0 gives the feature itself, with `width` channels.
        residual: Whether the picture is added to the output; what is no picture goes without.

    Sites: `input` (the picture itself, before the residual branches off), `intro`, `encoder.L`,
    `middle`, `decoder.L`, with L the level: stride 2**L. Each lies behind its blocks.

    Shape:
        (N, in_channels, H, W) -> Output.image (N, out_channels, H, W), any H, W >= 1.

    Raises:
        RecipeError: `attention` is neither.
        ShapeError: Encoder and decoder differ in levels, or the input has other channels.
    """

    scale = 1
    inputs: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        width: int = 32,
        enc_blocks: Sequence[int] = (1, 1, 1, 28),
        middle_blocks: int = 1,
        dec_blocks: Sequence[int] = (1, 1, 1, 1),
        attention: Literal["global", "none"] = "global",
        in_channels: int = 3,
        out_channels: int = 3,
        residual: bool = True,
    ) -> None:
        super().__init__()
        if attention not in ("global", "none"):
            raise RecipeError(
                f"attention is global or none, got {attention!r}."
                f"{nearest(str(attention), ('global', 'none'))}"
            )
        if len(enc_blocks) != len(dec_blocks):
            raise ShapeError(
                f"NAFNet needs as many decoder levels as encoder levels, got {len(enc_blocks)} in "
                f"enc_blocks and {len(dec_blocks)} in dec_blocks."
            )
        levels = len(enc_blocks)
        self.in_channels = in_channels
        self.multiple_of = 2**levels
        self.intro = nn.Conv2d(in_channels, width, 3, padding=1)
        ending = nn.Conv2d(width, out_channels, 3, padding=1) if out_channels else nn.Identity()
        self.ending = ending
        self.residual = residual

        def stage(blocks: int, channels: int) -> nn.Sequential:
            return nn.Sequential(*(NAFBlock(channels, attention) for _ in range(blocks)))

        widths = [width << level for level in range(levels + 1)]
        self.encoders = nn.ModuleList(stage(n, c) for n, c in zip(enc_blocks, widths, strict=False))
        self.downs = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, stride=2) for c in widths[:-1])
        self.middle_blks = stage(middle_blocks, widths[-1])
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, 2 * c, 1, bias=False), nn.PixelShuffle(2))
            for c in widths[:0:-1]
        )
        self.decoders = nn.ModuleList(
            stage(n, c) for n, c in zip(dec_blocks, widths[-2::-1], strict=True)
        )
        self.sites = {
            "input": Site(3, 1),
            "intro": Site(width, 1),
            **{f"encoder.{i}": Site(widths[i], 2**i) for i in range(levels)},
            "middle": Site(widths[-1], 2**levels),
            **{f"decoder.{i}": Site(widths[i], 2**i) for i in range(levels)},
        }
        # One 3x3 of stride s looks s pixels further; the grids of the levels add their own width.
        blocks = sum(
            (n + m) << i
            for i, (n, m) in enumerate(zip(enc_blocks, reversed(dec_blocks), strict=True))
        ) + (middle_blocks << levels)
        self.reach = 2 + blocks + (2**levels - 1) if attention == "none" else None

    def forward(self, x: Tensor, taps: Sequence[str] = (), adapt: Adapt | None = None) -> Output:
        check_input(x, self.in_channels, "NAFNet")
        visit = Visit(taps, adapt)

        def decode(place: int, below: Tensor, skip: Tensor) -> Tensor:
            return self.decoders[place](self.ups[place](below) + skip)

        picture, y = u_shaped(self, x, visit, self.middle_blks, decode)
        out = self.ending(y)
        if self.residual:
            out = out + picture
        return Output(out[..., : x.shape[-2], : x.shape[-1]], visit.aux)
