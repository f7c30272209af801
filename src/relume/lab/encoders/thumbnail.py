"""A small network that turns the thumbnail of the whole picture into one vector."""

import itertools

import torch
from torch import Tensor, nn

from ...card import Reads
from ...guidance import Guidance, Guide
from ...priors.thumbnail import SIDE


class ThumbnailEncoder(nn.Module):
    """Four strided convolutions, mean and deviation over what is left, one linear layer.

    Haze and darkness are global: a crop of grey wall cannot tell whether it is grey because of fog.
    The deviation stands beside the mean because haze shows as lost contrast. Once trained it takes
    the mean over the eight turns and mirrors of the thumbnail: light and haze know no orientation,
    while what was learnt by heart of single photographs does.

    Args:
        dim: D of the vector.
        width: Channels of the first convolution.
        reads: Name of the thumbnail in the guidance.

    Shape:
        guidance[reads].maps (N, 3, 96, 96) in [0, 1] -> vector (N, D).
    """

    prepared = False

    def __init__(self, *, dim: int = 64, width: int = 16, reads: str = "thumbnail") -> None:
        super().__init__()
        self.dim = dim
        self.asks = (Reads(reads, "maps", 3, (3, SIDE, SIDE), whole=True),)
        widths = (3, width, 2 * width, 3 * width, 4 * width)
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GELU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(2 * widths[-1], dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(self, lq: Tensor, guidance: Guidance) -> Guide:
        small = guidance[self.asks[0].prior].maps - 0.5
        if self.training:
            return Guide(vector=self._vector(small))
        half = torch.cat([small, small.flip(-1), small.flip(-2), small.flip(-2, -1)])
        turned = torch.cat([half, half.transpose(-2, -1)])
        return Guide(vector=self._vector(turned).unflatten(0, (8, -1)).mean(0))

    def _vector(self, small: Tensor) -> Tensor:
        y: Tensor = self.features(small)
        mean = y.mean((2, 3), keepdim=True)
        # The square root of a variance has no gradient at 0: a flat thumbnail must not make a NaN.
        deviation = ((y - mean).square().mean((2, 3)) + 1e-6).sqrt()
        return self.head(torch.cat([mean.flatten(1), deviation], 1))
