"""SPT (Xiao et al., arXiv 2305.13620), a reconstruction: units at the sites of frozen backbones.

Of the paper only the principle is known to us, so no figure of it stands here. Backbones: IMDN x4
and CDnCNN at sigma 25, with their authors' weights. The toy trains on a few photographs, the other
tables on DIV2K: its own low-resolution pictures, and its noise, which `relume degrade` writes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..datasets import Pairs, centres, degraded_pairs, folder_pairs
from ..metrics import Protocol
from .system import Arm, Column, System

ROWS = 'encoders.rows.kind="region_statistics"'
DIM = "encoders.rows.dim=32"
UNITS = (ROWS, DIM)
IMDN_SITES = '["block.1", "block.3", "block.5"]'
DNCNN_SITES = '["layer.4", "layer.8", "layer.12"]'
CBSD68 = "bsds500/cbsd68_ids.txt"


def _arms(at: str, title: str = "SPT units, weight-free regions") -> tuple[Arm, ...]:
    units = (*UNITS, f'adapters=[{{kind="spt", reads="rows", hidden=16, at={at}}}]')
    return (
        Arm("frozen", "the backbone as it was published", ("schedule.steps=0",), control=True),
        Arm("spt", title, units),
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


SLOTS = Arm(
    "slots",
    "units that read a slot a mask",
    (
        'encoders.rows.kind="mask_slots"',
        DIM,
        f'adapters=[{{kind="spt", reads="rows", hidden=16, at={DNCNN_SITES}}}]',
    ),
)
"""The other mask encoder, on one network for comparison."""


def _middle(pairs: Callable[[Path], Pairs], side: int) -> Callable[[Path], Pairs]:
    """Whole photographs would take hours."""
    return lambda root: centres(pairs(root), side)


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


def _without(name: str, needed: str) -> Callable[[Path], str]:
    """What a column without its files says."""
    return lambda root: (
        "" if (root / needed).exists() else f"no {name} below {root}: expected {needed}."
    )


SPT_IMDN = System(
    name="spt-imdn",
    title="SPT units on frozen IMDN x4 (reconstruction): Y-PSNR [95 %] / SSIM / collapsed",
    base="spt-imdn-x4-toy",
    arms=_arms(IMDN_SITES),
    columns=(
        Column("val", "photos/val", _middle(_reduced, 96), Protocol(channels="y", crop=4)),
        Column("set5", "Set5", _sr("set5"), Protocol(channels="y", crop=4)),
        Column("set14", "Set14", _sr("set14"), Protocol(channels="y", crop=4)),
    ),
    contrast=("spt", "zeroed", "val"),
)

SPT_DNCNN = System(
    name="spt-dncnn",
    title="SPT units on frozen CDnCNN, sigma 25 (reconstruction): PSNR [95 %] / SSIM / collapsed",
    base="spt-cdncnn-25-toy",
    arms=(*_arms(DNCNN_SITES), SLOTS),
    columns=(
        Column("val", "photos/val", _middle(_noisy("photos/val"), 320)),
        Column("cbsd68", "CBSD68", _noisy("bsds500/images/val", CBSD68)),
    ),
    contrast=("spt", "zeroed", "val"),
)


# On DIV2K (Agustsson and Timofte, CVPRW 2017), longer, and on whole test pictures

ON_DIV2K = (
    "Training pictures: DIV2K with its own X4/ for IMDN; for CDnCNN what `relume degrade "
    "DIV2K/DIV2K_train_HR -o DIV2K_sigma25 --spec noise:sigma=25` writes, one noise a picture.",
    "Regions: graph-based segmentation without weights, or SAM's with --sam.",
)

SPT_IMDN_DIV2K = replace(
    SPT_IMDN,
    name="spt-imdn-div2k",
    base="spt-imdn-x4",
    arms=_arms(IMDN_SITES, "SPT units"),
    columns=tuple(
        replace(column, absent=_without(column.title, f"sr/{column.name}/HR"))
        for column in SPT_IMDN.columns[1:]
    ),
    contrast=("spt", "zeroed", "set14"),
    notes=ON_DIV2K,
    longest=1,
)

SPT_DNCNN_DIV2K = replace(
    SPT_DNCNN,
    name="spt-dncnn-div2k",
    base="spt-cdncnn-25",
    arms=(*_arms(DNCNN_SITES, "SPT units"), SLOTS),
    columns=tuple(
        replace(column, absent=_without(column.title, CBSD68)) for column in SPT_DNCNN.columns[1:]
    ),
    contrast=("spt", "zeroed", "cbsd68"),
    notes=ON_DIV2K,
    longest=1,
)
