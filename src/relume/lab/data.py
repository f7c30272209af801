"""Training samples: each is a function of (seed, epoch, index), and of nothing before it."""

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import repeat

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from ..guidance import Guidance, Guide, stack
from ..image import read
from ..priors.thumbnail import SIDE
from .controls import TOLD_THE_TRUTH
from .degrade import Chain, Sampled, View, camera_order, generator, parse
from .folds import fold_of
from .pairs import ROOM, FilePair, Kept, as_float, planes, scale_of
from .photographs import Photograph, beside, part_of
from .sources import Source, controlled, told_by_gt
from .truth import DONE_BY, residual, severities

DAMAGE = "damage"
"""Name of the severity maps in the truth, and of the prior that predicts them."""
FOLD = "fold"
"""Name in the truth of the number of a photograph's fold, a vector (N, 1)."""
SECOND: tuple[str, ...] = ("again", "elsewhere", "otherwise")
"""Second looks at a sample, as large as its lq and turned as it is: another place of the same
damaged picture; another picture under the same damage; the same place under another damage."""


@dataclass(frozen=True)
class Asks:
    """What an objective has to know of a sample that no network is told.

    Args:
        severities: Kinds of damage, told as maps in the truth under `DAMAGE`.
        second: Words of `SECOND`, in `Batch.second`.
        folds: Number of folds of the photographs, told in the truth under `FOLD`; 0 tells nothing.
    """

    severities: tuple[str, ...] = ()
    second: tuple[str, ...] = ()
    folds: int = 0

    def __bool__(self) -> bool:
        return bool(self.severities or self.second or self.folds)


@dataclass(frozen=True)
class Batch:
    """lq, gt (N, 3, H, W) float32 in [0, 1]; guidance and truth hold tensors with the same N.

    `truth` is empty but where an objective asks what the damage was: no network is told it.
    `second` holds second looks (N, 3, H, W) by their words of `SECOND`, where an objective asks.
    """

    lq: Tensor
    gt: Tensor
    guidance: Guidance
    truth: Guidance = field(default_factory=Guidance)
    second: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])

    def to(self, device: torch.device) -> "Batch":
        known, truth = (
            guidance.map(lambda g: g.map(lambda a: a.to(device)))
            for guidance in (self.guidance, self.truth)
        )
        second = {word: look.to(device) for word, look in self.second.items()}
        return Batch(self.lq.to(device), self.gt.to(device), known, truth, second)


SOFTEST = 0.3
"""Scale to which a photograph is brought down and up again at most: as soft as photographs are at
full size. Pictures that were scaled down are all too sharp, and a network that knows no others
sharpens what a camera wrote."""

LENS = "lens:sigma=0.7..2.4"
"""How soft a lens and the mosaic behind it leave a photograph at full size."""

BLURS = frozenset(DONE_BY["blur"])


