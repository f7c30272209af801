"""Training samples: each is a function of (seed, epoch, index), and of nothing before it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from ..guidance import Guidance, Guide, area_resize
from ..image import is_image, read, resize
from ..priors.regions import regions as find_regions
from ..priors.thumbnail import SIDE, thumbnail
from .degrade import View, camera_order, parse


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
        regions: (h, w) int32 at the size the segmenter worked at: haze follows objects.
    """

    name: str
    pixels: np.ndarray
    small: np.ndarray
    regions: np.ndarray


def load_photographs(
    folder: Path, *, factors: tuple[float, float] = (0.7, 1.5), sizes: int = 4, seed: int = 0
) -> list[list[Photograph]]:
    """Every photograph of a folder at `sizes` sizes: its own, and some drawn from `factors`.

    The sizes are made once and kept (a photograph of 1 megapixel takes 3 MB at each), because
    resizing for every crop costs more than the damage does.

    Args:
        folder: Holds images, not searched deeper.
        factors: Smallest and largest resize, drawn log-uniformly, one draw per photograph and size.
        sizes: 1 keeps each photograph as it is.
        seed: Of the draws.

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
        labels = find_regions(rgb).regions[0]
        rng = np.random.default_rng((seed, index))
        low, high = np.log(factors)
        drawn = [1.0, *np.exp(rng.uniform(low, high, sizes - 1)).tolist()]
        photographs.append([_at_size(path.name, rgb, factor, labels) for factor in drawn])
    return photographs


def _at_size(name: str, rgb: np.ndarray, factor: float, labels: np.ndarray) -> Photograph:
    height, width = (max(96, round(side * factor)) for side in rgb.shape[-2:])
    sized = rgb if factor == 1 else np.clip(resize(rgb, height, width), 0, 1)
    pixels = np.rint(sized[0] * 255).astype(np.uint8)
    return Photograph(name, pixels, area_resize(sized[0], SIDE, SIDE), labels)


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


class Samples:
    """The training set: `batch(first, count, crop)` is pure.

    Args:
        photographs: From `load_photographs`.
        damage: What is done to them.
        seed: With epoch and index it decides the photograph, its size, the crop, damage and turn.
        control: What stands in for the thumbnail: `none` is the thumbnail itself, `null` zeros,
            `constant` mid-grey, `shuffled` another sample's; None: nothing reads it, none is made.
    """

    def __init__(
        self,
        photographs: Sequence[Sequence[Photograph]],
        damage: Damage,
        *,
        seed: int,
        control: str | None = "none",
    ) -> None:
        self.photographs, self.damage = photographs, damage
        self.seed, self.control = seed, control

    @property
    def epoch_size(self) -> int:
        return len(self.photographs)

    def batch(self, first: int, count: int, crop: int) -> Batch:
        """Samples number first .. first + count - 1 since the start of the run."""
        drawn = [
            self.sample(*divmod(n, self.epoch_size), crop) for n in range(first, first + count)
        ]
        lq, gt, small = (torch.from_numpy(np.stack(part)) for part in zip(*drawn, strict=True))
        if self.control is None:
            return Batch(lq, gt, Guidance())
        small = {
            "none": lambda: small,
            "null": lambda: torch.zeros_like(small),
            "constant": lambda: torch.full_like(small, 0.5),
            "shuffled": lambda: small.roll(1, 0),
        }[self.control]()
        guide = Guide(maps=small, names=("red", "green", "blue"), whole=True)
        return Batch(lq, gt, Guidance(thumbnail=guide))

    def sample(self, epoch: int, index: int, crop: int) -> tuple[np.ndarray, ...]:
        """lq, gt (3, crop, crop) and the damaged thumbnail (3, 96, 96), all float32 in [0, 1].

        Raises:
            UsageError: The photograph is smaller than the crop.
        """
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.photographs))
        rng = np.random.default_rng((self.seed, epoch, index))
        sizes = self.photographs[order[index]]
        photo = sizes[rng.integers(len(sizes))]
        height, width = photo.pixels.shape[-2:]
        if min(height, width) < crop:
            raise UsageError(
                f"{photo.name} is {width}x{height}, smaller than crops of {crop}. Use smaller ones."
            )
        top, left = (int(rng.integers(side - crop + 1)) for side in (height, width))
        spec = self.damage.draw(rng)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        if spec:
            chain = _chain(spec)
            sampled = chain.sample(generator, (height, width), photo.regions)
            view = View(top, left, crop, crop)
            damaged = chain.apply(photo.pixels, sampled, view, truth=False, finish="uint8")
            lq, gt = damaged.lq, damaged.gt
            small = chain.apply_small(photo.small, sampled) if self.control else photo.small
        else:
            cut = photo.pixels[:, top : top + crop, left : left + crop]
            lq = gt = cut * np.float32(1 / 255)
            small = photo.small
        turn, mirror = int(rng.integers(4)), bool(rng.integers(2))

        def turned(array: np.ndarray) -> np.ndarray:
            array = np.rot90(array, turn, (1, 2))
            return array[..., ::-1] if mirror else array

        return turned(lq), turned(gt), turned(small)


def whole(rgb: np.ndarray) -> Guidance:
    """The guidance that a whole picture (1, 3, H, W) has without any model."""
    return Guidance(thumbnail=thumbnail(rgb))
