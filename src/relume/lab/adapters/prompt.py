"""Prompt guidance: what the picture shows and what was done to it, as a shift of each channel."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...errors import GuidanceError, RecipeError, nearest
from ...guidance import Guidance

VARIANTS = ("paper", "release")


class Prompt(nn.Module):
    """Y = X gamma + beta, read from [F_l; Z]: Perceive-IR's prompt guidance module (PGM).

    Zhang et al., arXiv 2408.15994. F_l is one level of the semantic tokens, Z the degradation code.
    `paper` is the figure: two parallel branches, linear then 1x1 convolution; they start at gamma =
    1 and beta = 0. `release` is the published code: one perceptron (linear, GELU, linear), X (1 +
    gamma) + beta, both at 0. Either way the feature passes unchanged until something is learnt.

    Args:
        channels: C of the feature at the site.
        dims: D of each guide that it reads.
        reads: Names of the guides, which are joined in this order: vectors, and token rows of which
            it reads one.
        level: Which row of tokens, shallow first. A guide of one row alone, as the null of a prior
            has it, says that row at every level.
        variant: See above.

    Shape:
        feat (N, C, h, w), vectors (N, D), tokens (N, T, D) -> (N, C, h, w).

    Raises:
        GuidanceError: A guide is neither a vector nor token rows of its D numbers, or has no such
            level.
        RecipeError: `variant` is neither, or there are not as many `dims` as `reads`.
    """

    support = "local"
    asks = ()

    def __init__(
        self,
        channels: int,
        dims: Sequence[int],
        *,
        reads: Sequence[str],
        level: int = 0,
        variant: Literal["paper", "release"] = "paper",
    ) -> None:
        super().__init__()
        check_variant(variant)
        if len(dims) != len(reads):
            raise RecipeError(
                f"prompt needs one of dims for each of reads, got {len(dims)} and {len(reads)}."
            )
        self.reads, self.dims, self.level = tuple(reads), tuple(dims), level
        c, told = channels, sum(dims)
        if variant == "paper":
            self.gamma = nn.Sequential(nn.Linear(told, c), nn.Unflatten(1, (c, 1, 1)), _point(c, 1))
            self.beta = nn.Sequential(nn.Linear(told, c), nn.Unflatten(1, (c, 1, 1)), _point(c, 0))
        else:
            self.both = nn.Sequential(nn.Linear(told, 2 * c), nn.GELU(), nn.Linear(2 * c, 2 * c))
            nn.init.zeros_(self.both[2].weight)  # type: ignore[arg-type]
            nn.init.zeros_(self.both[2].bias)  # type: ignore[arg-type]
        self.variant = variant

    def forward(self, feat: Tensor, guidance: Guidance) -> Tensor:
        told = torch.cat([self._told(guidance, *which) for which in enumerate(self.reads)], 1)
        if self.variant == "paper":
            return feat * self.gamma(told).to(feat.dtype) + self.beta(told).to(feat.dtype)
        gamma, beta = self.both(told)[..., None, None].to(feat.dtype).chunk(2, dim=1)
        return feat * (1 + gamma) + beta

    def _told(self, guidance: Guidance, index: int, name: str) -> Tensor:
        guide, dim = guidance[name], self.dims[index]
        if guide.kind == "vector" and guide.channels == dim:
            return guide.vector
        if guide.kind == "tokens" and guide.channels == dim:
            rows = guide.tokens.shape[1]
            if rows == 1 or self.level < rows:
                return guide.tokens[:, 0 if rows == 1 else self.level]
        raise GuidanceError(
            f"prompt reads {name!r} as a vector or row {self.level} of tokens, of {dim} numbers, "
            f"got {guide.kind} {tuple(guide.array.shape)}. Give it an encoder that emits such."
        )


def check_variant(variant: Any) -> None:
    """Refuse what is neither the paper's figures nor the published code.

    Raises:
        RecipeError: It is neither; the message names the nearest.
    """
    if variant not in VARIANTS:
        raise RecipeError(
            f"variant is {' or '.join(VARIANTS)}, got {variant!r}.{nearest(str(variant), VARIANTS)}"
        )


def _point(channels: int, start: float) -> nn.Conv2d:
    """A 1x1 convolution that says `start` whatever it is told."""
    conv = nn.Conv2d(channels, channels, 1)
    assert conv.bias is not None
    nn.init.zeros_(conv.weight)
    nn.init.constant_(conv.bias, start)
    return conv
