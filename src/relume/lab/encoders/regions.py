"""What can be said of each region of the picture: one token row a label, made once a picture."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...card import Reads
from ...errors import UsageError
from ...guidance import Guidance, Guide
from ..regions import drop_regions, region_sizes, region_tokens


class RegionMeans(nn.Module):
    """SAM-Deblur's MAP unit up to the means: a linear encoder, its mean over each region.

    Li et al., arXiv 2309.02270: the encoder is a 3x3 and a 1x1 convolution without activation, S
    features; everything dropped or uncovered shares one mean (row 0). `adapters.map` writes the
    means back.

    Args:
        features: S.
        dropout: Share of a picture's regions that lose their mean in training, an exact count.
        mask_scale: Weight of the region's own mean against the picture's. 1 is the paper's unit;
            1/255 is what the published code computes when its masks are booleans (control arm):
            masks / 255 leave 254/255 of every pixel to the shared remainder.
        reads: Name of the label maps in the guidance.

    Shape:
        view (N, 3, H, W), labels (N, H, W) -> tokens (N, rows, S).

    Raises:
        UsageError: `dropout` or `mask_scale` lies outside [0, 1].
    """

    prepared = True

    def __init__(
        self,
        *,
        features: int = 2,
        dropout: float = 0.5,
        mask_scale: float = 1.0,
        reads: str = "regions",
    ) -> None:
        super().__init__()
        if not (0 <= dropout <= 1 and 0 <= mask_scale <= 1):
            raise UsageError(
                f"region_means takes dropout and mask_scale in [0, 1], got {dropout} and "
                f"{mask_scale}."
            )
        self.dim, self.dropout, self.mask_scale = features, dropout, mask_scale
        self.regions = reads
        self.asks = (Reads(reads, "regions", 1, (0, 0)),)
        self.pre_seg = nn.Conv2d(3, features, 3, padding=1)
        self.pre_seg_in = nn.Conv2d(features, features, 1)

    def forward(self, view: Tensor, guidance: Guidance, rows: int | None = None) -> Guide:
        labels = guidance[self.regions].regions
        seen = self.pre_seg_in(self.pre_seg(view)).float()
        count = int(labels.max()) + 1 if rows is None else rows
        kept = labels
        if self.training and self.dropout:
            # As nn.Dropout: torch's own generator, which the loop seeds at each step.
            rng = torch.Generator().manual_seed(int(torch.randint(2**62, (1,))))
            kept = drop_regions(labels, self.dropout, rng)
        # Areas ride along as one more feature. A label that lost its pixels to row 0 reads row 0.
        tokens = region_tokens(torch.cat([seen, torch.ones_like(seen[:, :1])], 1), kept, count)
        means, present = tokens[..., :-1], tokens[..., -1:] > 0.5
        means = torch.where(present, means, means[:, :1])
        if self.mask_scale != 1:
            whole = seen.mean((2, 3))[:, None]
            means = self.mask_scale * means + (1 - self.mask_scale) * whole
        return Guide(tokens=means)


class RegionStatistics(nn.Module):
    """What a mean cannot say of a region: how it varies, which way its edges run, how large it is.

    Ours. Blur is region-wise motion, which leaves the mean as it was and shows in the gradients:
    along the motion they vanish. Per label: mean RGB (3), log-variance of the luma (1), log energy
    of the luma's gradient (1), its double-angle direction (2, from the structure tensor of Bigun
    and Granlund 1987, in [-1, 1]), log share of the picture (1).

    Args:
        dim: D of the tokens. 8 gives the statistics as they are; another number puts a perceptron
            of two layers behind them (SPT's set encoder: shared by all regions, so that their order
            cannot matter).
        reads: Name of the label maps in the guidance.

    Shape:
        view (N, 3, H, W) in [0, 1], labels (N, H, W) -> tokens (N, rows, D).
    """

    prepared = True
    STATISTICS = 8

    def __init__(self, *, dim: int = STATISTICS, reads: str = "regions") -> None:
        super().__init__()
        self.dim, self.regions = dim, reads
        self.asks = (Reads(reads, "regions", 1, (0, 0)),)
        self.head = (
            None
            if dim == self.STATISTICS
            else nn.Sequential(nn.Linear(self.STATISTICS, dim), nn.GELU(), nn.Linear(dim, dim))
        )

    def forward(self, view: Tensor, guidance: Guidance, rows: int | None = None) -> Guide:
        labels = guidance[self.regions].regions
        view = view.float()
        luma = 0.299 * view[:, :1] + 0.587 * view[:, 1:2] + 0.114 * view[:, 2:]
        padded = F.pad(luma, (1, 1, 1, 1), mode="replicate")
        dx = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
        dy = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
        # Centred on the picture's mean, so that the mean of squares does not cancel in float32.
        level = luma.mean((2, 3), keepdim=True)
        parts = torch.cat(
            [
                view,
                luma - level,
                (luma - level).square(),
                dx * dx + dy * dy,
                dx * dx - dy * dy,
                2 * dx * dy,
                torch.ones_like(luma),
            ],
            1,
        )
        count = int(labels.max()) + 1 if rows is None else rows
        mean = region_tokens(parts, labels, count)
        colour, first, second, energy, across, along, present = mean.split(
            [3, 1, 1, 1, 1, 1, 1], dim=2
        )
        variance = (second - first.square()).clamp(min=0)
        area = region_sizes(luma, labels, count)[:, 0] / (luma.shape[2] * luma.shape[3])
        statistics = torch.cat(
            [
                colour - 0.5,
                (variance + FLOOR).log() / LOG_FLOOR + 1,
                (energy + FLOOR).log() / LOG_FLOOR + 1,
                across / (energy + FLOOR),
                along / (energy + FLOOR),
                ((area + FLOOR).log() / LOG_FLOOR + 1)[..., None],
            ],
            2,
        )
        statistics = statistics * present.clamp(max=1)  # a label without pixels says nothing
        return Guide(tokens=statistics if self.head is None else self.head(statistics))


FLOOR = 1e-6  # a quarter of an 8-bit level, squared: below it a region is flat
LOG_FLOOR = -math.log(FLOOR)
