"""Prompt-guided cross attention: the prompted feature chooses among the channels of the feature."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from ...errors import RecipeError, nearest
from ...guidance import Guidance
from ..blocks import GDFN, MDTA, LayerNorm2d, channel_attention, depthwise, temperatures
from .prompt import Prompt

RESIDUALS = ("paper", "fixed")


class PromptAttention(nn.Module):
    """W softmax(t Q K^T) V, Q of LN(Y), K and V of LN(X), over channels: Perceive-IR's PGCA.

    Zhang et al., arXiv 2408.15994. X is the feature, Y what its own prompt guidance module makes of
    it (`prompt`); Q, K and V are 1x1 and depthwise 3x3 convolutions. `paper` is the figure; the
    `release`, the published code, sends LN of this through one more attention of Restormer's. With
    `expansion` the gated feed-forward follows, which makes it the paper's whole enhanced block;
    without, that is left to the backbone's own blocks.

    An adapter must leave a trained backbone as it is, the published block does not: so the last
    layer of what is added (W, the release's second attention's, the feed-forward's) starts at zero,
    and Y starts as X.

    Attention is a sum over the feature of whatever it is shown, so the network is `global`: a tile
    weighs channels by the tile.

    Args:
        channels: C of the feature at the site.
        dims, reads, level: As in `Prompt`.
        heads: Groups of channels that attend among themselves; divides C.
        residual: What is added to: `paper` Y, the same for each block of a stage in the published
            network; `fixed` X, the feature itself, so that the prompt acts through attention alone.
        variant: `paper` or `release`, of the prompt as well.
        expansion: Of the feed-forward's channels, 2.66 in the paper; 0 leaves it out.
        bias: Whether the convolutions have one.

    Shape:
        feat (N, C, h, w), guides as in `Prompt` -> (N, C, h, w), any h, w.

    Raises:
        GuidanceError: As `Prompt`.
        RecipeError: `residual` or `variant` is none of the two.
        ShapeError: `heads` does not divide C.
    """

    support = "global"
    asks = ()

    def __init__(
        self,
        channels: int,
        dims: Sequence[int],
        *,
        reads: Sequence[str],
        level: int = 0,
        heads: int = 1,
        residual: Literal["paper", "fixed"] = "paper",
        variant: Literal["paper", "release"] = "paper",
        expansion: float = 0.0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if residual not in RESIDUALS:
            raise RecipeError(
                f"residual is {' or '.join(RESIDUALS)}, got {residual!r}."
                f"{nearest(str(residual), RESIDUALS)}"
            )
        c, self.reads, self.residual = channels, tuple(reads), residual
        self.prompt = Prompt(c, dims, reads=reads, level=level, variant=variant)
        self.norm_y, self.norm_x = LayerNorm2d(c), LayerNorm2d(c)
        self.temperature = temperatures(c, heads)
        self.query, self.key, self.value = (depthwise(c, c, bias) for _ in range(3))
        self.out = nn.Conv2d(c, c, 1, bias=bias)
        released = variant == "release"
        self.norm_again = LayerNorm2d(c) if released else None
        self.again = MDTA(c, heads, bias=bias) if released else None
        self.norm_feed = LayerNorm2d(c) if expansion else None
        self.feed = GDFN(c, expansion, bias=bias) if expansion else None
        _quiet(self.out if self.again is None else self.again.out)
        if self.feed is not None:
            _quiet(self.feed.out)

    def forward(self, feat: Tensor, guidance: Guidance) -> Tensor:
        y: Tensor = self.prompt(feat, guidance)
        seen = self.norm_x(feat)
        query, key, value = self.query(self.norm_y(y)), self.key(seen), self.value(seen)
        found = channel_attention(query, key, value, self.temperature, self.out)
        if self.norm_again is not None and self.again is not None:
            found = self.again(self.norm_again(found))
        x = (y if self.residual == "paper" else feat) + found.to(feat.dtype)
        if self.norm_feed is not None and self.feed is not None:
            x = x + self.feed(self.norm_feed(x)).to(feat.dtype)
        return x


def _quiet(conv: nn.Conv2d) -> None:
    """Zero, until it learns."""
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
