"""Training samples: each is a function of (seed, epoch, index), and of nothing before it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..engine import Engine
from ..errors import UsageError
from ..guidance import Guidance, Guide, Kind, area_resize, stack
from ..image import is_image, read, resize
from ..priors import Prior
from ..priors.regions import regions as find_regions
from ..priors.thumbnail import SIDE
from ..restoration import priors_of, run_model
from .controls import CONTROLS
from .degrade import Chain, Sampled, View, camera_order, generator, parse
from .segmentations import human_regions


@dataclass(frozen=True)
class Batch:
    """lq, gt (N, 3, H, W) float32 in [0, 1]; guidance holds tensors with the same N."""

    lq: Tensor
    gt: Tensor
    guidance: Guidance

    def to(self, device: torch.device) -> "Batch":
        moved = self.guidance.map(lambda g: g.map(lambda a: a.to(device)))
        return Batch(self.lq.to(device), self.gt.to(device), moved)


@dataclass(frozen=True)
class Photograph:
    """One training photograph at one size, resident.

    Args:
        name: Its file's name.
        pixels: (3, H, W) uint8.
        small: (3, 96, 96) float32 in [0, 1], its thumbnail.
        coarse: (3, H // 4, W // 4) uint8, means of 4 x 4 pixels: what thumbnails of its parts are
            made from.
        regions: (h, w) int32 at any resolution: what haze and `regionblur` follow. Human ones, at
            the picture's own size, are the oracle of a region prior too.
    """

    name: str
    pixels: np.ndarray
    small: np.ndarray
    coarse: np.ndarray
    regions: np.ndarray


def load_photographs(
    folder: Path,
    *,
    factors: tuple[float, float] = (0.7, 1.5),
    sizes: int = 4,
    seed: int = 0,
    segmentations: Path | None = None,
) -> list[list[Photograph]]:
    """Every photograph of a folder at `sizes` sizes: its own, and some drawn from `factors`.

    The sizes are made once and kept (a photograph of 1 megapixel takes 3 MB at each), because
    resizing for every crop costs more than the damage does.

    Args:
        folder: Holds images, not searched deeper.
        factors: Smallest and largest resize, drawn log-uniformly, one draw per photograph and size.
        sizes: 1 keeps each photograph as it is.
        seed: Of the draws.
        segmentations: Folder of human segmentations with the photographs' names; None: our own.

    Returns:
        A list per photograph, of its sizes.

    Raises:
        UsageError: There is no image in the folder.
    """
    paths = sorted(p for p in folder.iterdir() if is_image(p)) if folder.is_dir() else []
    if not paths:
        raise UsageError(f"No photographs in {folder}. Give a folder of them as data.photographs.")
    photographs = []
    for index, path in enumerate(paths):
        rgb = read(path).rgb()
        labels = (
            human_regions(segmentations / f"{path.stem}.mat")
            if segmentations
            else find_regions(rgb).regions[0]
        )
        rng = np.random.default_rng((seed, index))
        low, high = np.log(factors)
        drawn = [1.0, *np.exp(rng.uniform(low, high, sizes - 1)).tolist()]
        photographs.append([_at_size(path.name, rgb, factor, labels) for factor in drawn])
    return photographs


def _at_size(name: str, rgb: np.ndarray, factor: float, labels: np.ndarray) -> Photograph:
    height, width = (max(96, round(side * factor)) for side in rgb.shape[-2:])
    sized = rgb if factor == 1 else np.clip(resize(rgb, height, width), 0, 1)
    pixels = np.rint(sized[0] * 255).astype(np.uint8)
    coarse = area_resize(sized[0, :, : height // 4 * 4, : width // 4 * 4], height // 4, width // 4)
    coarse = np.rint(coarse * 255).astype(np.uint8)
    return Photograph(name, pixels, area_resize(sized[0], SIDE, SIDE), coarse, labels)


def part_of(
    photo: Photograph, rng: np.random.Generator, windows: tuple[float, float], least: int
) -> Photograph:
    """A part of a photograph in another light, as if it were a photograph of its own.

    A network that is shown thumbnails learns a hundred photographs by heart, and then corrects the
    colours of an unknown picture towards the one it remembers. Parts and light that never come
    again leave it nothing to remember but the damage.

    Args:
        windows: Smallest and largest side of the part, as a share of the photograph's.
        least: Smallest side in pixels.
    """
    tops, sides = [], []
    for have in photo.pixels.shape[-2:]:
        side = round(have * rng.uniform(*windows))
        side = min(max(side, least), have) // 4 * 4
        tops.append(int(rng.integers((have - side) // 4 + 1)) * 4)
        sides.append(side)
    (top, left), (height, width) = tops, sides
    # A camera's choices: exposure, white balance, contrast curve.
    gain = rng.uniform(0.7, 1.1) * rng.uniform(0.92, 1.08, 3)
    values = (np.arange(256) / 255) ** np.exp(rng.uniform(-0.35, 0.35))
    light = np.rint(np.clip(gain[:, None] * values, 0, 1) * 255).astype(np.uint8)

    def lit(pixels: np.ndarray) -> np.ndarray:
        return np.stack([table.take(plane) for table, plane in zip(light, pixels, strict=True)])

    pixels = lit(photo.pixels[:, top : top + height, left : left + width])
    rows, columns = slice(top // 4, (top + height) // 4), slice(left // 4, (left + width) // 4)
    coarse = lit(photo.coarse[:, rows, columns])
    small = area_resize(coarse.astype(np.float32) / np.float32(255), SIDE, SIDE)
    (h, w), (full_h, full_w) = photo.regions.shape, photo.pixels.shape[-2:]
    regions = photo.regions[
        top * h // full_h : max(top * h // full_h + 1, (top + height) * h // full_h),
        left * w // full_w : max(left * w // full_w + 1, (left + width) * w // full_w),
    ]
    return Photograph(photo.name, pixels, small.astype(np.float32), coarse, regions)


class Damage:
    """Draws a chain of damages: how many, then which, in a camera's order.

    Args:
        specs: SPEC of one kind each (`noise:sigma=5..50`) -> how often it is drawn.
        counts: Share of samples with 0, 1, 2, ... damages; sums to 1.

    Raises:
        UsageError: Shares do not sum to 1, or ask for more damages than there are.
        RecipeError: A SPEC cannot be read.
    """

    def __init__(self, specs: Mapping[str, float], counts: Sequence[float]) -> None:
        self.specs = tuple(specs)
        weights = np.array(list(specs.values()), float)
        self.weights = weights / weights.sum()
        self.counts = np.array(counts, float)
        if abs(self.counts.sum() - 1) > 1e-6 or len(counts) > len(specs) + 1:
            raise UsageError(
                f"data.counts must be shares that sum to 1, at most one more than damages; "
                f"got {list(counts)} for {len(specs)} damages."
            )
        self.kinds = tuple(parse(spec).kinds[0] for spec in self.specs)

    def draw(self, rng: np.random.Generator) -> str:
        """A SPEC, "" for none."""
        count = rng.choice(len(self.counts), p=self.counts)
        chosen = rng.choice(len(self.specs), count, replace=False, p=self.weights)
        by_kind = {self.kinds[i]: self.specs[i] for i in chosen}
        return "+".join(by_kind[kind] for kind in camera_order(by_kind))


_chain = lru_cache(maxsize=4096)(parse)


@dataclass(frozen=True)
class Source:
    """One prior as a training run feeds it.

    Args:
        prior: What looks at the whole damaged picture.
        control: What stands in for what it says: a row of CONTROLS, or `none`.
        dropout: Share of the samples that are told nothing, so that one set of weights runs with
            the prior and without.
    """

    prior: Prior
    control: str = "none"
    dropout: float = 0.0


class AfterModel:
    """A prior that looks at what a model makes of the picture: SAM-Deblur's pre-deblurring.

    Args:
        prior: What looks.
        engine: The model that runs first, with its own priors.
    """

    def __init__(self, prior: Prior, engine: Engine) -> None:
        self.prior, self.engine = prior, engine
        self.spec: Kind = prior.spec
        self.max_side = prior.max_side
        self.own = priors_of(engine.card, "auto")

    def __call__(self, rgb: np.ndarray) -> Guide:
        restored, _ = run_model(rgb, self.engine, self.own)
        return self.prior(np.clip(restored, 0, 1))


@dataclass(frozen=True)
class _Drawn:
    """The damage of one photograph, and what the priors say of the whole damaged photograph."""

    photo: Photograph
    spec: str
    sampled: Sampled | None
    known: Guidance


class Samples:
    """The training set: `batch(first, count, crop)` is pure.

    Args:
        photographs: From `load_photographs`.
        damage: What is done to them.
        seed: With epoch and index it decides the photograph, its size, the crop, damage and turn.
        sources: Name in the guidance -> what says it.
        windows: Where given, each sample sees a part of its photograph, of such shares of its
            sides, in another light (`part_of`).
        fixed: Damages of each photograph. 0 draws a new one for each sample, which only the
            thumbnail can follow; every other prior looks at so many whole damaged photographs, and
            what it says of them is kept.

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
        fixed: int = 0,
    ) -> None:
        self.photographs, self.damage = photographs, damage
        self.seed, self.sources, self.fixed = seed, dict(sources or {}), fixed
        self.windows = windows
        self._kept: dict[tuple[int, int], _Drawn] = {}
        slow = [name for name in self.sources if name != "thumbnail"]
        if slow and not fixed:
            raise UsageError(
                f"The prior {slow[0]!r} looks at whole damaged photographs: set data.fixed, the "
                "number of damages that each photograph gets."
            )

    @property
    def epoch_size(self) -> int:
        return len(self.photographs)

    def batch(self, first: int, count: int, crop: int) -> Batch:
        """Samples number first .. first + count - 1 since the start of the run."""
        drawn = [
            self.sample(*divmod(n, self.epoch_size), crop) for n in range(first, first + count)
        ]
        lq = torch.from_numpy(np.stack([s[0] for s in drawn]))
        gt = torch.from_numpy(np.stack([s[1] for s in drawn]))
        if not self.sources:
            return Batch(lq, gt, Guidance())
        said = [self._controlled(*drawn[i][2:], drawn[i - 1][2], i + first) for i in range(count)]
        known = stack(said).map(lambda g: g.map(torch.from_numpy))
        return Batch(lq, gt, known)

    def _controlled(
        self, known: Guidance, truth: Guidance, donor: Guidance, number: int
    ) -> Guidance:
        """What the network is told of one sample; the donor is the sample before it."""
        rng = generator(self.seed + 1, number)
        for name, source in self.sources.items():
            one = Guidance({name: known[name]})
            if source.control != "none":
                one = CONTROLS[source.control](one, truth, donor, rng)
            if source.dropout and float(torch.rand(1, generator=rng)) < source.dropout:
                one = one.null()
            known = known.with_guide(name, one[name])
        return known

    def sample(
        self, epoch: int, index: int, crop: int
    ) -> tuple[np.ndarray, np.ndarray, Guidance, Guidance]:
        """lq (3, crop, crop) and gt, as many times larger as the damage says, float32 in [0, 1];
        what the priors say of lq, and the truth.

        Raises:
            UsageError: The photograph is smaller than the crop.
        """
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.photographs))
        rng = np.random.default_rng((self.seed, epoch, index))
        number = int(order[index])
        drawn = self._fixed(number, int(rng.integers(self.fixed))) if self.fixed else None
        sizes = self.photographs[number]
        photo = drawn.photo if drawn else sizes[int(rng.integers(len(sizes)))]
        if self.windows and not drawn:
            photo = part_of(photo, rng, self.windows, max(crop, SIDE))
        scale = drawn.sampled.scale if drawn and drawn.sampled else 1
        height, width = (side // scale for side in photo.pixels.shape[-2:])
        if min(height, width) < crop:
            raise UsageError(
                f"{photo.name} is {width}x{height}, smaller than crops of {crop}. Use smaller ones."
            )
        top, left = (int(rng.integers(side - crop + 1)) for side in (height, width))
        box = View(top, left, crop, crop)
        drawn = drawn or self._draw(photo, rng)
        if drawn.sampled and drawn.sampled.scale != scale:
            raise UsageError("A damage that changes the size needs fixed damages: set data.fixed.")
        view = box.scaled(scale)
        if drawn.sampled:
            chain = _chain(drawn.spec)
            damaged = chain.apply(photo.pixels, drawn.sampled, view, truth=False, finish="uint8")
            lq, gt = damaged.lq, damaged.gt
        else:
            cut = box.cut(photo.pixels, View(0, 0, height, width))
            lq = gt = cut * np.float32(1 / 255)
        turn, mirror = int(rng.integers(4)), bool(rng.integers(2))

        def turned(array: np.ndarray) -> np.ndarray:
            array = np.rot90(array, turn, (1, 2))
            return array[..., ::-1] if mirror else array

        def told(guidance: Guidance) -> Guidance:
            guidance = guidance.crop(*box).rot90(turn)
            return guidance.flip() if mirror else guidance

        truth = Guidance()
        if any(source.control == "oracle" for source in self.sources.values()):
            labels = Guide(regions=photo.regions[None])
            truth = Guidance(regions=labels.resize(height, width))
        return turned(lq), turned(gt), told(drawn.known), told(truth)

    def _draw(self, photo: Photograph, rng: np.random.Generator) -> _Drawn:
        """A new damage, and the thumbnail that follows it."""
        spec = self.damage.draw(rng)
        seed = int(rng.integers(2**62))
        small, sampled = photo.small, None
        if spec:
            chain = _chain(spec)
            size = photo.pixels.shape[-2:]
            sampled = chain.sample(torch.Generator().manual_seed(seed), size, photo.regions)
            if "thumbnail" in self.sources:
                small = chain.apply_small(small, sampled)
        thumbnail = Guide(maps=small[None], names=("red", "green", "blue"), whole=True)
        known = {"thumbnail": thumbnail} if "thumbnail" in self.sources else {}
        return _Drawn(photo, spec, sampled, Guidance(known))

    def _fixed(self, number: int, variant: int) -> _Drawn:
        """Damage `variant` of a photograph: drawn once, and looked at once."""
        key = (number, variant)
        if key not in self._kept:
            rng = np.random.default_rng((self.seed, 1 << 40, number, variant))
            sizes = self.photographs[number]
            drawn = self._draw(sizes[int(rng.integers(len(sizes)))], rng)
            rgb = drawn.photo.pixels * np.float32(1 / 255)
            if drawn.sampled:
                chain: Chain = _chain(drawn.spec)
                rgb = chain.apply(drawn.photo.pixels, drawn.sampled, truth=False, finish="uint8").lq
            looked = {name: source.prior(rgb[None]) for name, source in self.sources.items()}
            self._kept[key] = _Drawn(
                drawn.photo, drawn.spec, drawn.sampled, Guidance(looked).map(_small_labels)
            )
        return self._kept[key]


def _small_labels(guide: Guide) -> Guide:
    """Without what a crop does not need, so that thousands stay resident."""
    return Guide(regions=guide.regions) if guide.kind == "regions" else guide
