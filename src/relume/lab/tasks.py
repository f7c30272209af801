"""The five tasks of the all-in-one protocol: their training pictures, repeats and noise.

Below one data root, as `reproduce.allinone` lists it, which measures on the tests of the same
tasks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import UsageError
from .datasets import match
from .pairs import FilePair, Layout, find_first, find_pictures, listed, why_absent

TASKS = ("noise", "rain", "haze", "blur", "lowlight")
"""The three tasks are the first of them. Also the names of their severity maps."""

SIGMAS = (15, 25, 50)
"""Of the noise, on 0-255, in the order in which it is drawn."""
HELD_OUT = 0.02
"""Share of each task's training pictures that choose the checkpoint. Test pictures never do."""

Find = Callable[[Path], list[FilePair]]


@dataclass(frozen=True)
class Part:
    """The pictures of one task, for training or for testing.

    Args:
        task: noise, rain, haze, blur or lowlight.
        title: As tables call it.
        count: Of its damaged pictures; for noise of its clean ones.
        where: data root -> its pairs; for noise both halves are the clean picture.
    """

    task: str
    title: str
    count: int
    where: Find

    def find(self, root: Path) -> list[FilePair]:
        """Its pairs below the data root, in their order.

        Raises:
            UsageError: It is not there, a half of a pair is missing, or they are not as many as
                the protocol has.
        """
        found = self.where(root)
        if len(found) != self.count:
            raise UsageError(
                f"{self.title} has {self.count:,} pictures in the all-in-one protocol, {root} has "
                f"{len(found):,}. Unpack the set whole: figures of a variant do not compare."
            )
        return found

    def absent(self, root: Path) -> str:
        """Why it cannot be used, in a line, or ""; no picture is opened."""
        return why_absent(self.find, root)


def read_list(root: Path, file: str) -> list[str]:
    """The lines of a list file of the protocol's authors.

    Raises:
        UsageError: It is not there, under this name.
    """
    path = root / file
    if not path.is_file():
        others = sorted(p.name for p in path.parent.glob("*.txt")) if path.parent.is_dir() else []
        hint = f"; there is {listed(others)}: rename the right one" if others else ""
        raise UsageError(f"no list {file} below {root}{hint}. It is part of the protocol.")
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _clean_list(file: str, root: Path) -> list[FilePair]:
    folder = (root / file).parent
    files = [folder / line for line in read_list(root, file)]
    _all_there(files, root / file)
    return [FilePair(path.stem, path, path) for path in files]


def _hazy_list(file: str, clear: str, root: Path) -> list[FilePair]:
    folder = (root / file).parent
    hazy = [folder / line for line in read_list(root, file)]
    _all_there(hazy, root / file)
    return hazed(hazy, root, clear)


def hazed(hazy: Sequence[Path], root: Path, clear: str) -> list[FilePair]:
    """Many hazy pictures of one clear one: `0025_0.8_0.1` is of `0025`."""
    truths = {key[-1]: path for key, path in find_pictures(root, clear).items()}
    # Asked of all 2,061 clear names, each of 72,135 hazy ones would take a minute.
    partners = [_partner(path.stem, truths) for path in hazy]
    alone = [path.name for path, stem in zip(hazy, partners, strict=True) if stem is None]
    if alone:
        raise UsageError(
            f"{len(alone)} hazy pictures have no clear one in {clear}: {listed(alone)}. A clear "
            "picture has the hazy one's name up to the first `_`."
        )
    return [
        FilePair(path.stem, path, truths[stem])
        for path, stem in zip(hazy, partners, strict=True)
        if stem is not None
    ]


def _partner(stem: str, truths: Mapping[str, Path]) -> str | None:
    first = stem.split("_")[0]
    return first if first in truths and stem not in truths else match(stem, truths)


def _all_there(files: Sequence[Path], file: Path) -> None:
    absent = [path.name for path in files if not path.is_file()]
    if absent:
        raise UsageError(
            f"{file} lists {len(files):,} pictures, of which {len(absent):,} are not there: "
            f"{listed(absent)}. Unpack the set whole, beside its list."
        )


def public(title: str, *layouts: Layout) -> Find:
    return partial(find_first, title, layouts)


def rain(half: str) -> Find:
    folder = f"Rain100L/{half}"
    numbered = Layout(f"{folder}/rain-*.png", f"{folder}/norain-*.png")
    return public("Rain100L", Layout(f"{folder}/input", f"{folder}/target"), numbered)


