"""DnCNN and CDnCNN, "Beyond a Gaussian Denoiser" (Zhang et al., arXiv 1608.03981), from the paper.

The paper trains the inner convolutions with batch normalisation. For use it is merged into them,
and this is that form: the state dict holds `model.0`, `model.2`, ... of a plain chain.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from .sites import Adapt, Output, Site, Visit, check_input


class Chain(nn.Sequential):
    """`depth` 3x3 convolutions with a ReLU between each two.

    Args:
        inward, width, outward: Channels of the input, between convolutions, of the output.
        every: A site `layer.N` behind the N-th ReLU, for each N that is a multiple of this.
        stride: Picture pixels per sample of its input.

    Shape:
        (N, inward, h, w) -> (N, outward, h, w).
    """

    def __init__(
        self, inward: int, width: int, outward: int, depth: int, *, every: int, stride: int = 1
    ) -> None:
        widths = [inward, *[width] * (depth - 1), outward]
        layers: list[nn.Module] = []
        for before, behind in pairwise(widths):
            layers += [nn.Conv2d(before, behind, 3, padding=1), nn.ReLU(inplace=True)]
        super().__init__(*layers[:-1])
        self.sites = {f"layer.{n}": Site(width, stride) for n in range(every, depth, every)}

    def walk(self, x: Tensor, visit: Visit) -> Tensor:
        """From end to end, past the sites."""
        for number, layer in enumerate(self):
            x = layer(x)
            site = f"layer.{(number + 1) // 2}"
            if isinstance(layer, nn.ReLU) and site in self.sites:
                x = visit(site, x)
        return x


class DnCNN(nn.Module):
    """A chain of 3x3 convolutions with ReLU that estimates the noise, which is then subtracted.

    Args:
        depth: Convolutions; 17 for a known noise level, 20 for a range of them and for colour.
        width: Channels between them.
        channels: Of the picture: 3, or 1 for gray.
        every: A site behind every so many ReLUs.

    Sites: `input` (the picture, before the residual branches off), `layer.N` behind the N-th ReLU.

    Shape:
        (N, channels, H, W) -> Output.image of the same shape, any H, W >= 1.

    Raises:
        ShapeError: The input has other channels.
    """

    scale = 1
    multiple_of = 1
    inputs: tuple[str, ...] = ()

    def __init__(
        self, *, depth: int = 20, width: int = 64, channels: int = 3, every: int = 4
    ) -> None:
        super().__init__()
        self.in_channels = channels
        self.reach = depth
        self.model = Chain(channels, width, channels, depth, every=every)
        self.sites = {"input": Site(channels, 1), **self.model.sites}

    def forward(self, x: Tensor, taps: Sequence[str] = (), adapt: Adapt | None = None) -> Output:
        check_input(x, self.in_channels, "DnCNN")
        visit = Visit(taps, adapt)
        x = visit("input", x)
        return Output(x - self.model.walk(x, visit), visit.aux)
