"""A small network that turns the thumbnail of the whole picture into one vector."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...card import Reads
from ...errors import RecipeError
from ...guidance import Guidance, Guide
from ...priors.thumbnail import SIDE


class ThumbnailEncoder(nn.Module):
    """Four strided convolutions, mean and deviation over what is left, one linear layer.

    Haze and darkness are global: a crop of grey wall cannot tell whether it is grey because of fog.
    The deviation stands beside the mean because haze shows as lost contrast. Once trained it takes
    the mean over the eight turns and mirrors of the thumbnail: light and haze know no orientation,
    while what was learnt by heart of single photographs does.

    An undamaged picture of a kind that training never showed is an odd vector too, and would be
    mended. With `doubt`, what lies no further from the usual vector than undamaged photographs do
    is taken for usual: v becomes u + (v - u) q / (1 + q), q = (|v - u| / (doubt s))^6, with the
    mean u and the root mean squared distance s of undamaged training photographs (`settle`).

    Args:
        dim: D of the vector.
        width: Channels of the first convolution.
        doubt: The distance, in s, at which half is believed; 0 believes all. Training believes all.
        settled: It learns no more and doubts in training too, as measured in the run that training
            begins with: the rest of the network learns to read what it will be told at use.
        reads: Name of the thumbnail in the guidance; "" looks at the picture it is given itself, at
            half its size: for networks that judge crops, each as it is.

    Raises:
        RecipeError: `doubt` is no such number.

    Shape:
        guidance[reads].maps (N, 3, 96, 96) in [0, 1] -> vector (N, D).
    """

    prepared = False

    usual: Tensor
    spread: Tensor

    def __init__(
        self,
        *,
        dim: int = 64,
        width: int = 16,
        doubt: float = 0.0,
        settled: bool = False,
        reads: str = "thumbnail",
    ) -> None:
        super().__init__()
        if isinstance(doubt, bool) or not isinstance(doubt, int | float) or not doubt >= 0:
            raise RecipeError(f"doubt is a number from 0 on, got {doubt!r}.")
        if doubt and not reads:
            raise RecipeError("doubt is of thumbnails: where none is read, leave it out.")
        self.dim, self.doubt, self.settled = dim, doubt, settled
        if doubt:
            self.register_buffer("usual", torch.zeros(dim))
            self.register_buffer("spread", torch.zeros(1))  # 0: all is believed
        asked = Reads(reads, "maps", 3, (3, SIDE, SIDE), whole=True)
        self.asks: tuple[Reads, ...] = (asked,) if reads else ()
        widths = (3, width, 2 * width, 3 * width, 4 * width)
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GELU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(2 * widths[-1], dim), nn.GELU(), nn.Linear(dim, dim))
        self.requires_grad_(not settled)

    def forward(self, lq: Tensor, guidance: Guidance) -> Guide:
        reads = self.asks
        small = guidance[reads[0].prior].maps if reads else F.avg_pool2d(lq, 2, ceil_mode=True)
        small = small - 0.5
        if self.training and not self.settled:
            return Guide(vector=self._vector(small))
        vector = self._turned(small)
        return Guide(vector=self._believed(vector) if self.doubt else vector)

    @torch.no_grad()
    def settle(self, known: Guidance) -> None:
        """Measure, once trained, what undamaged photographs make of the vector: what is usual.

        Args:
            known: Their thumbnails, (N, 3, 96, 96).
        """
        vectors = self._turned(known[self.asks[0].prior].maps - 0.5)
        self.usual.copy_(vectors.mean(0))
        self.spread.copy_((vectors - self.usual).square().sum(1).mean().sqrt())

    def _believed(self, vector: Tensor) -> Tensor:
        apart = vector - self.usual
        far = apart.square().sum(1, keepdim=True)
        share = far / (far + (self.doubt * self.spread).square() + 1e-30)
        sure, unsure = share**3, (1 - share) ** 3
        return self.usual + apart * (sure / (sure + unsure))

    def _turned(self, small: Tensor) -> Tensor:
        half = torch.cat([small, small.flip(-1), small.flip(-2), small.flip(-2, -1)])
        # Apart: a picture that is no square has another shape when it lies on its side.
        turned = torch.cat([self._vector(half), self._vector(half.transpose(-2, -1))])
        return turned.unflatten(0, (8, -1)).mean(0)

    def _vector(self, small: Tensor) -> Tensor:
        y: Tensor = self.features(small)
        mean = y.mean((2, 3), keepdim=True)
        # The square root of a variance has no gradient at 0: a flat thumbnail must not make a NaN.
        deviation = ((y - mean).square().mean((2, 3)) + 1e-6).sqrt()
        return self.head(torch.cat([mean.flatten(1), deviation], 1))
