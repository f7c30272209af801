"""Masks that somebody brings: label maps, folders of masks, run lengths in JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import PictureError, ShapeError, UsageError
from ..guidance import Guide, Kind
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
        reads: What decodes pictures of masks: in this process, or apart.

    Raises:
        UsageError: There is nothing at `path`.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        gives: Gives = "regions",
        one: bool = False,
        reads: Callable[[Path], Picture] = read,
    ) -> None:
        self.path, self.reads = Path(path), reads
        self.gives: Gives = gives
        self.one = one
        if not self.path.exists():
            raise UsageError(f"{path}: there are no masks; give a file, or a folder of them.")

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides what they say, as JSON; reads every file."""
        return {"prior": "own", "masks": files_digest(self.path), "gives": self.gives}

    def of(self, source: Path, height: int, width: int) -> tuple[Guide, list[str]]:
        """The Guide of one picture of (height, width), and what has to be announced.

        Raises:
            PictureError: It has no masks, or they cannot be read.
        """
        return read_own(self.find(source), height, width, gives=self.gives, reads=self.reads)

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
            f"{source.stem}.json or {source.stem}/; add them, or leave the picture out."
        )


class Told:
    """A prior that says what it was given, whatever picture it is shown.

    Args:
        guide: Of the whole picture; its provenance says where it comes from.
    """

    max_side = 0  # it looks at nothing

    def __init__(self, guide: Guide) -> None:
        self.guide = guide
        self.spec: Kind = guide.kind

    @property
    def identity(self) -> dict[str, Any]:
        return dict(self.guide.provenance)

    def __call__(self, rgb: np.ndarray) -> Guide:
        return self.guide


def of_labels(
    labels: np.ndarray, height: int, width: int, name: str = "the label map"
) -> tuple[Guide, list[str]]:
    """A label map as the regions of a picture of (height, width), and what has to be announced.

    Args:
        labels: (h, w) of any integer type, 0 = none; of another size, the nearest label is taken.
        name: What messages call it.

    Returns:
        Guide of regions, labels without gaps in their own order; a line about another size.

    Raises:
        ShapeError: It is not (h, w), or holds something else than whole numbers of 0 or more.
    """
    if labels.ndim != 2 or not labels.size or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ShapeError(
            f"{name} must be (H, W) whole numbers of 0 or more, 0 = no region; got "
            f"{labels.shape} {labels.dtype}."
        )
    guide = Guide(regions=_counted(labels)[None], provenance={"prior": "own"})
    announced = _resized(name, (labels.shape[0], labels.shape[1]), (height, width))
    return guide.resize(height, width), announced


def _counted(labels: np.ndarray) -> np.ndarray:
    """Labels (h, w) of any integer type to int32 without gaps; 0 stays 0."""
    with_none = np.append(np.zeros(1, labels.dtype), labels)
    found = np.unique(with_none, return_inverse=True)[1][1:]
    return found.reshape(labels.shape).astype(np.int32)


def files_digest(path: Path) -> str:
    """sha256 over a file's name and bytes, or over all files of a folder and where they lie."""
    whole = hashlib.sha256()
    inside = path.is_dir()
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if inside else [path]:
        name = file.relative_to(path).as_posix() if inside else file.name
        with file.open("rb") as stored:
            inner = hashlib.file_digest(stored, "sha256").hexdigest()
        whole.update(f"{name}\0{inner}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


def read_own(
    path: Path,
    height: int,
    width: int,
    *,
    gives: Gives = "regions",
    reads: Callable[[Path], Picture] = read,
) -> tuple[Guide, list[str]]:
    """What a person's masks say of a picture of (height, width).

    Args:
        path: A gray picture: of two values, black and white, one mask, else labels of 8 or 16 bits,
            0 = none. Or a folder of such masks, one a file, any size each. Or JSON of run-length
            masks (`masks.from_json`).
        gives: "regions", "layers" or "tokens".
        reads: What decodes pictures.

    Returns:
        The Guide, at the picture's size; lines to announce (another size, no mask at all).

    Raises:
        PictureError: It cannot be read, or is none of these; one line.
    """
    if path.is_dir():
        masks = _from_folder(path, (height, width), reads)
        announced = [] if len(masks) else [f"{path} holds no mask: the whole picture is one region"]
        return _guide(masks, gives, height, width), announced
    if path.suffix.lower() == ".json":
        masks = from_json(_parsed(path), str(path))
        return _guide(masks, gives, height, width), _resized(path, masks.size, (height, width))
    values = _gray(reads(path), path)
    if gives == "regions" and not _is_mask(values):
        return of_labels(values, height, width, str(path))
    announced = _resized(path, (values.shape[0], values.shape[1]), (height, width))
    if _is_mask(values):
        return _guide(Masks.of(values[None] > 0), gives, height, width), announced
    guide = Masks.of_labels(_counted(values)).guide(gives, height, width)
    # A row for each label: there is no background that needs one of its own.
    return (guide.map(lambda a: a[:, 1:]) if gives == "tokens" else guide), announced


def _guide(masks: Masks, gives: Gives, height: int, width: int) -> Guide:
    own = Masks(masks.size, masks.counts, masks.ends, masks.scores, {"prior": "own"})
    return own.guide(gives, height, width)


def _from_folder(folder: Path, size: tuple[int, int], reads: Callable[[Path], Picture]) -> Masks:
    """One mask a file, each brought to `size` by itself: thousands never lie side by side."""
    counts: list[np.ndarray] = [np.zeros(0, np.uint32)]
    ends: list[int] = []
    areas: list[int] = []
    for mask in _masks(folder, reads):
        fitted = Guide(layers=mask[None, None]).resize(*size).array[0]
        runs, _ = encode(fitted)
        counts.append(runs)
        ends.append(len(runs))
        areas.append(int(fitted.sum()))
    scores = certain(np.array(areas, np.int64), size[0] * size[1])
    return Masks(size, np.concatenate(counts), np.cumsum(ends, dtype=np.int64), scores)


def _masks(folder: Path, reads: Callable[[Path], Picture]) -> Iterator[np.ndarray]:
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith(".") and is_image(path):
            picture = reads(path)
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


def _resized(name: object, size: tuple[int, int], wanted: tuple[int, int]) -> list[str]:
    if size == wanted:
        return []
    (h, w), (height, width) = size, wanted
    return [f"{name} is {w} x {h} and was resized to the picture's {width} x {height}"]
