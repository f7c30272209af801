"""What tile plans need to know of a network: how far it looks, and what tiles have to share."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable
from typing import cast

import numpy as np
import torch
from torch import nn

from ..card import Card, Reads
from ..engine import feeds, guide_of
from ..errors import CheckError, UsageError
from ..guidance import Guidance, Guide
from ..tiling import Plan, plan
from .restorer import as_tensors, prepared_by

SEAM = 0.5 / 255  # what tiles of a local network may differ from the whole picture
SEVERITY_SEAM = 0.01  # the same of a mask network, whose maps are told in hundredths
RATIO = 1.02  # what steps across the seams of any other may be, in those of the whole picture
FURTHEST = 64  # pixels that its tiles may share before they are given up


def measure_reach(restorer: nn.Module, *, seed: int = 0) -> int:
    """How far an output pixel looks, by gradients: the largest distance, in pixels, of an input
    that moves it. Weights are drawn anew in float64, so that an untrained zero hides nothing.

    Raises:
        CheckError: It looks further than the picture used here is wide, or everywhere.
    """
    rng = torch.Generator().manual_seed(seed)
    network = copy.deepcopy(restorer).double().eval()
    for parameter in network.parameters():
        deviation = 1 / math.sqrt(max(1, parameter[0].numel() if parameter.ndim > 1 else 1))
        parameter.data.normal_(0, deviation, generator=rng)
    m, claimed = cast(int, network.multiple_of), cast(int | None, network.reach)
    if claimed is None:
        raise CheckError("The network says it looks at the whole picture.")
    side = m * -(-2 * (claimed + m) // m) + 2 * m
    # What is prepared is the same at every tile: it stands outside the reach.
    reads = (*cast(Iterable[Reads], network.reads), *prepared_by(network))
    card = Card("measured", multiple_of=m, reads=reads)
    nulls = feeds(card, np.zeros((1, 3, side, side), np.float32), Guidance())
    guides: dict[str, Guide] = {}
    for entry in reads:
        array = nulls[entry.prior]
        guide = guide_of(entry, torch.from_numpy(array))
        guides[entry.prior] = (
            guide.map(lambda t: t.double()) if array.dtype == np.float32 else guide
        )
    lq = torch.rand((1, 3, side, side), generator=rng, dtype=torch.float64, requires_grad=True)
    out = network(lq, Guidance(guides))
    scale, reach = cast(int, network.scale), 0
    for phase in range(m):  # how far depends on where the pixel lies on the strided grids
        at = side // 2 // m * m + phase
        row = out[..., at * scale, at * scale].sum()
        (slope,) = torch.autograd.grad(row, lq, retain_graph=True)
        moved = slope[0].abs().sum(0).nonzero()
        reach = max(reach, int((moved - at).abs().max()))
        if int(moved.min()) == 0 or int(moved.max()) == side - 1:
            raise CheckError(f"The network looks further than the {claimed} pixels it claims.")
    return reach


@torch.no_grad()
def measure_overlap(
    restorer: nn.Module,
    pictures: Iterable[tuple[np.ndarray, Guidance]],
    *,
    tile: int = 128,
    announce: Callable[[str], None] | None = None,
) -> int:
    """The smallest multiple of 8 at which tiles of `tile` pixels show no seams.

    Of a local network they give what the whole picture gives: the largest difference anywhere, both
    clipped to [0, 1], may be half an 8-bit level (of a severity, which is no pixel, a hundredth),
    and the reach, rounded up, is always enough. What
    a network that looks at the whole picture makes of a tile is another picture; there the mean
    squared step across the seams may be 1.02 times that of the whole picture at the same places,
    in the mean over the pictures.

    Args:
        pictures: (1, 3, H, W) float32, best larger than two tiles each way, with their guidance.

    Raises:
        UsageError: No picture is larger than a tile.
        CheckError: The network looks at the whole picture, and its seams show at any overlap.
    """
    m, scale, reach = (cast(int, getattr(restorer, k)) for k in ("multiple_of", "scale", "reach"))
    device = next(restorer.parameters()).device

    def run(rgb: np.ndarray, guidance: Guidance) -> np.ndarray:
        known = as_tensors(guidance).map(lambda g: g.map(lambda t: t.to(device)))
        return restorer(torch.from_numpy(rgb).to(device), known).float().cpu().numpy()

    def ready(rgb: np.ndarray, guidance: Guidance) -> Guidance:
        if not prepared_by(restorer):
            return guidance
        view, known = torch.from_numpy(rgb).to(device), as_tensors(guidance)
        known = known.map(lambda g: g.map(lambda t: t.to(device)))
        known = restorer.prepare(view, known)  # type: ignore[operator]
        return known.map(lambda g: g.map(lambda t: t.cpu().numpy()))

    local = restorer.support == "local"
    most, name, unit = (SEAM, "seam error (levels)", 255) if local else (RATIO, "seams", 1)
    if local and getattr(restorer, "emits", ()):
        most, name, unit = SEVERITY_SEAM, "seam error (severity)", 1
    given = [(rgb, ready(rgb, guidance)) for rgb, guidance in pictures]
    wholes = [np.clip(run(rgb, guidance), 0, 1) for rgb, guidance in given]
    overlap, worst = 0, 0.0
    for overlap in range(0, (reach if local else FURTHEST) + 8, 8):
        found = []
        for (rgb, guidance), whole in zip(given, wholes, strict=True):
            height, width = rgb.shape[2:]
            tiles = plan(
                height, width, scale=scale, multiple_of=m, overlap=overlap, tile=tile + 2 * overlap
            )
            if len(tiles) == 1:
                continue
            out = np.clip(tiles.run(rgb, guidance, run), 0, 1)
            if local:
                found.append(float(np.abs(out - whole).max()))
            else:
                # A flat picture has no steps.
                found.append(seam_ratio(out, tiles) / max(seam_ratio(whole, tiles), 1e-12))
        if not found:
            raise UsageError(
                f"No picture is larger than a tile of {tile + 2 * overlap} pixels, and there is no "
                "seam to measure. Give larger ones."
            )
        worst = max(found) if local else float(np.mean(found))
        if announce:
            announce(f"overlap {overlap}: {name} {worst * unit:.3f}")
        if worst <= most:
            break
    if local or worst <= most:
        return overlap
    raise CheckError(
        f"The network looks at the whole picture, and with {overlap} shared pixels the seams of "
        f"its tiles still have {worst:.2f} times the steps of the whole picture (at most {RATIO})."
    )


def seam_ratio(out: np.ndarray, tiles: Plan) -> float:
    """Mean squared step across the middles of what two tiles share, over that elsewhere.

    Args:
        out: (1, C, H, W), as the tiles or the whole picture made it.
        tiles: More than one.
    """
    on, off = [], []
    grids = ((tiles.tops, tiles.tile[0]), (tiles.lefts, tiles.tile[1]))
    for axis, (starts, side) in zip((2, 3), grids, strict=True):
        at = np.array([(b + a + side) // 2 for a, b in itertools.pairwise(starts)], int)
        at *= tiles.scale
        steps = np.square(np.diff(out, axis=axis)).mean(axis=(0, 1, 5 - axis))
        there = np.zeros(len(steps), bool)
        there[at[(at > 0) & (at <= len(steps))] - 1] = True
        on.append(steps[there])
        off.append(steps[~there])
    return float(np.concatenate(on).mean() / max(np.concatenate(off).mean(), 1e-12))
