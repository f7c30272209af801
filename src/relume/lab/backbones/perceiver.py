"""How good a picture looks, and what a restorer would leave wrong: four numbers of each crop."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import RecipeError
from ...priors.quality import JUDGED, TIERS
from .masknet import RESIDUALS, residuals
from .nafnet import NAFBlock
from .sites import Adapt, Output, Site, Visit, check_input

SCALE = 10.0
MOST_SCALE = 100.0


class Perceiver(nn.Module):
    """An encoder of crops at their own resolution, held against an embedding of each tier.

    Ours, in the form of Perceive-IR's first stage (Zhang et al., arXiv 2408.15994), which holds
    CLIP's embedding of a picture against those of three learnt prompts: logits are cosines times a
    learnt scale, at most 100 as in CLIP (Radford et al., arXiv 2103.00020, 2.3). CLIP looks at 224
    pixels of a whole picture, in which noise and the squares of JPEG are lost; this looks at the
    pixels themselves, and at `residuals` beside them.

    Blocks are NAFNet's without attention and begin open, as MaskNet's do. Of what goes in and of
    every level the mean and the standard deviation over the crop are taken: what damage does is a
    texture, and has no place in a crop (`Standard`).

    Args:
        width: Channels of the first level; they double with each.
        blocks: Blocks of each level.
        dim: Length of the embedding.
        fold: Side of the squares of pixels that become one sample before the first level.

    Sites: `intro`, `level.L`, with L the level: stride fold 2**L.

    Shape:
        (N, 3, H, W) in [0, 1] -> Output.image (N, 4), in the order of `vector`: probabilities of
        the tiers and the difficulty, in [0, 1] (`priors.quality`); logits of them while it is
        trained. Any H, W >= 1.

    Raises:
        RecipeError: It has no level, or a fold that is none.
    """

    scale = 1
    inputs: tuple[str, ...] = ()
    in_channels = 3
    vector = JUDGED
    reach = None

    def __init__(
        self, *, width: int = 16, blocks: Sequence[int] = (1, 1, 2), dim: int = 64, fold: int = 2
    ) -> None:
        super().__init__()
        if not blocks or fold < 1:
            raise RecipeError(f"perceiver needs levels and a fold of 1 or more, got {fold}.")
        self.fold = fold
        self.multiple_of = fold << (len(blocks) - 1)
        widths = [width << level for level in range(len(blocks))]
        self.intro = nn.Conv2d((3 + RESIDUALS) * fold**2, width, 3, padding=1)
        self.levels = nn.ModuleList(
            nn.Sequential(*(NAFBlock(c, "none") for _ in range(n)))
            for n, c in zip(blocks, widths, strict=True)
        )
        self.downs = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, stride=2) for c in widths[:-1])
        told = 2 * (sum(widths) + 3 + RESIDUALS)
        self.standard = Standard(told)
        self.hidden = nn.Linear(told, 2 * dim)
        self.embed = nn.Linear(2 * dim, dim)
        self.tiers = nn.Parameter(torch.randn(len(TIERS), dim))
        self.log_scale = nn.Parameter(torch.tensor([SCALE]).log())
        self.difficulty = nn.Linear(2 * dim, 1)
        for name, scale in self.named_parameters():
            if name.endswith((".beta", ".gamma")):
                nn.init.constant_(scale, 0.5)
        self.sites = {
            "intro": Site(width, fold),
            **{f"level.{i}": Site(c, fold << i) for i, c in enumerate(widths)},
        }

    def forward(self, x: Tensor, taps: Sequence[str] = (), adapt: Adapt | None = None) -> Output:
        check_input(x, self.in_channels, "Perceiver")
        visit = Visit(taps, adapt)
        height, width = x.shape[-2:]
        x = F.pad(
            x, (0, -width % self.multiple_of, 0, -height % self.multiple_of), mode="replicate"
        )
        # Centred: a logit near 0 at the start, whatever the picture's brightness.
        seen = torch.cat([x - 0.5, residuals(x)], 1)
        y = visit("intro", self.intro(F.pixel_unshuffle(seen, self.fold)))
        said = statistics(seen)
        for level, blocks in enumerate(self.levels):
            y = visit(f"level.{level}", blocks(self.downs[level - 1](y) if level else y))
            said += statistics(y)
        hidden = F.gelu(self.hidden(self.standard(torch.cat(said, 1).float())))
        cosines = _unit(self.embed(hidden).float()) @ _unit(self.tiers).T
        logits = cosines * self.log_scale.exp().clamp_max(MOST_SCALE)
        difficulty = self.difficulty(hidden).float()
        if not self.training:
            logits, difficulty = logits.softmax(1), difficulty.sigmoid()
        return Output(torch.cat([logits, difficulty], 1), visit.aux)


class Standard(nn.Module):
    """Rows with mean 0 and deviation 1 in each column: over the batch while it is trained, and by
    the running figures of training at use (Ioffe and Szegedy, arXiv 1502.03167).

    Raw, the statistics of crops differ between tiers by less than a tenth of what they differ from
    0, and all embeddings point one way: nothing was learnt in 250 steps. torch's own layer counts
    its batches in whole numbers, which no graph holds.

    Shape:
        (N, C) -> (N, C); N >= 2 in training.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, columns: int, momentum: float = 0.02) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("variance", torch.ones(columns))

    def forward(self, rows: Tensor) -> Tensor:
        mean, variance = self.mean, self.variance
        if self.training:
            mean, variance = rows.mean(0), rows.var(0, correction=0)
            with torch.no_grad():
                self.mean.lerp_(mean, self.momentum)
                self.variance.lerp_(variance, self.momentum)
        return (rows - mean) / (variance + 1e-5).sqrt()


def statistics(feature: Tensor) -> list[Tensor]:
    """Mean over the crop, and logarithm of the standard deviation: (N, C, h, w) -> (N, C) twice."""
    mean = feature.mean((2, 3), keepdim=True)
    spread = (feature - mean).square().mean((2, 3)) + 1e-6
    return [mean.flatten(1), spread.log() / 2]


def _unit(rows: Tensor) -> Tensor:
    """Rows of length 1."""
    return rows / (rows.square().sum(1, keepdim=True) + 1e-12).sqrt()
