"""What was done to the picture and not what it shows, as one vector: Perceive-IR's CFE."""

import itertools
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import RecipeError, nearest
from ...guidance import Guidance, Guide

VARIANTS = ("paper", "release")


class DegradationEncoder(nn.Module):
    """Z, the content-free degradation code of Perceive-IR (Zhang et al., arXiv 2408.15994).

    That it is free of content is a contrastive objective's doing: another crop of the same damaged
    picture near, those with other damage far (cosines; only the release gives Z length 1). `paper`
    is the figure: residual blocks (3x3, LeakyReLU, 3x3, + skip), average pool, linear, LeakyReLU,
    linear. Its width and stride are not stated: a 3x3 of stride 2 leads in. `release` is
    the published code: four 3x3 of stride 2 with GELU, 3-32-64-96-128 channels, mean, linear, L2.

    The mean runs over the whole picture, once, so that all tiles are told the same; in training the
    crop is its own. A photograph at full size costs memory: in the `paper` form `width` numbers for
    each four pixels, some three times over. Where that is too much, `view_side` in a recipe's card
    bounds what is shown, at the price of its finest noise.

    Args:
        dim: D of the vector.
        variant: See above.
        width: Channels of the `paper` form.
        blocks: Residual blocks of the `paper` form.

    Raises:
        RecipeError: `variant` is neither.

    Shape:
        view (N, 3, H, W) in [0, 1] -> vector (N, D).
    """

    prepared = True
    asks = ()

    def __init__(
        self,
        *,
        dim: int = 128,
        variant: Literal["paper", "release"] = "paper",
        width: int = 32,
        blocks: int = 2,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise RecipeError(
                f"variant is {' or '.join(VARIANTS)}, got {variant!r}."
                f"{nearest(str(variant), VARIANTS)}"
            )
        self.dim, self.shape, self.variant = dim, (dim,), variant
        if variant == "paper":
            lead = nn.Conv2d(3, width, 3, stride=2, padding=1)
            self.features = nn.Sequential(lead, *(_Residual(width) for _ in range(blocks)))
            self.head = nn.Sequential(nn.Linear(width, dim), nn.LeakyReLU(0.1), nn.Linear(dim, dim))
        else:
            widths = (3, 32, 64, 96, 128)
            layers: list[nn.Module] = []
            for a, b in itertools.pairwise(widths):
                layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GELU()]
            self.features = nn.Sequential(*layers)
            self.head = nn.Sequential(nn.Linear(widths[-1], dim))

    def forward(self, view: Tensor, guidance: Guidance, rows: int | None = None) -> Guide:
        z = self.head(self.features(view - 0.5).float().mean((2, 3)))
        return Guide(vector=F.normalize(z.float(), dim=1) if self.variant == "release" else z)


class _Residual(nn.Module):
    """x + conv(LeakyReLU(conv(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)
