"""What the picture shows, at four depths of a small network of ours: tokens without a download."""

import itertools

import torch
from torch import Tensor, nn

from ...card import Reads
from ...guidance import Guidance, Guide
from ...priors.thumbnail import SIDE


class Semantics(nn.Module):
    """Four strided convolutions on the thumbnail; after each, its mean is one token.

    Ours, in the place of DINOv2's CLS tokens at four depths (`dino`), which Perceive-IR's semantic
    guidance module reads: shallow tokens first. The thumbnail shows the whole picture, in training
    too, so that a tile, a crop and the picture are told the same.

    Args:
        dim: D of the tokens.
        width: Channels of the first convolution.
        frozen: It learns nothing: as drawn, a projection at random; with `start`, what was learnt.
        reads: Name of the thumbnail in the guidance.

    Shape:
        guidance[reads].maps (N, 3, 96, 96) in [0, 1] -> tokens (N, 4, D).
    """

    prepared = False
    LEVELS = 4

    def __init__(
        self, *, dim: int = 64, width: int = 16, frozen: bool = False, reads: str = "thumbnail"
    ) -> None:
        super().__init__()
        self.dim, self.shape = dim, (self.LEVELS, dim)
        self.asks = (Reads(reads, "maps", 3, (3, SIDE, SIDE), whole=True),)
        widths = (3, *(width * i for i in range(1, self.LEVELS + 1)))
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GELU())
            for a, b in itertools.pairwise(widths)
        )
        self.heads = nn.ModuleList(nn.Linear(b, dim) for b in widths[1:])
        self.requires_grad_(not frozen)

    def forward(self, lq: Tensor, guidance: Guidance) -> Guide:
        y = guidance[self.asks[0].prior].maps - 0.5
        tokens: list[Tensor] = []
        for level, head in zip(self.levels, self.heads, strict=True):
            y = level(y)
            tokens.append(head(y.mean((2, 3))))
        return Guide(tokens=torch.stack(tokens, 1))
