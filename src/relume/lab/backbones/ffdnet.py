"""FFDNet, "Toward a Fast and Flexible Solution for CNN based Image Denoising" (Zhang et al., arXiv
1710.04026), from the paper.

It is told the noise level, so one network serves all levels from 0 to 75 (of 255).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dncnn import Chain
from .sites import Adapt, Output, Site, Visit, check_input


class FFDNet(nn.Module):
    """A chain of 3x3 convolutions with ReLU on four sub-images and a map of the noise level.

    Args:
        depth: Convolutions; the paper has 12 for colour, 15 for gray.
        width: Channels between them; the paper has 96 for colour, 64 for gray.
        channels: Of the picture: 3, or 1 for gray.
        every: A site behind every so many ReLUs.

    Sites: `input` (the picture), `layer.N` behind the N-th ReLU, at half the picture's size.

    Shape:
        (N, channels + 1, H, W), the last one `noise.sigma` on the [0, 1] scale (25 is 25 / 255)
        -> Output.image (N, channels, H, W), any H, W >= 1.

    Raises:
        ShapeError: The input has other channels.
    """

    scale = 1
    multiple_of = 2
    inputs: tuple[str, ...] = ("noise.sigma",)

    def __init__(
        self, *, depth: int = 12, width: int = 96, channels: int = 3, every: int = 4
    ) -> None:
        super().__init__()
        self.in_channels = channels + 1
        self.reach = 2 * depth + 1  # at half size, and the grid of two pixels
        self.model = Chain(4 * channels + 1, width, 4 * channels, depth, every=every, stride=2)
        self.sites = {"input": Site(channels, 1), **self.model.sites}

    def forward(self, x: Tensor, taps: Sequence[str] = (), adapt: Adapt | None = None) -> Output:
        check_input(x, self.in_channels, "FFDNet")
        visit = Visit(taps, adapt)
        height, width = x.shape[-2:]
        x = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
        picture, sigma = visit("input", x[:, :-1]), F.avg_pool2d(x[:, -1:], 2)
        y = torch.cat([F.pixel_unshuffle(picture, 2), sigma], 1)
        out = F.pixel_shuffle(self.model.walk(y, visit), 2)
        return Output(out[..., :height, :width], visit.aux)
