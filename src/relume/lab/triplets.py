"""One crop in three qualities: as it was damaged, as a poor restorer leaves it, and as it was."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from ..errors import UsageError
from ..guidance import Guidance, Guide, stack
from ..priors.quality import TIERS, difficulty_of
from .data import SOFT, Batch, Cut, Damage, Samples
from .degrade import Chain, Degraded, Sampled, View, parse
from .folds import fold_of
from .pairs import Kept, as_float
from .photographs import Photograph, part_of
from .truth import DONE_BY

MEDIUM, TASK, LEFT = "tiers.medium", "tiers.task", "tiers.left"
"""In the truth: the crop of medium quality, maps (N, 3, h, w); what was done to it, vector (N, T),
one of which is 1; difficulty of the three crops in the order of `TIERS`, vector (N, 3), NaN where
it was not measured."""

Restores = Callable[[np.ndarray, Guidance], np.ndarray]
"""(1, 3, h, w) in [0, 1] and what is known of it -> the restored picture, not clipped."""

PLAIN = 0.5
"""Share of the medium crops that are the poor restorer's own output. In the others some of the
damage is left: a lq + (1 - a) out, a up to `LEAST`."""

LEAST = 0.5

LIT = 0.5
"""Share of the triplets, where there are windows, of a part in another light. Not of all: of 256
values another light leaves gaps between, which no file of a camera has."""

SEEN, TRIES = 2e-4, 4
"""Mean squared error below which (37 dB) a crop is not damaged: between two drops, or of a wall
that was blurred; and how many places are tried for a worse one."""

ASKED = (0.6, 0.2, 0.2)
"""How often it is the damaged, the medium, the clean crop whose difficulty is measured."""


class Triplets(Samples):
    """Triplets of crops at their own resolution: lq is low, gt is high, medium lies in the truth.

    The first stage of Perceive-IR (arXiv 2408.15994) learns tiers from such triplets; its medium
    pictures come from a Restormer of 20,000 steps. Here they come from restorers of two folds, each
    of which looks at the photographs that it was trained without: of what it knows by heart a poor
    restorer is a good one.

    All three are as files hold them, in 256 values: no tier may be told by its fractions.

    Args:
        photographs: From `load_photographs`.
        damage: What is done to them; one damage at a time, away from severity 0.
        seed: Decides all that is drawn.
        medium: The poor restorer that looks at the photographs of each fold (`folds.fold_of`).
        restorer: Whose error is the difficulty; None measures none.
        measured: Share of the triplets of which one crop's difficulty is measured: that restorer is
            the dearest of all that happens here.
        windows: As in `Damaged`.
        fixed: Triplets of each photograph, which are kept once they are made and come again turned
            and mirrored; 0 makes new ones.

    Raises:
        UsageError: There are not two restorers at least.
    """

    def __init__(
        self,
        photographs: Sequence[Sequence[Photograph]],
        damage: Damage,
        *,
        seed: int,
        medium: Sequence[Restores],
        restorer: Restores | None = None,
        measured: float = 0.35,
        windows: tuple[float, float] | None = None,
        fixed: int = 0,
    ) -> None:
        super().__init__(len(photographs), seed=seed)
        if len(medium) < 2:
            raise UsageError(
                "data.medium must name the restorers of two folds or more, each trained without "
                f"its own; got {len(medium)}."
            )
        self.photographs, self.damage, self.windows = photographs, damage, windows
        self.medium, self.restorer, self.measured = tuple(medium), restorer, measured
        self.fixed = fixed
        self._kept = Kept[Cut](lambda cut: 3 * cut.lq.nbytes // 4)
        self.tasks = tuple(dict.fromkeys(task_of(spec) for spec in damage.specs))

    def cut(self, number: int, rng: np.random.Generator, crop: int) -> Cut:
        """A crop of a photograph at one of its sizes: damaged, medium and clean."""
        if not self.fixed:
            return self._made(number, rng, crop)
        variant = int(rng.integers(self.fixed))
        drawn = np.random.default_rng((self.seed, 1 << 40, number, variant))
        key = (number, variant, crop)
        return _wide(self._kept.get(key, lambda: _narrow(self._made(number, drawn, crop))))

    def _made(self, number: int, rng: np.random.Generator, crop: int) -> Cut:
        sizes = self.photographs[number]
        photo = sizes[int(rng.integers(len(sizes)))]
        if self.windows and rng.random() < LIT:
            photo = part_of(photo, rng, self.windows, crop)
        size = (photo.pixels.shape[-2], photo.pixels.shape[-1])
        if min(size) < crop:
            raise UsageError(f"{photo.name} has no room for crops of {crop}. Use smaller ones.")
        spec = self.damage.draw(rng)
        chain = parse(spec)
        sampled = chain.sample(torch.Generator().manual_seed(int(rng.integers(2**62))), size)
        done = self._damaged(photo, chain, sampled, crop, rng)
        small = chain.apply_small(photo.small, sampled)
        made = self.medium[fold_of(photo.name, len(self.medium))](done.lq[None], Guidance())[0]
        kept = 0.0 if rng.random() < PLAIN else LEAST * rng.random()
        crops = (done.lq, as_file(kept * done.lq + (1 - kept) * made), as_file(done.gt))
        left_wrong = np.full(len(TIERS), np.nan, np.float32)
        asked = int(rng.choice(len(TIERS), p=ASKED))
        if rng.random() < self.measured and self.restorer is not None:
            whole = small if asked == 0 else photo.small
            thumbnail = Guide(maps=whole[None], names=("red", "green", "blue"), whole=True)
            out = self.restorer(crops[asked][None], Guidance(thumbnail=thumbnail))[0]
            mse = float(np.square(np.clip(out, 0, 1) - crops[2]).mean())
            left_wrong[asked] = difficulty_of(mse)
        task = np.array([name == task_of(spec) for name in self.tasks], np.float32)
        truth = {
            MEDIUM: Guide(maps=crops[1][None]),
            TASK: Guide(vector=task[None], names=self.tasks),
            LEFT: Guide(vector=left_wrong[None], names=TIERS),
        }
        return Cut(crops[0], crops[2], Guidance(), Guidance(truth))

    @staticmethod
    def _damaged(
        photo: Photograph, chain: Chain, sampled: Sampled, crop: int, rng: np.random.Generator
    ) -> Degraded:
        """A crop where the damage shows, or the last that was tried."""
        for more in reversed(range(TRIES)):
            top, left = (int(rng.integers(side - crop + 1)) for side in sampled.size)
            box = View(top, left, crop, crop)
            done = chain.apply(photo.pixels, sampled, box, truth=False, finish="uint8")
            if not more or np.square(done.lq - done.gt).mean() >= SEEN:
                return done
        raise AssertionError

    def batch(self, first: int, count: int, crop: int) -> Batch:
        """As in `Samples`, with all of the truth."""
        lq, gt, _, told = zip(*self.several(range(first, first + count), crop), strict=True)
        truth = stack(told).map(lambda g: g.map(torch.from_numpy))
        return Batch(
            torch.from_numpy(np.stack(lq)), torch.from_numpy(np.stack(gt)), Guidance(), truth
        )


def _narrow(cut: Cut) -> Cut:
    """With the values of files, which take a quarter of the room."""
    truth = cut.truth.with_guide(MEDIUM, cut.truth[MEDIUM].map(_levels))
    return Cut(_levels(cut.lq), _levels(cut.gt), cut.known, truth)


def _wide(cut: Cut) -> Cut:
    truth = cut.truth.with_guide(MEDIUM, cut.truth[MEDIUM].map(as_float))
    return Cut(as_float(cut.lq), as_float(cut.gt), cut.known, truth)


def _levels(pixels: np.ndarray) -> np.ndarray:
    return np.rint(pixels * 255).astype(np.uint8)


def task_of(spec: str) -> str:
    """What a SPEC does, as severity maps are named: noise of a sensor is noise."""
    kinds: Mapping[str, str] = {done: kind for kind, dones in DONE_BY.items() for done in dones}
    done = [kinds[kind] for kind in parse(spec.removeprefix(f"{SOFT}+")).kinds]
    return done[0]


def as_file(pixels: np.ndarray) -> np.ndarray:
    """Rounded to the 256 values of a file, in [0, 1]."""
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.float32) * np.float32(1 / 255)
