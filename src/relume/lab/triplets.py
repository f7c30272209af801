"""One crop in three qualities: as it was damaged, as a poor restorer leaves it, and as it was."""

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from ..errors import UsageError
from ..guidance import Guidance, Guide, stack
from ..priors.quality import TIERS, difficulty_of
from .data import Batch, Cut, Damage, Samples
from .degrade import Chain, Degraded, Sampled, View, parse
from .folds import fold_of
from .pairs import Kept, as_float
from .photographs import Photograph, part_of
from .truth import DONE_BY

MEDIUM, TASK, LEFT, TOLD = "tiers.medium", "tiers.task", "tiers.left", "tiers.told"
"""In the truth: the crop of medium quality, maps (N, 3, h, w); what was done to it, vector (N, T),
one of which is 1; difficulty of the three crops in the order of `TIERS`, vector (N, 3), NaN where
it was not measured; whether the tiers of the three can be told, vector (N, 1), 1 or 0: of a
photograph that a lens left soft nobody can say which it is of, but for their order."""

BLUR = "blur"

Restores = Callable[[np.ndarray, Guidance], np.ndarray]
"""(1, 3, h, w) in [0, 1] and what is known of it -> the restored picture, not clipped."""

KEPT = (0.1, 0.45)
"""How much of the damage a medium crop keeps: a lq + (1 - a) out, a drawn between these, which is
what a residual restorer gives that was stopped before it was done."""

HELPED = 0.9
"""Share of the error of the damaged crop below which a medium one is better: where a restorer helps
less, nobody could tell the two apart, and something else stands in the place of what it makes: of
blur a shorter one (`milder`), of anything else the clean crop."""

SHORTER = (0.25, 0.4)
"""Length of the blur that is left, drawn between these, of what it was."""

LIT = 0.5
"""Share of the triplets, where there are windows, of a part in another light. Not of all: of 256
values another light leaves gaps between, which no file of a camera has."""

SEEN, TRIES = 1e-4, 4
"""Mean squared error below which (40 dB) a crop is not damaged: between two drops, or of a wall
that was blurred; and how many places are tried for a worse one."""

ASKED = (0.6, 0.2, 0.2)
"""How often it is the damaged, the medium, the clean crop whose difficulty is measured."""


