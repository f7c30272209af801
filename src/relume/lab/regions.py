"""Label maps as tensors: the mean of a feature over each region, and what follows from it.

A label map is (N, h, w) int: 0 is shared by everything dropped, uncovered or padding, the regions
proper count from 1 (`relume.priors.regions` makes them). Mean over regions and write-back is the
MAP unit of SAM-Deblur (arXiv 2309.02270) on a partition: sum over k of mean_k * mask_k, with one
mean for all that no mask covers. Its cost here does not depend on the number of regions.

All functions are batched and free of Python loops; those that take `count` go through
`torch.onnx.export(dynamo=True)` with free sizes, where `count` may be the size of another input.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ShapeError, UsageError


def region_mean(f: Tensor, labels: Tensor, count: int | None = None) -> Tensor:
    """Every pixel gets the mean of `f` over its region. Differentiable in `f`.

    Args:
        f: (N, C, H, W) floating point. Half precisions are summed in float32.
        labels: (N, H, W) int, 0 <= labels < count; the pixels of label 0 share one mean too.
        count: Labels there may be, 0 included. Left out, it is read from `labels`, which an
            exported graph cannot do: pass it there.

    Returns:
        (N, C, H, W) in the type of `f`, within 2e-6 of sums in float64 for pictures in [0, 1].

    Raises:
        ShapeError: Shapes do not fit, or a label lies outside [0, count). Not checked in a graph:
            there -1 would wrap silently, so callers check labels before a run.
    """
    count = _check(f, labels, count)
    return gather_regions(_means(f, labels, count), labels).to(f.dtype)


def region_variance(f: Tensor, labels: Tensor, count: int | None = None) -> Tensor:
    """Every pixel gets the (population) variance of `f` over its region: (N, C, H, W).

    Arguments and errors are `region_mean`'s. Taken from the residual, not as mean of squares minus
    square of mean, which cancels to noise in a flat sky.
    """
    count = _check(f, labels, count)
    residual = f - region_mean(f, labels, count)
    return region_mean(residual.square(), labels, count)


def region_log_variance(
    f: Tensor, labels: Tensor, count: int | None = None, *, floor: float = 1e-6
) -> Tensor:
    """log(variance + floor) per region, written back: (N, C, H, W).

    Args:
        floor: Variance below which regions count as flat; 1e-6 is a quarter of an 8-bit level
            squared, so a region of one pixel gives log(floor), not minus infinity.
    """
    return (region_variance(f, labels, count) + floor).log()


def region_tokens(f: Tensor, labels: Tensor, count: int | None = None) -> Tensor:
    """One row per label: (N, count, C), row r the mean of `f` over label r.

    Row 0 is the shared mean of label 0; a label without pixels has a zero row. Arguments and errors
    are `region_mean`'s. Tokens of a whole picture serve all its tiles through `gather_regions`.
    """
    return _means(f, labels, _check(f, labels, count)).to(f.dtype)


def region_sizes(f: Tensor, labels: Tensor, count: int) -> Tensor:
    """Pixels of each label: (N, C, H, W) and (N, H, W) -> (N, 1, count), in the type of `f`.

    Sizes are read off `f`: in a graph those of the labels are other symbols, and runtimes do not
    join what was made from both.
    """
    n, _, height, _ = f.shape
    index = labels.long()[:, None]
    area = f.new_zeros(n, 1, height, count)
    return area.scatter_add_(3, index, f.new_ones(1).expand(index.shape)).sum(2)


def gather_regions(tokens: Tensor, labels: Tensor) -> Tensor:
    """Write token rows back by label: (N, L, C) and (N, H, W) -> (N, C, H, W), channels last.

    Raises:
        ShapeError: A label has no row.
    """
    n, rows, channels = tokens.shape
    _check_range(labels, rows)
    # 32-bit indices and one flat table: the index of a gather would be the largest tensor here.
    offsets = rows * torch.arange(n, device=labels.device, dtype=labels.dtype)
    index = labels if n == 1 else labels + offsets[:, None, None]
    out = tokens.reshape(n * rows, channels).index_select(0, index.reshape(-1))
    return out.reshape(*labels.shape, channels).permute(0, 3, 1, 2)


def labels_at(labels: Tensor, stride: int, size: Sequence[int]) -> Tensor:
    """Labels on the grid of a feature: (N, H, W) -> (N, *size), the label at each cell's centre.

    Args:
        stride: Label pixels per sample of the feature.
        size: (h, w) of the feature. Where it reaches beyond the labels (a backbone padded the
            picture to its multiple), the last row and column go on. Never so in a graph, whose
            tiles are multiples.
    """
    grid = labels[:, stride // 2 :: stride, stride // 2 :: stride] if stride > 1 else labels
    if torch.compiler.is_exporting() or grid.shape[1:] == tuple(size):
        return grid
    rows, columns = (
        torch.arange(want, device=labels.device).mul(stride).add(stride // 2).clamp(max=have - 1)
        for want, have in zip(size, labels.shape[1:], strict=True)
    )
    return labels[:, rows[:, None], columns]


def drop_regions(labels: Tensor, p: float, rng: torch.Generator) -> Tensor:
    """Mask dropout as relabelling: in each picture floor(p K) of its K regions become label 0.

    The count is exact and the regions are drawn without replacement, as in SAM-Deblur; the
    background is a region like any other, so what is dropped shares one mean with what no mask
    covered. A picture of one region keeps it at every p < 1.

    Args:
        labels: (N, H, W) int, >= 0. Not changed.
        p: Share to drop, in [0, 1].
        rng: Where the draw comes from, on its own device: a seed gives the same regions anywhere.

    Returns:
        (N, H, W), a new tensor of the same type.

    Raises:
        UsageError: `p` lies outside [0, 1].
        ShapeError: `labels` is not (N, H, W) int, or negative somewhere.
    """
    if not 0 <= p <= 1:
        raise UsageError(f"drop_regions drops a share p in [0, 1] of the regions, got {p}.")
    count = _check_labels(labels, None)
    n = labels.shape[0]
    flat = labels.reshape(n, -1).long()
    present = torch.zeros(n, count, dtype=torch.bool, device=labels.device)
    present.scatter_(1, flat, torch.ones_like(flat, dtype=torch.bool))
    present[:, 0] = False
    drawn = torch.rand(n, count, generator=rng, device=rng.device).to(labels.device)
    rank = drawn.masked_fill(~present, 2.0).argsort(1).argsort(1)
    # In float64, and with a hair to spare: 0.29 * 100 is 28.999999999999996.
    dropped = (p * present.sum(1).double() + 1e-9).floor()
    names = torch.arange(count, device=labels.device, dtype=labels.dtype).expand(n, -1)
    return names.masked_fill(rank < dropped[:, None], 0).gather(1, flat).reshape(labels.shape)


def _means(f: Tensor, labels: Tensor, count: int) -> Tensor:
    """(N, count, C) in float32, or float64 for float64; 0 where a label has no pixel."""
    n, channels, height, _ = f.shape
    wide = f if f.dtype == torch.float64 else f.float()
    index = labels.long()[:, None]  # (N, 1, H, W)
    # Row by row, then over the rows: long float32 sums drift to 1e-5 at a megapixel, these do not,
    # and unlike float64 they are the same in every engine.
    sums = wide.new_zeros(n, channels, height, count)
    sums = sums.scatter_add_(3, index.expand(-1, channels, -1, -1), wide).sum(2)
    area = region_sizes(wide, labels, count)
    # Contiguous rows: gathering from a transposed table takes ten times as long.
    return (sums / area.clamp(min=1)).transpose(1, 2).contiguous()


def _check(f: Tensor, labels: Tensor, count: int | None) -> int:
    """Shapes and range; returns the count."""
    if f.ndim != 4 or not f.is_floating_point():
        raise ShapeError(f"f must be (N, C, H, W) floating point, got {tuple(f.shape)} {f.dtype}.")
    wanted = (f.shape[0], *f.shape[2:])
    if labels.ndim == 3 and not torch.compiler.is_exporting() and wanted != tuple(labels.shape):
        raise ShapeError(
            f"labels must have the batch and size of f, {wanted}, got {tuple(labels.shape)}. "
            "Resize the Guide to the feature's grid first."
        )
    return _check_labels(labels, count)


def _check_labels(labels: Tensor, count: int | None) -> int:
    if labels.ndim != 3 or labels.dtype not in (torch.int32, torch.int64):
        raise ShapeError(
            f"labels must be (N, H, W) int32 or int64, got {tuple(labels.shape)} {labels.dtype}."
        )
    if count is None:
        count = int(labels.max()) + 1 if labels.numel() else 1
    _check_range(labels, count)
    return count


def _check_range(labels: Tensor, count: int) -> None:
    if torch.compiler.is_exporting() or not labels.numel():
        return
    low, high = (int(v) for v in labels.aminmax())
    if low < 0 or high >= count:
        raise ShapeError(
            f"labels must lie in 0..{count - 1}, got {low}..{high}. 0 is for dropped, uncovered "
            "or padded pixels; a larger count leaves room for more."
        )
