"""Masks that somebody brings: label maps, folders of masks, run lengths in JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import PictureError, UsageError
from ..guidance import Guide
from ..image import is_image, read
from ..image.picture import Picture
from .masks import Masks, certain, encode, from_json

Gives = Literal["regions", "layers", "tokens"]


class OwnMasks:
    """The masks of each picture of a job, by the picture's name.

    Args:
        path: A file of `read_own`, or a folder. In a folder the masks of NAME.jpg are
            NAME.regions.png, NAME.json, a folder NAME, or a picture NAME; of several, and where
            the folder mirrors a tree, the one with the most of the input's path in its own.
        gives: "regions", "layers" or "tokens".
        one: There is but one picture: a folder that holds nothing of its name is its masks.

    Raises:
        UsageError: There is nothing at `path`.
    """

    def __init__(self, path: Path | str, *, gives: Gives = "regions", one: bool = False) -> None:
        self.path = Path(path)
        self.gives: Gives = gives
        self.one = one
        if not self.path.exists():
            raise UsageError(f"{path}: there are no masks; give a file, or a folder of them.")

    def of(self, source: Path, height: int, width: int) -> tuple[Guide, list[str]]:
        """The Guide of one picture of (height, width), and what has to be announced.

        Raises:
            PictureError: It has no masks, or they cannot be read.
        """
        return read_own(self.find(source), height, width, gives=self.gives)

    def find(self, source: Path) -> Path:
        """Where the masks of one picture are.

        Raises:
            PictureError: Nowhere.
        """
        if not self.path.is_dir():
            return self.path
        for depth in range(len(source.parts)):
            wanted = Path(*source.parts[depth:])
            folder = self.path / wanted.parent
            if wanted.is_absolute() or not folder.is_dir():
                continue
            named = [folder / f"{wanted.stem}{end}" for end in (".regions.png", ".json", "")]
            found = [path for path in named[:2] if path.is_file()]
            found += [path for path in named[2:] if path.is_dir()]
            found += sorted(p for p in folder.iterdir() if p.stem == wanted.stem and is_image(p))
            if found:
                return found[0]
        if self.one:
            return self.path
        raise PictureError(
            f"{source}: {self.path} holds no masks called {source.stem}.regions.png, "
            f"{source.stem}.json or {source.stem}/; add them, or drop --masks."
        )


def read_own(
    path: Path, height: int, width: int, *, gives: Gives = "regions"
) -> tuple[Guide, list[str]]:
    """What a person's masks say of a picture of (height, width).

    Args:
        path: A gray picture: of two values, black and white, one mask, else labels of 8 or 16 bits,
            0 = none. Or a folder of such masks, one a file, any size each. Or JSON of run-length
            masks (`masks.from_json`).
        gives: "regions", "layers" or "tokens".

    Returns:
        The Guide, at the picture's size; lines to announce (another size, no mask at all).

    Raises:
        PictureError: It cannot be read, or is none of these; one line.
    """
    if path.is_dir():
        masks = _from_folder(path, (height, width))
        announced = [] if len(masks) else [f"{path} holds no mask: the whole picture is one region"]
        return _guide(masks, gives, height, width), announced
    if path.suffix.lower() == ".json":
        masks = from_json(_parsed(path), str(path))
        return _guide(masks, gives, height, width), _resized(path, masks.size, (height, width))
    values = _gray(read(path), path)
    announced = _resized(path, (values.shape[0], values.shape[1]), (height, width))
    if _is_mask(values):
        return _guide(Masks.of(values[None] > 0), gives, height, width), announced
    labels = np.unique(np.append(0, values), return_inverse=True)[1][1:]
    labels = labels.reshape(values.shape).astype(np.int32)
    if gives != "regions":
        guide = Masks.of_labels(labels).guide(gives, height, width)
        # A row for each label: there is no background that needs one of its own.
        return (guide.map(lambda a: a[:, 1:]) if gives == "tokens" else guide), announced
    guide = Guide(regions=labels[None], provenance={"prior": "own"})
    return guide.resize(height, width), announced


def _guide(masks: Masks, gives: Gives, height: int, width: int) -> Guide:
    own = Masks(masks.size, masks.counts, masks.ends, masks.scores, {"prior": "own"})
    return own.guide(gives, height, width)


def _from_folder(folder: Path, size: tuple[int, int]) -> Masks:
    """One mask a file, each brought to `size` by itself: thousands never lie side by side."""
    counts: list[np.ndarray] = [np.zeros(0, np.uint32)]
    ends: list[int] = []
    areas: list[int] = []
    for mask in _masks(folder):
        fitted = Guide(layers=mask[None, None]).resize(*size).array[0]
        runs, _ = encode(fitted)
        counts.append(runs)
        ends.append(len(runs))
        areas.append(int(fitted.sum()))
    scores = certain(np.array(areas, np.int64), size[0] * size[1])
    return Masks(size, np.concatenate(counts), np.cumsum(ends, dtype=np.int64), scores)


def _masks(folder: Path) -> Iterator[np.ndarray]:
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith(".") and is_image(path):
            picture = read(path)
            values = _gray(picture, path, colour=True)
            yield values > picture.peak / 2


def _gray(picture: Picture, path: Path, *, colour: bool = False) -> np.ndarray:
    """(H, W) samples of a picture without colour.

    Raises:
        PictureError: It is coloured, or cannot hold labels.
    """
    samples = picture.pixels
    if samples.shape[2] == 3 and not colour and np.ptp(samples.astype(np.int64), axis=2).any():
        raise PictureError(f"{path}: masks are gray, labels of 8 or 16 bits; this one is coloured.")
    values = samples[..., 0] if samples.shape[2] == 1 or not colour else samples.mean(2)
    if colour:
        return values
    if picture.peak == 1 or (picture.quality is not None and not _is_mask(values)):
        raise PictureError(
            f"{path}: {picture.format.upper()} of this kind keeps no labels; save them as PNG."
        )
    return values


def _is_mask(values: np.ndarray) -> bool:
    """Black and white alone: one mask; anything else counts."""
    peak = np.iinfo(values.dtype).max if values.dtype.kind == "u" else 1
    return bool(((values == 0) | (values == peak)).all() and values.any())


def _parsed(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise PictureError(f"{path}: it cannot be read as JSON ({error}).") from None


def _resized(path: Path, size: tuple[int, int], wanted: tuple[int, int]) -> list[str]:
    if size == wanted:
        return []
    (h, w), (height, width) = size, wanted
    return [f"{path} is {w} x {h} and was resized to the picture's {width} x {height}"]
