"""SAM-Deblur (Li et al., arXiv 2309.02270): what does the region prior really do?

The toy form blurs photographs of BSDS500 by objects: people drew the regions, each moves by itself,
so that in and out of domain there are ground truth and oracle regions. No SAM is needed.

The published form trains on GoPro/train/SCENE/{blur,sharp}/NAME.png with SAM's masks, and tests on
four sets, whose layouts `testsets` shows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ...errors import UsageError
from ...guidance import Guidance, Guide
from ...image import is_image, read
from ..datasets import Loaded, Pair, Pairs, files_digest, folder_pairs
from ..degrade import Chain, View, generator, parse
from ..degrade.blur import Convolution
from ..degrade.tone import to_file, to_light
from ..degrade.view import mirrored
from ..metrics import Protocol
from ..segmentations import human_regions
from .system import Arm, Column, System
from .testsets import GOPRO, REALBLUR_J, REDS, RELOBLUR

TEST = "bsds500/images/val"
DRAWN = "bsds500/groundTruth/val"
SEED = 11
EVERY = 2  # of the hundred test photographs

MEANS = 'encoders.means.kind="region_means"'
JOIN = 'adapters=[{kind="map", reads="means"}]'
CAT = 'adapters=[{kind="concat", reads="regions"}]'
MAP = (MEANS, JOIN, "encoders.means.dropout=0.0")
OURS = (MEANS, JOIN, "encoders.means.dropout=0.5", "priors.regions.dropout=0.1")
CONSTANT, SHUFFLED, ORACLE = (
    f'priors.regions.control="{control}"' for control in ("constant", "shuffled", "oracle")
)
SCALED = "encoders.means.mask_scale=0.00392156862745098"
STAGES = (
    'encoders.rows.kind="region_statistics"',
    'adapters=[{kind="region_shift", reads="rows", at=["encoder.0", "encoder.1", "encoder.2", '
    '"middle", "decoder.2", "decoder.1", "decoder.0"]}]',
    "priors.regions.dropout=0.1",
)

COLUMNS_OF_PAPER: tuple[str, ...] = ("GoPro", "RealBlur-J", "REDS", "ReLoBlur")
PAPER: dict[str, dict[str, str]] = {
    row: dict(zip(COLUMNS_OF_PAPER, cells, strict=True))
    for row, cells in {
        "none": ("32.85/.960", "26.57/.866/0.20%", "25.97/.844/3.80%", "25.26/.687/54.68%"),
        "cat": ("32.88/.961", "26.55/.863/0.31%", "26.65/.865/2.57%", "29.77/.882/58.73%"),
        "map": ("32.82/.960", "26.57/.866/0.31%", "26.81/.865/0.40%", "30.86/.897/55.44%"),
        "ours": ("32.83/.960", "26.62/.867/0.00%", "26.93/.868/0.20%", "32.29/.903/13.92%"),
    }.items()
}
ABSTRACT = "The abstract of the paper swaps its gains on REDS and ReLoBlur; the table is quoted."

AFTER_NONE = {"priors.regions.after": "none"}
FIRST = (
    Arm("none", "w/o SAM", paper=PAPER["none"]),
    Arm("cat", "CAT", (CAT,), needs=AFTER_NONE, paper=PAPER["cat"]),
    Arm("map", "MAP", MAP, needs=AFTER_NONE, paper=PAPER["map"]),
)


def _controls(ours: tuple[str, ...], voronoi: str, oracle: str) -> tuple[Arm, ...]:
    """What may explain `ours` away: the same network, told otherwise."""

    def arm(name: str, title: str, change: str, needs: Mapping[str, str] = AFTER_NONE) -> Arm:
        return Arm(name, title, (*ours, change), needs=needs, control=True)

    return (
        arm("global", "global mean only", CONSTANT, {}),
        arm("legacy", "MAP scaled by 1/255", SCALED),
        arm("shuffled", "another picture's regions", SHUFFLED),
        arm("voronoi", "voronoi cells of the same areas", voronoi),
        arm("oracle", oracle, ORACLE, {}),
    )


ARMS = (
    *FIRST,
    Arm(
        "ours",
        "SAM-Deblur (MAP + dropout), weight-free regions",
        OURS,
        needs=AFTER_NONE,
        paper=PAPER["ours"],
    ),
    *_controls(OURS, 'priors.regions.kind="voronoi"', "the regions that moved"),
    Arm("stages", "region statistics at every stage (our extension)", STAGES, needs=AFTER_NONE),
)


def photographs(root: Path) -> list[Path]:
    """Every second test photograph.

    Raises:
        UsageError: They are not there.
    """
    folder = root / TEST
    found = sorted(p for p in folder.iterdir() if is_image(p)) if folder.is_dir() else []
    if not found:
        raise UsageError(f"No test photographs in {folder}. Give --data the folder above bsds500.")
    return found[::EVERY]


def _oracle(path: Path, root: Path) -> Guidance:
    labels = human_regions(root / DRAWN / f"{path.stem}.mat")
    return Guidance(regions=Guide(regions=labels[None]))


def _pairs(
    root: Path, spec: str, damaged: Callable[[np.ndarray, np.ndarray, int], np.ndarray]
) -> Pairs:
    paths = photographs(root)

    def pair(index: int, path: Path) -> Pair:
        def load() -> Loaded:
            gt, truth = read(path).rgb(), _oracle(path, root)
            lq = damaged(gt[0], truth["regions"].regions[0], index)
            return Loaded(lq[None], gt, truth)

        return Pair(path.name, path.stem, load)

    items = tuple(pair(i, path) for i, path in enumerate(paths))
    data = {"sha256": files_digest(paths), "n": len(paths), "spec": spec, "seed": SEED, "notes": []}
    return Pairs(items, data, noise="uint8")


def moved(spec: str) -> Callable[[Path], Pairs]:
    """Test photographs whose human regions moved as a SPEC says."""
    chain: Chain = parse(spec)

    def damaged(gt: np.ndarray, regions: np.ndarray, index: int) -> np.ndarray:
        sampled = chain.sample(generator(SEED, index), (gt.shape[1], gt.shape[2]), regions)
        return chain.apply(gt, sampled, truth=False, finish="uint8").lq

    return lambda root: _pairs(root, spec, damaged)


def shaken(root: Path) -> Pairs:
    """Test photographs under the eight camera shakes that Levin et al. (CVPR 2009) measured."""
    folder = root / "deblur/levin/kernels"
    paths = sorted(folder.glob("kernel*.png")) if folder.is_dir() else []
    if not paths:
        raise UsageError(f"No measured kernels in {folder}. Give --data the folder above deblur.")
    kernels = [_odd(read(path).rgb()[0].mean(0)) for path in paths]

    def damaged(gt: np.ndarray, regions: np.ndarray, index: int) -> np.ndarray:
        blur = Convolution(kernels[index % len(kernels)])
        frame = View(0, 0, gt.shape[1], gt.shape[2])
        light = mirrored(to_light(gt), frame, frame.grown(blur.margin))
        return np.rint(to_file(blur(light)) * 255).astype(np.float32) / np.float32(255)

    return _pairs(root, "measured camera shake", damaged)


def real(root: Path) -> Pairs:
    """Levin's 32 real pairs; lq and gt are shifted against each other."""
    return folder_pairs(root / "deblur/levin/lq", root / "deblur/levin/gt")