class Damage:
    """Draws a chain of damages: how many, then which, in a camera's order.

    Args:
        specs: SPEC (`noise:sigma=5..50`) -> how often it is drawn. One of several steps is drawn as
            a whole, and goes with no other.
        counts: Share of samples with 0, 1, 2, ... damages; sums to 1.
        soft: Share of samples whose photograph is softened before anything happens to it.
        softest: Kind of damage -> scale to which a photograph is brought down at most where that
            happens to it, in the place of `SOFTEST`: blurred pictures are told from soft ones.
        lens: Share of samples whose photograph is as soft as a lens leaves it at full size
            (`LENS`); none of the blurred ones, for nobody could say which of the two is damage.

    Raises:
        UsageError: Shares do not sum to 1, or ask for more damages than there are, or for others
            beside one of several steps.
        RecipeError: A SPEC cannot be read.
    """

    def __init__(
        self,
        specs: Mapping[str, float],
        counts: Sequence[float],
        *,
        soft: float = 0.0,
        softest: Mapping[str, float] | None = None,
        lens: float = 0.0,
    ) -> None:
        self.specs, self.soft, self.softest = tuple(specs), soft, dict(softest or {})
        self.lens = lens
        weights = np.array(list(specs.values()), float)
        self.weights = weights / weights.sum()
        self.counts = np.array(counts, float)
        if abs(self.counts.sum() - 1) > 1e-6 or len(counts) > len(specs) + 1:
            raise UsageError(
                f"data.counts must be shares that sum to 1, at most one more than damages; "
                f"got {list(counts)} for {len(specs)} damages."
            )
        kinds = [parse(spec).kinds for spec in self.specs]
        whole = next((s for s, k in zip(self.specs, kinds, strict=True) if len(k) > 1), "")
        if whole and self.counts[2:].any():
            raise UsageError(
                f"data.damage {whole!r} has several steps and goes with no other damage: give "
                f"data.counts for at most one, got {list(counts)}."
            )
        self.kinds = tuple(first for first, *_ in kinds)

    @property
    def follows_regions(self) -> bool:
        """Whether any of the damages makes use of regions."""
        return any(parse(spec).follows_regions for spec in self.specs)

    def draw(self, rng: np.random.Generator) -> str:
        """A SPEC, "" for none."""
        count = rng.choice(len(self.counts), p=self.counts)
        chosen = rng.choice(len(self.specs), count, replace=False, p=self.weights)
        by_kind = {self.kinds[i]: self.specs[i] for i in chosen}
        steps = [by_kind[kind] for kind in camera_order(by_kind)]
        blurred = not BLURS.isdisjoint(by_kind)
        if self.lens and not blurred and rng.random() < self.lens:
            steps.insert(0, LENS)
        elif self.soft and rng.random() < self.soft:
            steps.insert(0, self.softening(by_kind))
        return "+".join(steps)

    def softening(self, kinds: Collection[str]) -> str:
        """The SPEC of a photograph's own softness, where this is done to it."""
        softest = max((self.softest.get(kind, SOFTEST) for kind in kinds), default=SOFTEST)
        return f"resize:factor={softest:g}..1"


_chain = lru_cache(maxsize=4096)(parse)
TRIES = 64  # draws until another damage is of another kind


def _sampled(photo: Photograph, spec: str, seed: int) -> Sampled | None:
    """A SPEC drawn for a whole photograph; of one seed two photographs get the same damage."""
    if not spec:
        return None
    rng = torch.Generator().manual_seed(seed)
    return _chain(spec).sample(rng, photo.pixels.shape[-2:], photo.regions)


def _maps_of(spec: str) -> set[str]:
    """The severity maps that a SPEC's damages leave."""
    kinds = {*_chain(spec).kinds} if spec else set[str]()
    return {name for name, made in DONE_BY.items() if kinds & {*made}}


@dataclass(frozen=True)
class Cut:
    """One crop: lq (3, h, w), gt, what is known of lq, the truth, and second looks."""

    lq: np.ndarray
    gt: np.ndarray
    known: Guidance
    truth: Guidance
    second: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])

    def turned(self, turn: int, mirror: bool) -> "Cut":
        """Anti-clockwise by so many quarter turns, and then left to right where mirrored."""

        def pixels(array: np.ndarray) -> np.ndarray:
            array = np.rot90(array, turn, (1, 2))
            return array[..., ::-1] if mirror else array

        def told(guidance: Guidance) -> Guidance:
            guidance = guidance.rot90(turn)
            return guidance.flip() if mirror else guidance

        second = {word: pixels(look) for word, look in self.second.items()}
        return Cut(pixels(self.lq), pixels(self.gt), told(self.known), told(self.truth), second)


