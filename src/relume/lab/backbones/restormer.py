"""Restormer, "Efficient Transformer for High-Resolution Image Restoration" (Zamir et al., arXiv
2111.09881), from the paper.

From its equations and figure 2; names and layout of the modules are ours.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ...errors import RecipeError, ShapeError, nearest
from ..blocks import GDFN, MDTA, LayerNorm2d
from .sites import Adapt, Output, Site, Visit, check_input
from .ushape import u_shaped


class ScaleNorm2d(nn.Module):
    """w x / sqrt(var(x) + eps) over the channels of each pixel: layer normalisation, unshifted.

    Nothing is added anywhere, so that a network of such layers scales with its input (bias-free
    networks, Mohan et al., arXiv 1906.05478).

    Shape:
        (N, C, h, w) -> (N, C, h, w).
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = x.to(torch.promote_types(x.dtype, torch.float32))
        variance = (y - y.mean(1, keepdim=True)).square().mean(1, keepdim=True)
        return (y * torch.rsqrt(variance + self.eps)).to(x.dtype) * self.weight


NORMS = {"bias_free": ScaleNorm2d, "layer_norm": LayerNorm2d}


class TransformerBlock(nn.Module):
    """x + MDTA(norm(x)), then x + GDFN(norm(x)).

    Shape:
        (N, C, h, w) -> (N, C, h, w).
    """

    def __init__(self, channels: int, heads: int, expansion: float, bias: bool, norm: str) -> None:
        super().__init__()
        self.norm1, self.norm2 = NORMS[norm](channels), NORMS[norm](channels)
        self.attention = MDTA(channels, heads, bias=bias)
        self.feed = GDFN(channels, expansion, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.feed(self.norm2(x))


class Restormer(nn.Module):
    """A U-Net of transformer blocks whose attention runs over channels, with a global residual.

    Args:
        width: C at full resolution; channels double with each level.
        enc_blocks: Blocks of each encoder level, finest first.
        middle_blocks: Blocks at the coarsest resolution.
        dec_blocks: Blocks of each decoder level, coarsest first, as in NAFNet.
        refinement: Blocks behind the finest decoder level.
        heads: Of each level, finest first, the coarsest resolution last.
        expansion: Of the feed-forward's channels.
        bias: Whether convolutions have one; the paper's have none.
        norm: `layer_norm`, or `bias_free`, which scales and does not shift.
        reduce: Whether the finest decoder level too brings its 2C channels back to C, as the
            network of Perceive-IR's release does; the paper's keeps 2C there.
        in_channels: Channels of the input; the first three are the picture that the residual adds.

    Sites: as NAFNet's, each behind its blocks; `decoder.0` lies before the refinement.

    Shape:
        (N, in_channels, H, W) -> Output.image (N, 3, H, W), any H, W >= 1.

    Raises:
        RecipeError: `norm` is neither.
        ShapeError: Encoder, decoder and heads differ in levels, heads do not divide channels, or
            the input has other channels.
    """

    scale = 1
    inputs: tuple[str, ...] = ()
    reach = None  # attention is a sum over the whole feature

    def __init__(
        self,
        *,
        width: int = 48,
        enc_blocks: Sequence[int] = (4, 6, 6),
        middle_blocks: int = 8,
        dec_blocks: Sequence[int] = (6, 6, 4),
        refinement: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        expansion: float = 2.66,
        bias: bool = False,
        norm: Literal["layer_norm", "bias_free"] = "layer_norm",
        reduce: bool = False,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise RecipeError(
                f"norm is {' or '.join(NORMS)}, got {norm!r}.{nearest(str(norm), NORMS)}"
            )
        levels = len(enc_blocks)
        if len(dec_blocks) != levels or len(heads) != levels + 1:
            raise ShapeError(
                f"Restormer with {levels} levels in enc_blocks needs as many in dec_blocks and one "
                f"more in heads, got {len(dec_blocks)} and {len(heads)}."
            )
        self.in_channels = in_channels
        self.multiple_of = 2**levels
        widths = [width << level for level in range(levels + 1)]
        outs = [widths[0] if reduce else 2 * widths[0], *widths[1:]]  # of the decoder levels

        def stage(blocks: int, channels: int, level: int) -> nn.Sequential:
            made = (
                TransformerBlock(channels, heads[level], expansion, bias, norm)
                for _ in range(blocks)
            )
            return nn.Sequential(*made)

        def three(inside: int, outside: int) -> nn.Conv2d:
            return nn.Conv2d(inside, outside, 3, padding=1, bias=bias)

        self.intro = three(in_channels, width)
        self.encoders = nn.ModuleList(stage(n, widths[i], i) for i, n in enumerate(enc_blocks))
        self.downs = nn.ModuleList(
            nn.Sequential(three(c, c // 2), nn.PixelUnshuffle(2)) for c in widths[:-1]
        )
        self.middle = stage(middle_blocks, widths[-1], levels)
        coarse_first = list(reversed(range(levels)))
        self.ups = nn.ModuleList(
            nn.Sequential(three(2 * widths[i], 4 * widths[i]), nn.PixelShuffle(2))
            for i in coarse_first
        )
        # A level and its skip have twice the channels that the level is to have; the finest level
        # of the paper keeps them.
        self.joins = nn.ModuleList(
            nn.Conv2d(2 * widths[i], outs[i], 1, bias=bias)
            if outs[i] != 2 * widths[i]
            else nn.Identity()
            for i in coarse_first
        )
        self.decoders = nn.ModuleList(
            stage(n, outs[i], i) for n, i in zip(dec_blocks, coarse_first, strict=True)
        )
        self.refinement = stage(refinement, outs[0], 0)
        self.ending = three(outs[0], 3)
        self.sites = {
            "input": Site(3, 1),
            "intro": Site(width, 1),
            **{f"encoder.{i}": Site(widths[i], 2**i) for i in range(levels)},
            "middle": Site(widths[-1], 2**levels),
            **{f"decoder.{i}": Site(outs[i], 2**i) for i in range(levels)},
        }

    def forward(self, x: Tensor, taps: Sequence[str] = (), adapt: Adapt | None = None) -> Output:
        check_input(x, self.in_channels, "Restormer")
        visit = Visit(taps, adapt)

        def decode(place: int, below: Tensor, skip: Tensor) -> Tensor:
            joined = self.joins[place](torch.cat([self.ups[place](below), skip], 1))
            return self.decoders[place](joined)

        picture, y = u_shaped(self, x, visit, self.middle, decode)
        out = self.ending(self.refinement(y)) + picture
        return Output(out[..., : x.shape[-2], : x.shape[-1]], visit.aux)