def _odd(kernel: np.ndarray) -> np.ndarray:
    """A square kernel of odd side and sum 1, its centre of mass in the middle."""
    rows, columns = (np.arange(n) for n in kernel.shape)
    total = kernel.sum()
    centre = ((kernel.sum(1) @ rows) / total, (kernel.sum(0) @ columns) / total)
    half = max(kernel.shape)
    out = np.zeros((2 * half + 1,) * 2, np.float32)
    top, left = (half - round(c) for c in centre)
    out[top : top + kernel.shape[0], left : left + kernel.shape[1]] = kernel / total
    used = np.argwhere(out)
    margin = int(np.abs(used - half).max())
    return np.ascontiguousarray(
        out[half - margin : half + margin + 1, half - margin : half + margin + 1]
    )


SAM_DEBLUR = System(
    name="sam-deblur",
    title="SAM-Deblur at toy scale: PSNR [95 %] / SSIM / collapsed pictures",
    base="sam-deblur-toy",
    arms=ARMS,
    columns=(
        Column("in", "in domain", moved("regionblur:length=5..21")),
        Column(
            "longer",
            "longer, more bent",
            moved("regionblur:length=21..31,curve=0.3..0.5"),
            out_of_domain=True,
        ),
        Column("shake", "measured camera shake", shaken, out_of_domain=True),
        Column("levin", "Levin's real pairs", real, Protocol(align=6), out_of_domain=True),
    ),
    contrast=("ours", "none", "longer"),
    columns_of_paper=COLUMNS_OF_PAPER,
    notes=(
        "Regions: graph-based segmentation without weights stands where the paper has SAM.",
        "`w/o SAM` runs first wherever a row looks at regions, in training and at use.",
        ABSTRACT,
    ),
)