class Samples(ABC):
    """A training set: `batch(first, count, crop)` is pure.

    Args:
        epoch_size: Pictures.
        seed: With epoch and index it decides the picture, the crop, the damage and the turn.
        sources: Name in the guidance -> what says it.
    """

    def __init__(
        self, epoch_size: int, *, seed: int, sources: Mapping[str, Source] | None = None
    ) -> None:
        self.epoch_size, self.seed, self.sources = epoch_size, seed, dict(sources or {})
        self._drawn = (-1, np.empty(0, np.int64))

    def _order(self, epoch: int) -> np.ndarray:
        """The pictures' numbers as an epoch shows them: one order is kept, for of a third of a
        million it takes as long to draw as a crop."""
        at, order = self._drawn
        if at != epoch:
            order = np.random.default_rng((self.seed, epoch)).permutation(self.epoch_size)
            self._drawn = (epoch, order)  # at once: threads may ask for the same
        return order

    @abstractmethod
    def cut(self, number: int, rng: np.random.Generator, crop: int) -> Cut:
        """A crop of picture `number`; all that is drawn is drawn from `rng`.

        Raises:
            UsageError: The picture is smaller than the crop.
        """

    def batch(self, first: int, count: int, crop: int) -> Batch:
        """Samples number first .. first + count - 1 since the start of the run."""
        drawn = self.several(range(first, first + count), crop)
        lq = torch.from_numpy(np.stack([cut.lq for cut in drawn]))
        gt = torch.from_numpy(np.stack([cut.gt for cut in drawn]))
        names = [name for name in (DAMAGE, FOLD) if name in drawn[0].truth]
        told = [Guidance({name: cut.truth[name] for name in names}) for cut in drawn]
        truth = stack(told).map(lambda g: g.map(torch.from_numpy))
        second = {
            word: torch.from_numpy(np.stack([cut.second[word] for cut in drawn]))
            for word in drawn[0].second
        }
        if not self.sources:
            return Batch(lq, gt, Guidance(), truth, second)
        said = [
            self._controlled(cut.known, cut.truth, drawn[i - 1].known, i + first)
            for i, cut in enumerate(drawn)
        ]
        known = stack(said).map(lambda g: g.map(torch.from_numpy))
        return Batch(lq, gt, known, truth, second)

    def several(self, numbers: Sequence[int], crop: int) -> list[Cut]:
        """The samples of these numbers, in their order."""
        return [self.numbered(number, crop) for number in numbers]

    def numbered(self, number: int, crop: int) -> Cut:
        """Sample `number` since the start of the run."""
        return self.sample(*divmod(number, self.epoch_size), crop)

    def _controlled(
        self, known: Guidance, truth: Guidance, donor: Guidance, number: int
    ) -> Guidance:
        """What the network is told of one sample; the donor is the sample before it."""
        rng = generator(self.seed + 1, number)
        known = controlled(known, self.sources, truth, donor, rng)
        for name, source in self.sources.items():
            if source.dropout and float(torch.rand(1, generator=rng)) < source.dropout:
                known = known.with_guide(name, known[name].null())
        return known

    def sample(self, epoch: int, index: int, crop: int) -> Cut:
        """lq (3, crop, crop) and gt, as many times larger as the damage says, float32 in [0, 1];
        what the priors say of lq, the truth, and second looks.

        Raises:
            UsageError: The photograph is smaller than the crop.
        """
        rng = np.random.default_rng((self.seed, epoch, index))
        cut = self.cut(int(self._order(epoch)[index]), rng, crop)
        return cut.turned(int(rng.integers(4)), bool(rng.integers(2)))


@dataclass(frozen=True)
class _Drawn:
    """The damage of one photograph, and what the priors say of the whole damaged photograph."""

    photo: Photograph
    spec: str
    seed: int
    sampled: Sampled | None
    known: Guidance


