"""Real pairs on disk, found by two patterns, and read when they are asked for.

A pair is two files for which the stars of two patterns stand for the same words:
`GoPro/train/*/blur` beside `GoPro/train/*/sharp`, `X4/*x4.png` beside `HR/*.png`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Generic, TypeVar

import numpy as np

from ..errors import UsageError
from ..image import Picture, is_image, shape_of

Value = TypeVar("Value")

ROOM = 2 << 30
"""Bytes of decoded pairs that are kept in memory."""


@dataclass(frozen=True)
class FilePair:
    """A damaged picture and what it should become.

    Args:
        name: What both are called: the words of the stars, and in a folder the file's stem.
        lq: The damaged one.
        gt: The good one, as large or a whole number of times larger.
    """

    name: str
    lq: Path
    gt: Path


def find_pairs(root: Path, lq: str, gt: str) -> list[FilePair]:
    """The pairs of two patterns below `root`, in the order of their names.

    Args:
        root: The patterns are relative to it.
        lq: Names folders, all images in which are taken, or files. A `*` stands for any part of
            one name; nothing else is special. Hidden files and folders are left out.
        gt: The partners, with as many stars; in folders, partners have the same stem.

    Raises:
        UsageError: There is no picture, there are two of one name, or files without a partner; the
            message names them.
    """
    damaged, good = (find_pictures(root, pattern) for pattern in (lq, gt))
    if not damaged and not good:
        raise UsageError(
            f"No pictures in {root / lq}, which pair with those in {gt}. Give the folder that both "
            "lie in."
        )
    alone = [f"{lq} ({'/'.join(key)})" for key in sorted(damaged.keys() - good.keys())]
    alone += [f"{gt} ({'/'.join(key)})" for key in sorted(good.keys() - damaged.keys())]
    if alone:
        raise UsageError(
            f"{len(alone)} files below {root} have no partner: {listed(alone)}. Two are a pair "
            "where the stars stand for the same words and, in folders, the stems are the same."
        )
    return [FilePair("/".join(key), damaged[key], good[key]) for key in sorted(damaged)]


def find_pictures(root: Path, pattern: str) -> dict[tuple[str, ...], Path]:
    """What the stars of a pattern stand for, and in a folder the file's stem -> the file.

    Raises:
        UsageError: Two pictures of one name.
    """
    found: dict[tuple[str, ...], Path] = {}
    for stars, place in _matches(root, pattern):
        inside = place.is_dir()
        files = sorted(place.iterdir()) if inside else [place]
        for file in files:
            if file.name.startswith(".") or not file.is_file() or not is_image(file):
                continue
            key = (*stars, file.stem) if inside else stars
            if key in found:
                raise UsageError(f"{found[key]} and {file} have one name; remove one of them.")
            found[key] = file
    return found


@dataclass(frozen=True)
class Layout:
    """One way in which a set lies below the data root.

    Args:
        lq, gt: Patterns, as in `find_pairs`.
        files: A file of the set's authors instead: a line a pair, gt and lq relative to it.
    """

    lq: str = ""
    gt: str = ""
    files: str = ""

    def __str__(self) -> str:
        return self.files or f"{self.lq} beside {self.gt}"

    def there(self, root: Path) -> bool:
        """Whether anything of it is there."""
        if self.files:
            return (root / self.files).is_file()
        return any(find_pictures(root, pattern) for pattern in (self.lq, self.gt))

    def find(self, root: Path) -> list[FilePair]:
        """Its pairs.

        Raises:
            UsageError: Files without a partner, or that are listed and not there.
        """
        if not self.files:
            return find_pairs(root, self.lq, self.gt)
        path = root / self.files
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        pairs = [
            FilePair(Path(lq).with_suffix("").as_posix(), path.parent / lq, path.parent / gt)
            for gt, lq, *_ in (line for line in lines if len(line) > 1)
        ]
        absent = [str(p) for pair in pairs for p in (pair.lq, pair.gt) if not p.is_file()]
        if absent or not pairs:
            raise UsageError(
                f"{path} lists {len(pairs)} pairs, of which {len(absent)} files are not there: "
                f"{listed(absent)}. Unpack the set whole."
            )
        return pairs


def find_first(name: str, layouts: Sequence[Layout], root: Path) -> list[FilePair]:
    """The pairs of a published set, in the first of its layouts that is there.

    Args:
        name: As tables call it.

    Raises:
        UsageError: It is not there, or not whole.
    """
    for layout in layouts:
        if layout.there(root):
            return layout.find(root)
    expected = ", or ".join(map(str, layouts))
    raise UsageError(f"no {name} below {root}: expected {expected}.")


def why_absent(find: Callable[[Path], object], root: Path) -> str:
    """Why a set is not found below a data root, in a line, or ""; no picture is opened.

    Args:
        find: Raises UsageError where it is not there, or not whole.
    """
    try:
        find(root)
    except UsageError as error:
        return str(error)
    return ""


def _matches(root: Path, pattern: str) -> list[tuple[tuple[str, ...], Path]]:
    """Files and folders that a pattern names, each with the words of its stars."""
    here: list[tuple[tuple[str, ...], Path]] = [((), root)]
    for part in PurePath(pattern).parts:
        if "*" not in part:
            here = [(stars, place / part) for stars, place in here]
            continue
        # A star never stands for the dot of a hidden name.
        fits = re.compile("(.*)".join(map(re.escape, part.split("*")))).fullmatch
        names = [
            (stars, path, fits(path.name))
            for stars, place in here
            if place.is_dir()
            for path in sorted(place.iterdir())
            if not path.name.startswith(".")
        ]
        here = [((*stars, *match.groups()), path) for stars, path, match in names if match]
    return here


def scale_of(pairs: Sequence[FilePair]) -> int:
    """How many times each gt is larger than its lq, from the headers alone.

    Raises:
        UsageError: Not a whole number of times on both axes, or not the same for all; the message
            names the pairs.
        PictureError: A header cannot be read.
    """
    scales = []
    for pair in pairs:
        (h, w), (height, width) = shape_of(pair.lq), shape_of(pair.gt)
        times = max(1, height // h)
        scales.append(times if (height, width) == (h * times, w * times) else 0)
    common = max(scales)
    wrong = [p.name for p, s in zip(pairs, scales, strict=True) if s != common or not s]
    if wrong:
        raise UsageError(
            f"{len(wrong)} pairs do not fit: {listed(wrong)}. Every gt is as large as its lq, or "
            "the same whole number of times larger."
        )
    return common


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def planes(picture: Picture) -> np.ndarray:
    """(3, H, W) samples in the file's own depth, which take a quarter of the room of floats."""
    pixels = picture.pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(np.broadcast_to(pixels, (3, *pixels.shape[1:])))


def as_float(samples: np.ndarray) -> np.ndarray:
    """`planes`, or a part of them, as `Picture.rgb` gives them: float32 in [0, 1]."""
    if samples.dtype.kind == "f":
        return np.clip(samples, 0, 1)
    return samples.astype(np.float32) * np.float32(1 / np.iinfo(samples.dtype).max)


class Kept(Generic[Value]):
    """What was made, kept while there is room for it; the rest is made again each time.

    Nothing is thrown out for another. Who asks once an epoch, in an order that is drawn anew, finds
    a share s in a room for a share s; were the least recently used thrown out, it would be
    s + (1 - s) log(1 - s): of a half, 15 in a hundred.

    Args:
        size: Bytes of one of them.
        room: Bytes of all of them.
    """

    def __init__(self, size: Callable[[Value], int], *, room: int = ROOM) -> None:
        self._size, self.room = size, room
        self._items: dict[Hashable, Value] = {}
        self._turn = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The one of that key; threads that ask for the same at once may each make it."""
        if key in self._items:
            return self._items[key]
        value = make()
        with self._turn:
            need = self._size(value)
            if key not in self._items and need <= self.room:
                self.room -= need
                self._items[key] = value
        return value