# As published: GoPro, SAM, 200,000 steps

AS_PUBLISHED = (MEANS, JOIN, "encoders.means.dropout=0.5")  # never told nothing: that is ours

PUBLISHED_ARMS = (
    *FIRST,
    Arm("ours", "SAM-Deblur (MAP + dropout)", AS_PUBLISHED, needs=AFTER_NONE, paper=PAPER["ours"]),
    Arm(
        "blurred",
        "SAM-Deblur, at test SAM sees the blurred frame itself",
        AS_PUBLISHED,
        needs=AFTER_NONE,
        paper=PAPER["ours"],
        at_test=('priors.regions.after=""',),
    ),
    *_controls(
        AS_PUBLISHED, 'priors.regions.layout="voronoi"', "SAM on the sharp frame, which leaks it"
    ),
)

SAM_DEBLUR_PUBLISHED = System(
    name="sam-deblur-published",
    title="SAM-Deblur as published: PSNR [95 %] / SSIM / collapsed; paper: PSNR/SSIM/MCR",
    base="sam-deblur",
    arms=PUBLISHED_ARMS,
    columns=(
        GOPRO.column(),
        REALBLUR_J.column(out_of_domain=True),
        REDS.column(out_of_domain=True),
        RELOBLUR.column(out_of_domain=True),
    ),
    contrast=("ours", "none", "reds"),
    columns_of_paper=COLUMNS_OF_PAPER,
    notes=(
        "`w/o SAM` runs before SAM looks, in training and at use. The paper's authors train so, "
        "with a network they do not name, and segment the blurred frame itself at test: that is "
        "the row which says so, of the same weights.",
        "Masks become a partition, small ones over large ones; the authors add gray codes up in 8 "
        "bits. SAM sees RGB; their script gives it BGR. Crops are drawn anywhere in the frame, "
        "theirs from tiles of 512 pixels.",
        "The authors test GoPro with means over windows of 384 pixels in the channel attention "
        "(arXiv 2112.04491), the other sets without; here they are the whole picture's everywhere.",
        "Their SSIM has a window across the colour channels too, ours is the mean over channels.",
        "Which of REDS's blurred sets the paper took is not said; here it is the one without "
        "compression. Collapsed: more than 3 dB below the input, strictly.",
        ABSTRACT,
    ),
    prior=('priors.regions.kind="sam"',),
    longest=1,
)


def looking_with(source: str) -> tuple[str, ...]:
    """Overrides that look with SAM.

    Args:
        source: Folder of its weights, or a hub model's id, which is fetched. A folder is named in
            full: whichever way it is typed, the cells are the same.
    """
    folder = Path(source).expanduser()
    source = str(folder.resolve()) if folder.is_dir() else source
    kind, where = ('priors.regions.kind="sam"', f"priors.regions.source={json.dumps(source)}")
    return (kind, where, "priors.regions.network=true")
