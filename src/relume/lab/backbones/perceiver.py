"""How good a picture looks, and what a restorer would leave wrong: four numbers of each crop."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import RecipeError
from ...priors.quality import JUDGED, TIERS
from .masknet import RESIDUALS, folded_sites, open_blocks, residuals
from .nafnet import NAFNet
from .sites import Adapt, Output, check_input

SCALE = 10.0
MOST_SCALE = 100.0


class Perceiver(nn.Module):
    """An encoder of crops at their own resolution, held against an embedding of each tier.

    Ours, in the form of Perceive-IR's first stage (Zhang et al., arXiv 2408.15994), which holds
    CLIP's embedding of a picture against those of three learnt prompts: logits are cosines times a
    learnt scale, at most 100 as in CLIP (Radford et al., arXiv 2103.00020, 2.3). CLIP looks at 224
    pixels of a whole picture, in which noise and the squares of JPEG are lost; this looks at the
    pixels themselves, and at `residuals` beside them.

    Its trunk is that of a mask network (`MaskNet`) and may begin with the trunk of one that was
    trained: whoever can say where a picture is damaged has seen what it is damaged by. Of what goes
    in and of the feature at every site the mean and the standard deviation over the crop are taken:
    what damage does is a texture, and has no place in a crop (`Standard`).

    Args:
        fold, width, enc_blocks, middle_blocks, dec_blocks: As in MaskNet.
        dim: Length of the embedding.
        dropout: Share of the statistics that are left out in training.

    Sites: MaskNet's.

    Shape:
        (N, 3, H, W) in [0, 1] -> Output.image (N, 4), in the order of `vector`: probabilities of
        the tiers and the difficulty, in [0, 1] (`priors.quality`); logits of them while it is
        trained. Any H, W >= 1.

    Raises:
        RecipeError: A fold that is none.
        ShapeError: Encoder and decoder differ in levels.
    """

    scale = 1
    inputs: tuple[str, ...] = ()
    in_channels = 3
    vector = JUDGED
    reach = None

    def __init__(
        self,
        *,
        fold: int = 4,
        width: int = 40,
        enc_blocks: Sequence[int] = (1, 1),
        middle_blocks: int = 3,
        dec_blocks: Sequence[int] = (1, 1),
        dim: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if fold < 1:
            raise RecipeError(f"perceiver needs a fold of 1 or more, got {fold}.")
        self.fold = fold
        self.trunk = NAFNet(
            width=width,
            enc_blocks=enc_blocks,
            middle_blocks=middle_blocks,
            dec_blocks=dec_blocks,
            attention="none",
            in_channels=(3 + RESIDUALS) * fold**2,
            out_channels=0,
            residual=False,
        )
        open_blocks(self.trunk)
        self.multiple_of = self.trunk.multiple_of * fold
        self.sites = folded_sites(self.trunk, fold)
        told = 2 * (sum(site.channels for site in self.sites.values()) + 3 + RESIDUALS)
        self.standard = Standard(told)
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(told, dim)
        self.embed = nn.Linear(dim, dim)
        self.tiers = nn.Parameter(torch.randn(len(TIERS), dim))
        self.log_scale = nn.Parameter(torch.tensor([SCALE]).log())
        self.difficulty = nn.Linear(dim, 1)

    def forward(self, x: Tensor, taps: Sequence[str] = (), adapt: Adapt | None = None) -> Output:
        check_input(x, self.in_channels, "Perceiver")
        height, width = x.shape[-2:]
        x = F.pad(
            x, (0, -width % self.multiple_of, 0, -height % self.multiple_of), mode="replicate"
        )
        # Centred: a logit near 0 at the start, whatever the picture's brightness.
        seen = torch.cat([x - 0.5, residuals(x)], 1)
        found = self.trunk(F.pixel_unshuffle(seen, self.fold), tuple(self.sites), adapt).aux
        said = [*statistics(seen), *(s for site in self.sites for s in statistics(found[site]))]
        rows = self.standard(torch.cat(said, 1).float())
        hidden = self.dropout(F.gelu(self.hidden(self.dropout(rows))))
        cosines = _unit(self.embed(hidden).float()) @ _unit(self.tiers).T
        logits = cosines * self.log_scale.exp().clamp_max(MOST_SCALE)
        difficulty = self.difficulty(hidden).float()
        if not self.training:
            logits, difficulty = logits.softmax(1), difficulty.sigmoid()
        return Output(torch.cat([logits, difficulty], 1), {site: found[site] for site in taps})


HALF = 65504.0
"""The largest number of half precision."""


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
                # Finished weights are halves: what varies more is told a little louder at use.
                self.variance.lerp_(variance, self.momentum).clamp_(max=HALF)
        return (rows - mean) / (variance + 1e-5).sqrt()


def statistics(feature: Tensor) -> list[Tensor]:
    """Mean over the crop, and logarithm of the standard deviation: (N, C, h, w) -> (N, C) twice."""
    mean = feature.mean((2, 3), keepdim=True)
    spread = (feature - mean).square().mean((2, 3)) + 1e-6
    return [mean.flatten(1), spread.log() / 2]


def _unit(rows: Tensor) -> Tensor:
    """Rows of length 1."""
    return rows / (rows.square().sum(1, keepdim=True) + 1e-12).sqrt()
