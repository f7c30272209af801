"""The public test sets of pairs: how each lies on disk, and what to say where it does not.

As their authors distribute them, below one data root:

    GoPro/test/SCENE/{blur,sharp}/NAME.png
    RealBlur/RealBlur_J_test_list.txt, and the files that it lists
    REDS/val/{val_blur,val_sharp}/SCENE/NAME.png
    ReLoBlur/test/SCENE/NUMBER/NAME_{blur,sharp}.png

or as SAM-Deblur's authors prepared them: GoPro/test, RealBlurJ/test, REDS/val and ReLoBlur/test,
each with input/NAME.png and target/NAME.png.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ...errors import UsageError
from ...image import read
from ..datasets import Loaded, Pair, Pairs, files_digest
from ..pairs import FilePair, Layout, find_first, why_absent
from .system import Column


@dataclass(frozen=True)
class PublicSet:
    """A published test set.

    Args:
        name: As tables call it.
        layouts: Where it may lie; the first that is there is taken.
    """

    name: str
    layouts: tuple[Layout, ...]

    def find(self, root: Path) -> list[FilePair]:
        """Its pairs below the data root.

        Raises:
            UsageError: It is not there, or not whole.
        """
        return find_first(self.name, self.layouts, root)

    def absent(self, root: Path) -> str:
        """Why it cannot be measured on, in a line, or ""; no picture is opened."""
        return why_absent(self.find, root)

    def pairs(self, root: Path) -> Pairs:
        """Its pairs to measure on, read one by one.

        Raises:
            UsageError: As `find`.
        """
        found = self.find(root)
        data = {
            "sha256": files_digest(file for pair in found for file in (pair.lq, pair.gt)),
            "n": len(found),
            "spec": None,
            "seed": None,
            "notes": [],
        }
        return Pairs(tuple(map(_pair, found)), data)

    def column(self, *, out_of_domain: bool = False) -> Column:
        """A column of a paper's table."""
        name = re.sub(r"\W", "", self.name).lower()
        return Column(name, self.name, self.pairs, out_of_domain=out_of_domain, absent=self.absent)


def _pair(files: FilePair) -> Pair:
    def load() -> Loaded:
        lq, gt = read(files.lq).rgb(), read(files.gt).rgb()
        if lq.shape != gt.shape:
            raise UsageError(
                f"{files.lq} is {lq.shape[3]}x{lq.shape[2]} and {files.gt} {gt.shape[3]}x"
                f"{gt.shape[2]}; a pair is of one size."
            )
        return Loaded(lq, gt)

    return Pair(files.name, scene_of(files.name), load)


def scene_of(name: str) -> str:
    """What a frame shows: its folder, or in one flat folder its name without the last number.

    Frames of one scene fail together: an interval takes them for one sample.
    """
    folder, _, stem = name.rpartition("/")
    return folder or re.sub(r"[-_]?\d+$", "", stem) or stem


def _flat(folder: str) -> Layout:
    """As SAM-Deblur's authors lay their prepared sets out."""
    return Layout(f"{folder}/input", f"{folder}/target")


GOPRO = PublicSet("GoPro", (Layout("GoPro/test/*/blur", "GoPro/test/*/sharp"), _flat("GoPro/test")))
"""Nah et al., CVPR 2017, GOPRO_Large: 1,111 frames of 11 scenes."""

REALBLUR_J = PublicSet(
    "RealBlur-J", (Layout(files="RealBlur/RealBlur_J_test_list.txt"), _flat("RealBlurJ/test"))
)
"""Rim et al., ECCV 2020: the 980 pairs of the authors' list."""

REDS = PublicSet("REDS", (Layout("REDS/val/val_blur/*", "REDS/val/val_sharp/*"), _flat("REDS/val")))
"""Nah et al., CVPRW 2019: the 3,000 validation frames, 30 scenes, with motion blur alone."""

RELOBLUR = PublicSet(
    "ReLoBlur",
    (
        Layout("ReLoBlur/test/*/*/*_blur.png", "ReLoBlur/test/*/*/*_sharp.png"),
        _flat("ReLoBlur/test"),
    ),
)
"""Li et al., AAAI 2023: 395 frames of 2152 x 1436."""
