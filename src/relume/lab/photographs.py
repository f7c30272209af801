"""Training photographs as they lie in memory: each at several sizes, and parts in another light."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import UsageError
from ..guidance import area_resize
from ..image import is_image, read, resize
from ..priors.cache import Cache, key_of
from ..priors.regions import regions as find_regions
from ..priors.thumbnail import SIDE
from .segmentations import human_regions


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
    without: Callable[[str], bool] = lambda name: False,
    followed: bool = True,
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
        without: A file's name -> whether it is left out.
        followed: False where nothing looks at the regions: then each photograph is one, and none
            are looked for.

    Returns:
        A list per photograph, of its sizes.

    Raises:
        UsageError: There is no image in the folder, or all are left out.
    """
    found = sorted(p for p in folder.iterdir() if is_image(p)) if folder.is_dir() else []
    paths = [path for path in found if not without(path.name)]
    if not paths:
        raise UsageError(f"No photographs in {folder}. Give a folder of them as data.photographs.")
    photographs = []
    for index, path in enumerate(paths):
        rgb = read(path).rgb()
        labels = (
            human_regions(segmentations / f"{path.stem}.mat")
            if segmentations
            else _regions(rgb)
            if followed
            else np.ones((1, 1), np.int32)
        )
        rng = np.random.default_rng((seed, index))
        low, high = np.log(factors)
        drawn = [1.0, *np.exp(rng.uniform(low, high, sizes - 1)).tolist()]
        photographs.append([_at_size(path.name, rgb, factor, labels) for factor in drawn])
    return photographs


def _regions(rgb: np.ndarray) -> np.ndarray:
    """The plain segmentation, half a second a megapixel: every run of a table asks for it again."""
    cache, key = Cache(), key_of(rgb, {"prior": "regions, plain"})
    stored = cache.get(key)
    if stored is None:
        labels = find_regions(rgb).regions[0]
        cache.put(key, {"labels": labels.astype(np.min_scalar_type(labels.max()))})
        return labels
    return stored["labels"].astype(np.int32)


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
    top, left, height, width = _window(photo, rng, windows, least)
    light = _light(rng)
    pixels = _lit(photo.pixels[:, top : top + height, left : left + width], light)
    coarse = _coarse(photo, (top, left, height, width), light)
    small = area_resize(coarse.astype(np.float32) / np.float32(255), SIDE, SIDE)
    (h, w), (full_h, full_w) = photo.regions.shape, photo.pixels.shape[-2:]
    regions = photo.regions[
        top * h // full_h : max(top * h // full_h + 1, (top + height) * h // full_h),
        left * w // full_w : max(left * w // full_w + 1, (left + width) * w // full_w),
    ]
    return Photograph(photo.name, pixels, small.astype(np.float32), coarse, regions)


def beside(
    photo: Photograph, other: Photograph, rng: np.random.Generator, windows: tuple[float, float]
) -> Photograph:
    """The photograph, its thumbnail squeezed to leave room for a part of another photograph.

    Two by two, a hundred photographs make ten thousand pictures. What the halves share is the
    damage, which is drawn over both of them.

    Args:
        windows: Smallest and largest side of the other's part, as a share of its own.
    """
    coarse = _coarse(other, _window(other, rng, windows, SIDE), _light(rng))
    room = round(SIDE * rng.uniform(0.3, 0.7))
    mine = area_resize(photo.small, SIDE, SIDE - room)
    theirs = area_resize(coarse.astype(np.float32) / np.float32(255), SIDE, room)
    halves = [mine, theirs] if rng.integers(2) else [theirs, mine]
    small = np.concatenate(halves, 2)
    if rng.integers(2):
        small = small.transpose(0, 2, 1)
    return replace(photo, small=np.ascontiguousarray(small, np.float32))


def _window(
    photo: Photograph, rng: np.random.Generator, windows: tuple[float, float], least: int
) -> tuple[int, int, int, int]:
    """top, left, height and width of a part, in pixels, on the grid of `coarse`."""
    tops, sides = [], []
    for have in photo.pixels.shape[-2:]:
        side = round(have * rng.uniform(*windows))
        side = min(max(side, least), have) // 4 * 4
        tops.append(int(rng.integers((have - side) // 4 + 1)) * 4)
        sides.append(side)
    return tops[0], tops[1], sides[0], sides[1]


def _light(rng: np.random.Generator) -> np.ndarray:
    """(3, 256) uint8, what becomes of each level of each channel in another light.

    A camera's choices: exposure, white balance, contrast curve. And the day's: far things are pale
    in photographs that nobody calls hazy.
    """
    gain = rng.uniform(0.6, 1.1) * rng.uniform(0.9, 1.1, 3)
    values = (np.arange(256) / 255) ** np.exp(rng.uniform(-0.4, 0.4))
    veil = rng.uniform(0, 0.1)
    light = gain[:, None] * values * (1 - veil) + veil * rng.uniform(0.7, 1.0)
    return np.rint(np.clip(light, 0, 1) * 255).astype(np.uint8)


def _lit(pixels: np.ndarray, light: np.ndarray) -> np.ndarray:
    return np.stack([table.take(plane) for table, plane in zip(light, pixels, strict=True)])


def _coarse(photo: Photograph, window: tuple[int, int, int, int], light: np.ndarray) -> np.ndarray:
    top, left, height, width = (v // 4 for v in window)
    return _lit(photo.coarse[:, top : top + height, left : left + width], light)