class Triplets(Samples):
    """Triplets of crops at their own resolution: lq is low, gt is high, medium lies in the truth.

    The first stage of Perceive-IR (arXiv 2408.15994) learns tiers from such triplets; its medium
    pictures come from a Restormer of 20,000 steps, trained on the other half of the pictures: of
    what it knows by heart a poor restorer is a good one. Here they are what restorers of two folds
    make of the photographs that each was trained without, or one for all, mixed with the damaged
    crop (`between`).

    All three are as files hold them, in 256 values: no tier may be told by its fractions.

    Args:
        photographs: From `load_photographs`.
        damage: What is done to them; one damage at a time, away from severity 0.
        seed: Decides all that is drawn.
        medium: The restorer that looks at the photographs of each fold (`folds.fold_of`), or one,
            which looks at all: what it learnt of them by heart, the mixture has to make up for.
        restorer: Whose error is the difficulty; None measures none.
        measured: Share of the triplets of which one crop's difficulty is measured beside what comes
            by itself, where it makes the medium crop too: that restorer is the dearest of all that
            happens here.
        windows: As in `Damaged`.
        fixed: Triplets of each photograph, which are kept once they are made and come again turned
            and mirrored; 0 makes new ones.

    Raises:
        UsageError: There is no restorer.
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
        if not medium:
            raise UsageError("data.medium names no restorer: what makes crops of medium quality?")
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
        chain, drawn = parse(spec), int(rng.integers(2**62))
        sampled = chain.sample(torch.Generator().manual_seed(drawn), size)
        done, box = self._damaged(photo, chain, sampled, crop, rng)
        small = chain.apply_small(photo.small, sampled)
        known = Guidance(thumbnail=_thumbnail(small))
        folds = len(self.medium)
        who = self.medium[fold_of(photo.name, folds) if folds > 1 else 0]
        made = who(done.lq[None], known)[0]

        def less() -> np.ndarray:
            fewer = parse(milder(spec, rng.uniform(*SHORTER)))
            again = fewer.sample(torch.Generator().manual_seed(drawn), size)
            return fewer.apply(photo.pixels, again, box, truth=False, finish="uint8").lq

        instead = less if task_of(spec) == BLUR else None
        medium = between(done.lq, made, done.gt, rng.uniform(*KEPT), instead)
        crops = (done.lq, medium, as_file(done.gt))
        left_wrong = np.full(len(TIERS), np.nan, np.float32)
        asked = int(rng.choice(len(TIERS), p=ASKED))
        if who is self.restorer:
            left_wrong[0] = difficulty_of(_mse(np.clip(made, 0, 1), crops[2]))
        if rng.random() < self.measured and self.restorer and np.isnan(left_wrong[asked]):
            told = known if asked == 0 else Guidance(thumbnail=_thumbnail(photo.small))
            out = self.restorer(crops[asked][None], told)[0]
            left_wrong[asked] = difficulty_of(_mse(np.clip(out, 0, 1), crops[2]))
        task = np.array([name == task_of(spec) for name in self.tasks], np.float32)
        truth = {
            MEDIUM: Guide(maps=crops[1][None]),
            TASK: Guide(vector=task[None], names=self.tasks),
            LEFT: Guide(vector=left_wrong[None], names=TIERS),
            TOLD: Guide(
                vector=np.array([["lens" not in chain.kinds]], np.float32), names=("told",)
            ),
        }
        return Cut(crops[0], crops[2], Guidance(), Guidance(truth))

    @staticmethod
    def _damaged(
        photo: Photograph, chain: Chain, sampled: Sampled, crop: int, rng: np.random.Generator
    ) -> tuple[Degraded, View]:
        """A crop where the damage shows, or the last that was tried, and where it lies."""
        for more in reversed(range(TRIES)):
            top, left = (int(rng.integers(side - crop + 1)) for side in sampled.size)
            box = View(top, left, crop, crop)
            done = chain.apply(photo.pixels, sampled, box, truth=False, finish="uint8")
            if not more or _mse(done.lq, done.gt) >= SEEN:
                return done, box
        raise AssertionError

    def batch(self, first: int, count: int, crop: int) -> Batch:
        """As in `Samples`, with all of the truth."""
        cuts = self.several(range(first, first + count), crop)
        lq = torch.from_numpy(np.stack([cut.lq for cut in cuts]))
        gt = torch.from_numpy(np.stack([cut.gt for cut in cuts]))
        truth = stack([cut.truth for cut in cuts]).map(lambda g: g.map(torch.from_numpy))
        return Batch(lq, gt, Guidance(), truth)


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
    # A photograph that was softened first is what it is: softness is no damage, and no task.
    return next(kinds[kind] for kind in parse(spec).kinds if kind in kinds)


def between(
    lq: np.ndarray,
    out: np.ndarray,
    gt: np.ndarray,
    kept: float,
    instead: Callable[[], np.ndarray] | None = None,
) -> np.ndarray:
    """A crop of medium quality, as a file holds it: `kept` of the damage is left.

    Args:
        lq, out, gt: Damaged, as a poor restorer leaves it, and clean; (3, h, w) in [0, 1].
        kept: a of a lq + (1 - a) out.
        instead: What stands in its place where the restorer does not help (`HELPED`); left out,
            a lq + (1 - a) gt does.
    """
    if _mse(np.clip(out, 0, 1), gt) <= HELPED * _mse(lq, gt):
        return as_file(kept * lq + (1 - kept) * out)
    return as_file(instead() if instead else kept * lq + (1 - kept) * gt)


def milder(spec: str, share: float) -> str:
    """A SPEC of blur with so much of its length or radius; drawn by the same seed it is the same
    blur, shorter. One that blurs nothing stays as it is."""

    def shorter(found: re.Match[str]) -> str:
        return f"{found[1]}={'..'.join(f'{share * float(end):g}' for end in found[2].split('..'))}"

    return re.sub(r"(length|radius)=([\d.]+)", shorter, spec)


def _mse(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.square(a - b).mean())


def _thumbnail(small: np.ndarray) -> Guide:
    return Guide(maps=small[None], names=("red", "green", "blue"), whole=True)


def as_file(pixels: np.ndarray) -> np.ndarray:
    """Rounded to the 256 values of a file, in [0, 1]."""
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.float32) * np.float32(1 / 255)