class Damaged(Samples):
    """Good photographs, resident, that are damaged as they are drawn.

    Args:
        photographs: From `load_photographs`.
        damage: What is done to them.
        seed, sources: As in `Samples`; the seed decides a photograph's size too.
        windows: Where given, each sample, or each fixed damage, sees a part of its photograph, of
            such shares of its sides, in another light (`part_of`).
        mosaic: Share of the samples whose thumbnail shows a part of another photograph too
            (`beside`); goes with windows.
        severities: Kinds of damage that are told as maps, in the truth under `DAMAGE`; under a
            control of a prior of that name that is told the truth, those that it emits.
        fixed: Damages of each photograph. 0 draws a new one for each sample, which only the
            thumbnail can follow; every other prior looks at so many whole damaged photographs, and
            what it says of them is kept.
        second: Words of `SECOND`: looks that each sample comes with. They have no draws of the
            sample's own: with them or without, the sample is the same.
        folds: Where above 0, the fold of so many that a photograph lies in, in the truth.

    Raises:
        UsageError: A prior that must look at whole pictures, and no fixed damages.
    """

    def __init__(
        self,
        photographs: Sequence[Sequence[Photograph]],
        damage: Damage,
        *,
        seed: int,
        sources: Mapping[str, Source] | None = None,
        windows: tuple[float, float] | None = None,
        mosaic: float = 0.0,
        fixed: int = 0,
        severities: Sequence[str] = (),
        second: Sequence[str] = (),
        folds: int = 0,
    ) -> None:
        super().__init__(len(photographs), seed=seed, sources=sources)
        self.photographs, self.damage = photographs, damage
        self.windows, self.mosaic, self.fixed = windows, mosaic, fixed
        self.severities, self.second, self.folds = tuple(severities), tuple(second), folds
        oracles = {n: s.control for n, s in self.sources.items() if s.control in TOLD_THE_TRUTH}
        self._tells_damage, self._tells_regions = DAMAGE in oracles, bool({*oracles} - {DAMAGE})
        self._tells_residual = oracles.get(DAMAGE) == "oracle_residual"
        self._kept: dict[tuple[int, int], _Drawn] = {}
        slow = [name for name in self.sources if name != "thumbnail"]
        if slow and not fixed:
            raise UsageError(
                f"The prior {slow[0]!r} looks at whole damaged photographs: set data.fixed, the "
                "number of damages that each photograph gets."
            )

    def cut(self, number: int, rng: np.random.Generator, crop: int) -> Cut:
        """A crop of a photograph at one of its sizes, damaged; gt as large as the damage says."""
        drawn = self._fixed(number, int(rng.integers(self.fixed))) if self.fixed else None
        sizes = self.photographs[number]
        photo = drawn.photo if drawn else sizes[int(rng.integers(len(sizes)))]
        if self.windows and not drawn:
            photo = part_of(photo, rng, self.windows, max(crop, SIDE))
            if self.mosaic and rng.random() < self.mosaic:
                others = self.photographs[int(rng.integers(len(self.photographs)))]
                photo = beside(photo, others[0], rng, self.windows)
        scale = drawn.sampled.scale if drawn and drawn.sampled else 1
        height, width = (side // scale for side in photo.pixels.shape[-2:])
        box = anywhere(photo.name, (height, width), crop, rng)
        drawn = drawn or self._draw(photo, rng)
        if drawn.sampled and drawn.sampled.scale != scale:
            raise UsageError("A damage that changes the size needs fixed damages: set data.fixed.")
        kinds = drawn.known[DAMAGE].names if self._tells_damage else self.severities
        did = Guidance()
        if drawn.sampled:
            chain, view = _chain(drawn.spec), box.scaled(scale)
            damaged = chain.apply(
                photo.pixels, drawn.sampled, view, truth=bool(kinds), finish="uint8"
            )
            lq, gt, did = damaged.lq, damaged.gt, damaged.truth
        else:
            cut = box.cut(photo.pixels, View(0, 0, height, width))
            lq = gt = cut * np.float32(1 / 255)
        truth = Guidance()
        if self._tells_regions:
            labels = Guide(regions=photo.regions[None])
            truth = Guidance(regions=labels.resize(height, width)).crop(*box)
        if kinds:
            size = (box.height, box.width)
            truth = truth.with_guide(DAMAGE, severities(did, size, kinds))
        if self._tells_residual:
            truth = truth.with_guide(f"{DAMAGE}.residual", residual(lq, gt, kinds))
        if self.folds:
            fold = np.full((1, 1), fold_of(photo.name, self.folds), np.float32)
            truth = truth.with_guide(FOLD, Guide(vector=fold))
        second: dict[str, np.ndarray] = {}
        if self.second:  # a generator of its own for each: a spawn draws nothing from rng
            owns = dict(zip(SECOND, rng.spawn(len(SECOND)), strict=True))
            second = {w: self._second(w, number, drawn, box, owns[w]) for w in self.second}
        return Cut(lq, gt, drawn.known.crop(*box).map(as_read), truth, second)

    def _second(
        self, word: str, number: int, drawn: _Drawn, box: View, rng: np.random.Generator
    ) -> np.ndarray:
        """A second look (3, h, w) at a sample of photograph `number`; see `SECOND`.

        Raises:
            UsageError: There is no other damage, or not the room for a crop.
        """
        photo, spec, seed = drawn.photo, drawn.spec, drawn.seed
        if word == "otherwise":
            spec, seed = self._other_than(spec, rng), int(rng.integers(2**62))
        if word == "elsewhere":
            others = [n for n in range(self.epoch_size) if n != number] or [number]
            sizes = self.photographs[int(rng.choice(others))]
            photo = sizes[int(rng.integers(len(sizes)))]
            if self.windows:
                photo = part_of(photo, rng, self.windows, max(box.height, SIDE))
        size = (photo.pixels.shape[-2], photo.pixels.shape[-1])
        sampled = drawn.sampled if word == "again" else _sampled(photo, spec, seed)
        scale = sampled.scale if sampled else 1
        if word != "otherwise":
            box = anywhere(photo.name, (size[0] // scale, size[1] // scale), box.height, rng)
        if sampled is None:
            return box.cut(photo.pixels, View(0, 0, *size)) * np.float32(1 / 255)
        return (
            _chain(spec)
            .apply(photo.pixels, sampled, box.scaled(scale), truth=False, finish="uint8")
            .lq
        )

    def _other_than(self, spec: str, rng: np.random.Generator) -> str:
        """A SPEC whose damages leave other maps."""
        for _ in range(TRIES):
            other = self.damage.draw(rng)
            if _maps_of(other) != _maps_of(spec):
                return other
        raise UsageError(
            f"{TRIES} draws of data.damage are all of one kind with {spec or 'no damage'!r}: the "
            "same picture under another damage needs a second kind, or another contrast."
        )

    def _draw(self, photo: Photograph, rng: np.random.Generator) -> _Drawn:
        """A new damage, and the thumbnail that follows it."""
        spec = self.damage.draw(rng)
        seed = int(rng.integers(2**62))
        small, sampled = photo.small, _sampled(photo, spec, seed)
        if sampled and "thumbnail" in self.sources:
            small = _chain(spec).apply_small(small, sampled)
        thumbnail = Guide(maps=small[None], names=("red", "green", "blue"), whole=True)
        known = {"thumbnail": thumbnail} if "thumbnail" in self.sources else {}
        return _Drawn(photo, spec, seed, sampled, Guidance(known))

    def _fixed(self, number: int, variant: int) -> _Drawn:
        """Damage `variant` of a photograph: drawn once, and looked at once."""
        key = (number, variant)
        if key not in self._kept:
            rng = np.random.default_rng((self.seed, 1 << 40, number, variant))
            sizes = self.photographs[number]
            photo = sizes[int(rng.integers(len(sizes)))]
            if self.windows:
                photo = part_of(photo, rng, self.windows, SIDE)
            drawn = self._draw(photo, rng)
            self._kept[key] = replace(drawn, known=self._looked(drawn))
        return self._kept[key]

    def _looked(self, drawn: _Drawn) -> Guidance:
        """What the priors say of a whole damaged photograph."""
        if not self.sources:
            return Guidance()
        rgb = drawn.photo.pixels * np.float32(1 / 255)
        if drawn.sampled:
            chain: Chain = _chain(drawn.spec)
            rgb = chain.apply(drawn.photo.pixels, drawn.sampled, truth=False, finish="uint8").lq
        asked = {name: s.looking_at(drawn.photo.name) for name, s in self.sources.items()}
        return Guidance({name: p(rgb[None]) for name, p in asked.items()}).map(compact)


@dataclass(frozen=True)
class _Seen:
    """A pair as it is kept: samples in the files' own depth, labels in the smallest type."""

    lq: np.ndarray
    gt: np.ndarray
    known: Guidance
    truth: Guidance

    @property
    def size(self) -> int:
        guides = (*self.known.values(), *self.truth.values())
        return self.lq.nbytes + self.gt.nbytes + sum(g.array.nbytes for g in guides)


class Paired(Samples):
    """Real pairs, read when they are drawn: thousands of them need not fit into memory.

    Every prior looks at the whole damaged picture, each time that it is read: give it one that
    remembers (`priors.cache`).

    Args:
        pairs: From `find_pairs`.
        seed, sources: As in `Samples`.
        room: Bytes of pairs that stay in memory.

    Raises:
        UsageError: A gt that is not as large as its lq, or the same whole number of times larger.
        PictureError: A file cannot be read.
    """

    def __init__(
        self,
        pairs: Sequence[FilePair],
        *,
        seed: int,
        sources: Mapping[str, Source] | None = None,
        room: int = ROOM,
    ) -> None:
        super().__init__(len(pairs), seed=seed, sources=sources)
        self.pairs, self.scale = pairs, scale_of(pairs)
        # A PNG cannot be read from its middle, so a crop costs the whole file. The 2,103 pairs of
        # GoPro take 12 GB decoded: a few hundred stay, the others are decoded side by side.
        self._kept = Kept[_Seen](lambda seen: seen.size, room=room)
        self._readers = ThreadPoolExecutor(min(8, os.cpu_count() or 1))

    def several(self, numbers: Sequence[int], crop: int) -> list[Cut]:
        """As in `Samples`, several files at a time."""
        return list(self._readers.map(self.numbered, numbers, repeat(crop)))

    def cut(self, number: int, rng: np.random.Generator, crop: int) -> Cut:
        """A crop anywhere in the pair."""
        pair = self.pairs[number]
        seen = self._kept.get(number, lambda: self._see(pair))
        height, width = seen.lq.shape[-2:]
        box = anywhere(pair.name, (height, width), crop, rng)
        far, s = box.scaled(self.scale), self.scale
        return Cut(
            as_float(box.cut(seen.lq, View(0, 0, height, width))),
            as_float(far.cut(seen.gt, View(0, 0, height * s, width * s))),
            seen.known.crop(*box).map(as_read),
            seen.truth.crop(*box).map(as_read),
        )

    def _see(self, pair: FilePair) -> _Seen:
        lq, gt = read(pair.lq), read(pair.gt)
        known = truth = Guidance()
        if self.sources:
            rgb = lq.rgb()
            known = Guidance({name: source.prior(rgb) for name, source in self.sources.items()})
            truth = told_by_gt(gt.rgb(), self.sources, (lq.height, lq.width))
        stored = (said.map(compact).map(narrow_labels) for said in (known, truth))
        return _Seen(planes(lq), planes(gt), *stored)


def anywhere(name: str, size: tuple[int, int], crop: int, rng: np.random.Generator) -> View:
    """A square of `crop` pixels anywhere in a picture of (height, width).

    Raises:
        UsageError: There is not the room for it.
    """
    height, width = size
    if min(size) < crop:
        raise UsageError(
            f"{name} is {width}x{height}, smaller than crops of {crop}. Use smaller ones."
        )
    top, left = (int(rng.integers(side - crop + 1)) for side in size)
    return View(top, left, crop, crop)


def compact(guide: Guide) -> Guide:
    """Without what a crop does not need, so that thousands stay resident: ten maps of whole
    photographs weigh 40 bytes a pixel."""
    if guide.kind == "regions":
        return Guide(regions=guide.regions)
    plain = guide.kind == "maps" and not guide.whole
    return guide.map(lambda a: a.astype(np.float16)) if plain else guide


def narrow_labels(guide: Guide) -> Guide:
    if guide.kind != "regions":
        return guide
    return guide.map(lambda labels: labels.astype(np.min_scalar_type(int(labels.max()))))


def as_read(guide: Guide) -> Guide:
    """What was kept, as a network reads it."""
    if guide.kind not in ("regions", "maps"):
        return guide
    return guide.map(lambda a: a.astype(np.int32 if guide.kind == "regions" else np.float32))