TRAINING = (
    Part("noise", "BSD400 + WED", 5144, partial(_clean_list, "Denoise/denoise.txt")),
    Part("rain", "Rain100L", 200, rain("train")),
    Part(
        "haze",
        "RESIDE-OTS",
        72135,
        partial(_hazy_list, "RESIDE-OTS/hazy_outside.txt", "RESIDE-OTS/clear"),
    ),
    Part(
        "blur", "GoPro", 2103, public("GoPro", Layout("GoPro/train/*/blur", "GoPro/train/*/sharp"))
    ),
    Part("lowlight", "LOL-v1", 485, public("LOL-v1", Layout("LOL/our485/low", "LOL/our485/high"))),
)
"""What the five tasks train on; the three are the first of them."""

REPEATS: Mapping[str, Mapping[str, int]] = {
    "promptir": {"noise": 9, "rain": 120, "haze": 1, "blur": 5, "lowlight": 20},
    "perceive-ir": {"noise": 12, "rain": 360, "haze": 1, "blur": 30, "lowlight": 140},
    "perceive-ir-medium": {"noise": 3, "rain": 120, "haze": 1, "blur": 50, "lowlight": 40},
}
"""How often an epoch shows each picture; for noise over the three sigma together. `promptir` is
AdaIR's too, the others are those of Perceive-IR's late release: for the restorer, and for those of
its first stage, which make pictures of medium quality."""


def tasks_of(number: int) -> tuple[str, ...]:
    """The tasks of the protocol of so many.

    Raises:
        UsageError: It has three or five.
    """
    if number not in (3, 5):
        raise UsageError(f"the all-in-one protocol has 3 or 5 tasks, got {number}.")
    return TASKS[:number]


def epoch_size(number: int, repeats: str = "promptir") -> int:
    """Samples of an epoch: 142,431 and 162,646 of `promptir`."""
    counts = {part.task: part.count for part in TRAINING}
    return sum(counts[task] * REPEATS[repeats][task] for task in tasks_of(number))


def training(number: int, root: Path) -> dict[str, list[FilePair]]:
    """Task -> its training pairs, every count checked before a picture is opened.

    Raises:
        UsageError: As `Part.find`.
    """
    parts = {part.task: part for part in TRAINING}
    return {task: parts[task].find(root) for task in tasks_of(number)}


def held_out(
    pairs: Sequence[FilePair], share: float = HELD_OUT
) -> tuple[list[FilePair], list[FilePair]]:
    """(what is trained on, what chooses the checkpoint), each in its order.

    By the digests of the clean pictures' names: all hazy versions of one photograph lie on one
    side, and the choice is the same on every machine. Frames of one GoPro scene lie on both sides,
    so that of blur the held-out figure flatters: it ranks checkpoints, it is no result.

    Args:
        share: Of the clean pictures, rounded, one at least.
    """
    names = sorted({photograph_of(pair) for pair in pairs}, key=_digest)
    kept = {*names[: max(1, round(share * len(names)))]}
    sides: tuple[list[FilePair], list[FilePair]] = ([], [])
    for pair in pairs:
        sides[photograph_of(pair) in kept].append(pair)
    return sides


def sides(number: int, root: Path) -> dict[str, tuple[list[FilePair], list[FilePair]]]:
    """Task -> what is trained on, and what is held out of it; as `training` and `held_out`."""
    return {task: held_out(pairs) for task, pairs in training(number, root).items()}


def photograph_of(pair: FilePair) -> str:
    """What the clean picture is called, wherever it lies and however its pair is named."""
    stem = pair.gt.stem
    return stem if pair.name.startswith(stem) else pair.name


def scene_of(pair: FilePair) -> str:
    """What a pair shows, for folds: of a frame its film, of all others the photograph."""
    return photograph_of(pair).split("/")[0]


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def noisy(clean: np.ndarray, sigma: float, drawn: np.ndarray) -> np.ndarray:
    """clean + sigma drawn, clipped and cut, not rounded, to uint8, as PromptIR's data set does.

    Args:
        clean: (3, H, W) uint8.
        sigma: On 0-255.
        drawn: (3, H, W) standard normals.
    """
    return np.clip(clean + drawn * sigma, 0, 255).astype(np.uint8)
