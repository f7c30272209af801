"""A plain U-Net (Ronneberger et al., arXiv 1505.04597): convolutions, ReLU, skips, nothing else."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .sites import Adapt, Output, Site, Visit, check_input
from .ushape import u_shaped


class UNet(nn.Module):
    """3x3 convolutions with ReLU on each level, strided ones down, pixel shuffle up, skips joined.

    The plainest network with NAFNet's sites: what an adapter is worth without attention, gates or
    normalisation around it. Local. The paper pads nothing and pools; this pads and strides.

    Args:
        width: Channels at full resolution; they double with each level.
        enc_convs: Convolutions of each encoder level, finest first.
        middle_convs: Convolutions at the coarsest resolution.
        dec_convs: Convolutions of each decoder level, coarsest first; as many levels.
        in_channels: Channels of the input; the first three are the picture that the residual adds.

    Shape:
        (N, in_channels, H, W) -> Output.image (N, 3, H, W), any H, W >= 1.

    Raises:
        ShapeError: The input has other channels.
    """

    scale = 1
    inputs: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        width: int = 32,
        enc_convs: Sequence[int] = (2, 2, 2),
        middle_convs: int = 2,
        dec_convs: Sequence[int] = (2, 2, 2),
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        levels = len(enc_convs)
        self.in_channels = in_channels
        self.multiple_of = 2**levels
        widths = [width << level for level in range(levels + 1)]

        def stage(convs: int, inside: int, channels: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for i in range(convs):
                layers += [nn.Conv2d(channels if i else inside, channels, 3, padding=1), nn.ReLU()]
            return nn.Sequential(*layers)

        self.intro = nn.Conv2d(in_channels, width, 3, padding=1)
        self.encoders = nn.ModuleList(
            stage(n, c, c) for n, c in zip(enc_convs, widths, strict=False)
        )
        self.downs = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, stride=2) for c in widths[:-1])
        self.middle = stage(middle_convs, widths[-1], widths[-1])
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, 2 * c, 1), nn.PixelShuffle(2)) for c in widths[:0:-1]
        )
        self.decoders = nn.ModuleList(
            stage(n, 2 * c, c) for n, c in zip(dec_convs, widths[-2::-1], strict=True)
        )
        self.ending = nn.Conv2d(width, 3, 3, padding=1)
        self.sites = {
            "input": Site(3, 1),
            "intro": Site(width, 1),
            **{f"encoder.{i}": Site(widths[i], 2**i) for i in range(levels)},
            "middle": Site(widths[-1], 2**levels),
            **{f"decoder.{i}": Site(widths[i], 2**i) for i in range(levels)},
        }
        # As NAFNet's: one 3x3 of stride s looks s pixels further, the grids add their own width.
        convs = sum(
            (n + m) << i
            for i, (n, m) in enumerate(zip(enc_convs, reversed(dec_convs), strict=True))
        )
        self.reach = 2 + convs + (middle_convs << levels) + (2**levels - 1)

    def forward(self, x: Tensor, taps: Sequence[str] = (), adapt: Adapt | None = None) -> Output:
        check_input(x, self.in_channels, "UNet")
        visit = Visit(taps, adapt)

        def decode(place: int, below: Tensor, skip: Tensor) -> Tensor:
            return self.decoders[place](torch.cat([self.ups[place](below), skip], 1))

        picture, y = u_shaped(self, x, visit, self.middle, decode)
        return Output((self.ending(y) + picture)[..., : x.shape[-2], : x.shape[-1]], visit.aux)
