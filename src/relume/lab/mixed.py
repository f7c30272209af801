"""Training samples of several tasks at once, each as often as the all-in-one protocol says."""

import itertools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from ..errors import UsageError
from ..guidance import Guidance, Guide
from ..image import read, resize
from .data import (
    DAMAGE,
    FOLD,
    SECOND,
    Cut,
    Samples,
    anywhere,
    as_read,
    compact,
    narrow_labels,
)
from .degrade import View
from .degrade.noise import normals
from .folds import fold_of
from .pairs import ROOM, FilePair, Kept, as_float, planes
from .sources import Source, told_by_gt
from .tasks import SIGMAS, noisy, scene_of
from .truth import DONE_BY, severities, visible

NOISE = "noise"
MOST = 50
"""Sigma on 0-255 of noise of severity 1, as `degrade.noise` has it."""


@dataclass(frozen=True)
class _Look:
    """Which picture, under what: sigma on 0-255 of noise made on its clean half, drawn by `seed`;
    without, its damaged half as it is."""

    task: str
    pair: FilePair
    sigma: int = 0
    seed: int = 0


class Mixed(Samples):
    """Crops of the pictures of several tasks: real pairs, and noise made on clean ones.

    An epoch shows each picture as often as its task says; noise takes turns among the three sigma.
    It is made on the whole picture, of 8 bits, and cut to them as the protocol has it, so that two
    crops of one sample are of one realisation. A picture that is smaller than the crop is first
    enlarged by cubic convolution, as Perceive-IR's late release does. Its photographs may be
    hundreds of thousands: nothing but names is held.

    What an objective is told of the damage, in the truth under `DAMAGE`: of noise the severity that
    its sigma has; of real pairs what the rule of their kind finds in the difference to the good
    picture (`truth.visible`), for nobody knows the physics. No network is told of it. Where a crop
    shows nothing of the damage, a wall under rain, its severity is that: 0.

    Second looks (`SECOND`): another picture under the same damage is one of the same task, of noise
    under the same sigma. The same picture under another damage is, of a real pair, its good half
    under noise; of noise, for which the protocol has no second damage, it is the clean picture.

    Args:
        pairs: Task -> its pairs (`tasks.training`); of noise both halves are the clean picture.
        repeats: Task -> how often an epoch shows each of them; of noise, in multiples of 3.
        seed, sources: As in `Samples`. Priors look at whole damaged pictures.
        severities, second, folds: As in `Damaged`; frames of one film lie in one fold.
        room: Bytes of pictures that stay in memory.

    Raises:
        UsageError: A task without a picture, or repeats of noise that are not a multiple of 3; when
            it is drawn, a pair whose halves differ in size, or a clean picture of more than 8 bits.
    """

    def __init__(
        self,
        pairs: Mapping[str, Sequence[FilePair]],
        repeats: Mapping[str, int],
        *,
        seed: int,
        sources: Mapping[str, Source] | None = None,
        severities: Sequence[str] = (),
        second: Sequence[str] = (),
        folds: int = 0,
        room: int = ROOM,
    ) -> None:
        if empty := [task for task, found in pairs.items() if not found]:
            raise UsageError(
                f"Nothing is left to train {', '.join(empty)} on: all its pictures are held out, "
                "or lie in the fold of data.without."
            )
        if repeats.get(NOISE, 0) % len(SIGMAS):
            raise UsageError(
                f"Noise takes turns among {len(SIGMAS)} sigma: its repeats are a multiple of that, "
                f"got {repeats[NOISE]}."
            )
        self.pairs, self.repeats = dict(pairs), dict(repeats)
        counts = [len(found) * repeats[task] for task, found in pairs.items()]
        self._ends = list(itertools.accumulate(counts))
        super().__init__(self._ends[-1], seed=seed, sources=sources)
        self.severities, self.second, self.folds = tuple(severities), tuple(second), folds
        self._decoded = Kept[tuple[np.ndarray, ...]](lambda s: sum(a.nbytes for a in s), room=room)
        self._readers = ThreadPoolExecutor(min(8, os.cpu_count() or 1))

    def several(self, numbers: Sequence[int], crop: int) -> list[Cut]:
        """As in `Samples`, several files at a time."""
        return list(self._readers.map(self.numbered, numbers, repeat(crop)))

    def place(self, number: int) -> tuple[str, int, int]:
        """(task, number of its pair, sigma of the noise or 0) of a picture of the epoch."""
        at = next(i for i, end in enumerate(self._ends) if number < end)
        task = list(self.pairs)[at]
        copy, index = divmod(number - (self._ends[at - 1] if at else 0), len(self.pairs[task]))
        return task, index, SIGMAS[copy % len(SIGMAS)] if task == NOISE else 0

    def cut(self, number: int, rng: np.random.Generator, crop: int) -> Cut:
        """A crop anywhere in a picture."""
        task, index, sigma = self.place(number)
        pair = self.pairs[task][index]
        look = _Look(task, pair, sigma, int(rng.integers(2**62)))
        lq, gt = self._whole(look, crop)
        known, told = self._said(pair, lq, gt)
        size = (lq.shape[-2], lq.shape[-1])
        box = anywhere(pair.name, size, crop, rng)
        seen, good = (as_float(box.cut(half, View(0, 0, *size))) for half in (lq, gt))
        truth = told.crop(*box).map(as_read)
        if self.severities:
            truth = truth.with_guide(
                DAMAGE, severity(look.task, sigma, seen, good, self.severities)
            )
        if self.folds:
            fold = np.full((1, 1), fold_of(scene_of(pair), self.folds), np.float32)
            truth = truth.with_guide(FOLD, Guide(vector=fold))
        second: dict[str, np.ndarray] = {}
        if self.second:  # a generator of its own for each: a spawn draws nothing from rng
            owns = dict(zip(SECOND, rng.spawn(len(SECOND)), strict=True))
            second = {w: self._second(w, look, index, box, owns[w]) for w in self.second}
        return Cut(seen, good, known.crop(*box).map(as_read), truth, second)

    def _second(
        self, word: str, look: _Look, index: int, box: View, rng: np.random.Generator
    ) -> np.ndarray:
        """A second look (3, h, w) at a sample; see `SECOND`."""
        crop = box.height
        if word == "otherwise":
            sigma = 0 if look.task == NOISE else int(rng.choice(SIGMAS))
            look = _Look(NOISE, FilePair(look.pair.name, look.pair.gt, look.pair.gt), sigma,
                         int(rng.integers(2**62)))  # fmt: skip
        if word == "elsewhere":
            found = self.pairs[look.task]
            other = int(rng.integers(max(1, len(found) - 1)))
            other = (index + 1 + other) % len(found)
            look = _Look(look.task, found[other], look.sigma, int(rng.integers(2**62)))
        lq, _ = self._whole(look, crop)
        size = (lq.shape[-2], lq.shape[-1])
        if word != "otherwise":
            box = anywhere(look.pair.name, size, crop, rng)
        return as_float(box.cut(lq, View(0, 0, *size)))

    def _whole(self, look: _Look, crop: int) -> tuple[np.ndarray, np.ndarray]:
        """lq and gt (3, H, W) in their files' own depth, no side shorter than the crop."""
        pair = look.pair
        halves = self._decoded.get((pair.lq, pair.gt, crop), lambda: _halves(pair, crop))
        lq, gt = halves[0], halves[-1]
        if not look.sigma:
            return lq, gt
        if gt.dtype != np.uint8:
            raise UsageError(f"{pair.gt} has more than 8 bits: the protocol's noise is uint8.")
        frame = View(0, 0, gt.shape[-2], gt.shape[-1])
        return noisy(gt, look.sigma, normals(look.seed, frame)), gt

    def _said(self, pair: FilePair, lq: np.ndarray, gt: np.ndarray) -> tuple[Guidance, Guidance]:
        """What priors say of a whole damaged picture, and what an oracle is told."""
        if not self.sources:
            return Guidance(), Guidance()
        rgb = as_float(lq)[None]
        known = Guidance(
            {name: s.looking_at(scene_of(pair))(rgb) for name, s in self.sources.items()}
        )
        told = told_by_gt(as_float(gt)[None], self.sources, (lq.shape[-2], lq.shape[-1]))
        return known.map(compact).map(narrow_labels), told.map(compact).map(narrow_labels)


