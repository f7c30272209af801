"""SPT (Xiao et al., arXiv 2305.13620), a reconstruction: units at the sites of frozen backbones.

Of the paper only the principle is known to us, so no figure of it stands here. Backbones: IMDN x4
and CDnCNN at sigma 25, with their authors' weights.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..evaluate import Loaded, Pair, Pairs, degraded_pairs, folder_pairs
from ..metrics import Protocol
from .table import Arm, Column, System

ROWS = 'encoders.rows.kind="region_statistics"'
DIM = "encoders.rows.dim=32"
UNITS = (ROWS, DIM)


def _arms(at: str) -> tuple[Arm, ...]:
    units = (*UNITS, f'adapters=[{{kind="spt", reads="rows", hidden=16, at={at}}}]')
    return (
        Arm("frozen", "the backbone as it was published", ("schedule.steps=0",), control=True),
        Arm("spt", "SPT units, weight-free regions", units),
        Arm(
            "zeroed",
            "units with the prior zeroed",
            (*units, 'priors.regions.control="null"'),
            control=True,
        ),
        Arm(
            "shuffled",
            "another picture's regions",
            (*units, 'priors.regions.control="shuffled"'),
            control=True,
        ),
        Arm("tuned", "the backbone tuned equally long", ("backbone.frozen=false",), control=True),
    )


def _centres(pairs: Callable[[Path], Pairs], side: int) -> Callable[[Path], Pairs]:
    """The same pairs cut to the middle `side` pixels of lq: whole photographs would take hours."""

    def cut(root: Path) -> Pairs:
        found = pairs(root)

        def middle(pair: Pair) -> Pair:
            def load() -> Loaded:
                loaded, scale = pair.load(), found.scale
                top, left = (max(0, (n - side) // 2) for n in loaded.lq.shape[-2:])
                lq = loaded.lq[..., top : top + side, left : left + side]
                top, left, far = top * scale, left * scale, side * scale
                return Loaded(lq, loaded.gt[..., top : top + far, left : left + far])

            return Pair(pair.image, pair.photograph, load)

        note = f"centre crops of {side} lq pixels"
        data = {**found.data, "notes": [*found.data["notes"], note]}
        return Pairs(tuple(map(middle, found.items)), data, found.noise, found.scale)

    return cut


def _sr(name: str) -> Callable[[Path], Pairs]:
    return lambda root: folder_pairs(
        root / f"sr/{name}/LR_bicubic/X4", root / f"sr/{name}/HR", scale=4
    )


def _noisy(folder: str, ids: str = "") -> Callable[[Path], Pairs]:
    def pairs(root: Path) -> Pairs:
        names = (root / ids).read_text(encoding="utf-8").split() if ids else None
        return degraded_pairs(root / folder, "noise:sigma=25", seed=11, names=names)

    return pairs


def _reduced(root: Path) -> Pairs:
    return degraded_pairs(root / "photos/val", "down:scale=4", seed=11, scale=4)


SPT_IMDN = System(
    name="spt-imdn",
    title="SPT units on frozen IMDN x4 (reconstruction): Y-PSNR [95 %] / SSIM / collapsed",
    base="spt-imdn-x4-toy",
    arms=_arms('["block.1", "block.3", "block.5"]'),
    columns=(
        Column("val", "photos/val", _centres(_reduced, 96), Protocol(channels="y", crop=4)),
        Column("set5", "Set5", _sr("set5"), Protocol(channels="y", crop=4)),
        Column("set14", "Set14", _sr("set14"), Protocol(channels="y", crop=4)),
    ),
    contrast=("spt", "zeroed", "val"),
)

SPT_DNCNN = System(
    name="spt-dncnn",
    title="SPT units on frozen CDnCNN, sigma 25 (reconstruction): PSNR [95 %] / SSIM / collapsed",
    base="spt-cdncnn-25-toy",
    arms=_arms('["layer.4", "layer.8", "layer.12"]'),
    columns=(
        Column("val", "photos/val", _centres(_noisy("photos/val"), 320)),
        Column("cbsd68", "CBSD68", _noisy("bsds500/images/val", "bsds500/cbsd68_ids.txt")),
    ),
    contrast=("spt", "zeroed", "val"),
)
