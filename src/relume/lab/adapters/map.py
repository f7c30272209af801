"""Region rows written back to the pixels: SAM-Deblur's MAP unit, at the input or at any stage."""

from torch import Tensor, nn

from ...errors import GuidanceError
from ...guidance import Guidance, Guide
from ..regions import gather_regions, labels_at


class Map(nn.Module):
    """Every pixel gets the row of its region, as channels beside the picture's.

    Li et al., arXiv 2309.02270: with the rows of `encoders.regions.RegionMeans` this is the MAP
    unit, sum over k of mean_k * mask_k on a partition, and I_input = concat(I_bm, I_MAP).

    Args:
        dim: D of the token rows, which is the number of channels that join.
        reads: Name of the token rows in the guidance.
        regions: Name of the label maps that the rows belong to.

    Shape:
        lq (N, 3, H, W), tokens (N, rows, D), labels (N, H, W) -> (N, D, H, W).

    Raises:
        GuidanceError: The guidance of that name is not token rows of D numbers.
    """

    support = "local"  # the rows are prepared on the whole picture, a tile only gathers them
    joins = True
    asks = ()

    def __init__(self, dim: int, *, reads: str, regions: str) -> None:
        super().__init__()
        self.channels, self.reads, self.regions = dim, (reads,), regions

    def forward(self, lq: Tensor, guidance: Guidance) -> Tensor:
        rows = token_rows(guidance, self.reads[0], self.channels, "map").tokens
        return gather_regions(rows.to(lq.dtype), guidance[self.regions].regions)


class RegionShift(nn.Module):
    """feat + W row: the rows of the regions added at a stage through one zero-initialised map.

    Ours: the MAP unit at every stage, with whatever the rows say. Additive with one zero at the end
    of the path: of two, neither would get a gradient.

    Args:
        channels: C of the feature at the site.
        dim: D of the token rows.
        stride: Picture pixels per sample of the feature.
        reads, regions: As in `Map`.

    Shape:
        feat (N, C, h, w), tokens (N, rows, D), labels (N, H, W) -> (N, C, h, w).

    Raises:
        GuidanceError: As `Map`.
    """

    support = "local"
    asks = ()

    def __init__(self, channels: int, dim: int, stride: int, *, reads: str, regions: str) -> None:
        super().__init__()
        self.reads, self.regions, self.dim, self.stride = (reads,), regions, dim, stride
        self.project = nn.Linear(dim, channels, bias=False)
        nn.init.zeros_(self.project.weight)

    def forward(self, feat: Tensor, guidance: Guidance) -> Tensor:
        rows = token_rows(guidance, self.reads[0], self.dim, "region_shift").tokens
        labels = labels_at(guidance[self.regions].regions, self.stride, feat.shape[-2:])
        return feat + gather_regions(self.project(rows).to(feat.dtype), labels)


def token_rows(guidance: Guidance, name: str, dim: int, who: str) -> Guide:
    """The guidance of that name, when it is token rows of `dim` numbers.

    Raises:
        GuidanceError: It is something else.
    """
    guide = guidance[name]
    if guide.kind != "tokens" or guide.channels != dim:
        raise GuidanceError(
            f"{who} reads {name!r} as token rows of {dim}, got {guide.kind} "
            f"{tuple(guide.array.shape)}. Give it an encoder of regions."
        )
    return guide