def _halves(pair: FilePair, crop: int) -> tuple[np.ndarray, ...]:
    """lq and gt, or one that is both."""
    files = dict.fromkeys((pair.lq, pair.gt))
    found = tuple(_at_least(planes(read(file)), crop) for file in files)
    if found[0].shape != found[-1].shape:
        (h, w), (height, width) = (half.shape[-2:] for half in (found[0], found[-1]))
        raise UsageError(
            f"{pair.lq} is {w}x{h} and {pair.gt} {width}x{height}; a pair is of one size."
        )
    return found


def _at_least(samples: np.ndarray, crop: int) -> np.ndarray:
    """A picture whose shorter side is no shorter than the crop, in its own depth."""
    height, width = samples.shape[-2:]
    if min(height, width) >= crop:
        return samples
    factor = crop / min(height, width)
    size = (max(crop, round(height * factor)), max(crop, round(width * factor)))
    grown = np.clip(resize(as_float(samples)[None], *size)[0], 0, 1)
    if samples.dtype.kind == "f":
        return grown
    return np.rint(grown * np.iinfo(samples.dtype).max).astype(samples.dtype)


def severity(
    task: str, sigma: float, lq: np.ndarray, gt: np.ndarray, kinds: Sequence[str]
) -> Guide:
    """How badly a crop is damaged: one map for each kind, all but the task's own 0.

    Args:
        task: One of `tasks.TASKS`.
        sigma: Of noise, on 0-255.
        lq, gt: (3, h, w) in [0, 1].
        kinds: The maps wanted, in order.

    Returns:
        maps (1, K, h, w) float32 in [0, 1].
    """
    size = (lq.shape[-2], lq.shape[-1])
    if task == NOISE:
        found = np.full(size, min(1.0, sigma / MOST), np.float32)
    else:
        found = visible(lq, gt, task)
    did = {f"damage.{DONE_BY[task][0]}": Guide(maps=found[None, None])}
    return severities(Guidance(did), size, kinds)
