"""Data sets to measure on: pairs of pictures that are read, or damaged, one by one."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import UsageError, nearest
from ..guidance import Guidance, Guide
from ..image import read, shape_of
from ..priors.choice import SIGMA
from .degrade import Chain, parse
from .degrade.chain import Finish
from .degrade.folder import damage_file, photographs
from .pairs import listed


@dataclass(frozen=True, eq=False)
class Loaded:
    """The pixels of one pair: float32 RGB, (1, 3, H, W); gt may be `scale` times as large."""

    lq: np.ndarray
    gt: np.ndarray
    truth: Guidance = field(default_factory=Guidance)


@dataclass(frozen=True, eq=False)
class Pair:
    """One picture to restore and what it should become.

    Args:
        image: Its name in the report.
        photograph: What it shows. Intervals take pictures of one photograph for one sample.
        load: Reads, and damages, the pixels.
    """

    image: str
    photograph: str
    load: Callable[[], Loaded]


@dataclass(frozen=True, eq=False)
class Pairs:
    """A data set as it will be measured.

    Args:
        items: The pairs, in their order.
        data: What the report's `data` says: sha256, n, spec, seed, notes.
        noise: The protocol's `noise`.
        scale: Enlargement.
    """

    items: tuple[Pair, ...]
    data: Mapping[str, Any]
    noise: str | None = None
    scale: int = 1

    @property
    def announced(self) -> tuple[str, ...]:
        """What was changed to make pairs fit; a person has to be told."""
        return tuple(self.data.get("notes", ()))


def folder_pairs(
    lq: Path,
    gt: Path,
    *,
    scale: int = 1,
    names: Iterable[str] | None = None,
    photograph: Callable[[str], str] | None = None,
) -> Pairs:
    """Pairs of two folders.

    A picture's gt has the same stem, else the longest stem that the picture's begins with, followed
    by `_`, or by `x` and digits (`1400_1` -> `1400`, `im1_kernel2_img` -> `im1`, `babyx4` ->
    `baby`); one gt may serve many. Stems include the path below the folder. With scale > 1 gt is
    cropped to a multiple of it, at the bottom and right; a gt that is then larger by the same even
    number of pixels on both axes is cropped at the centre. Both are noted in `data`.

    Args:
        lq: Folder of what is restored.
        gt: Folder of what it should become; the same folder as lq measures clean pictures.
        scale: Size of gt over size of lq.
        names: Stems of the lq pictures to take; all others, and the gt of none, are ignored.
        photograph: A gt's name -> what it shows; by default `photograph_of` over the gt names.

    Raises:
        UsageError: A folder without images, files without a partner, or sizes that do not fit;
            the message names the files.
    """
    pictures, truths = _named(lq, names), _images(gt)
    by_stem = _by_stem(truths)
    partner: dict[str, str] = {}
    for name in pictures:
        stem = match(_stem(name), by_stem)
        if stem is not None:
            partner[name] = by_stem[stem]
    alone = [f"{lq.name}/{n}" for n in pictures if n not in partner]
    used = set(partner.values())
    unused = [f"{gt.name}/{n}" for n in truths if n not in used and names is None]
    if alone or unused:
        raise UsageError(
            f"{len(alone + unused)} files have no partner: {listed(alone + unused)}. A gt has its "
            "lq's name, or the beginning of it before `_` or `x` and digits."
        )
    windows, notes = _windows(lq, gt, partner, scale)
    shows = photograph or photograph_of(truths)

    def pair(name: str) -> Pair:
        def load() -> Loaded:
            top, left, height, width = windows[name]
            truth = read(gt / partner[name]).rgb()[..., top : top + height, left : left + width]
            return Loaded(read(lq / name).rgb(), truth)

        return Pair(name, shows(partner[name]), load)

    files = [lq / n for n in pictures] + [gt / partner[n] for n in pictures]
    data = {
        "sha256": files_digest(files),
        "n": len(pictures),
        "spec": None,
        "seed": None,
        "notes": notes,
    }
    return Pairs(tuple(pair(n) for n in pictures), data, scale=scale)


def degraded_pairs(
    gt: Path,
    spec: str,
    *,
    seed: int,
    noise: Literal["uint8", "float"] = "uint8",
    scale: int = 1,
    names: Iterable[str] | None = None,
    photograph: Callable[[str], str] | None = None,
) -> Pairs:
    """Pairs of a folder of good pictures and the damage of `relume degrade`, made on the way.

    The picture with index i (of the sorted relative paths) is damaged with a generator seeded by
    (seed, i), so that these are the pixels which `relume degrade --spec --seed` writes.

    Args:
        gt: Folder of good pictures.
        spec: SPEC of the damage, in people's units.
        seed: Seed N of the damage.
        noise: "uint8": lq is clipped and rounded to 8 bits, as `degrade` writes it; "float":
            neither, which is what many papers measure.
        scale: Enlargement of the model, the same as of the SPEC's `down`.
        names: Stems of the pictures to take; all others are as if they were not there.
        photograph: As in `folder_pairs`.

    Raises:
        RecipeError: The SPEC cannot be read.
        UsageError: A folder without images, or names that are not in it.
    """
    chain = parse(spec)
    pictures = _named(gt, names)
    if noise not in ("uint8", "float"):
        raise UsageError(
            f"noise must be uint8 or float, got {noise!r}.{nearest(noise, ('uint8', 'float'))}"
        )
    shows = photograph or photograph_of(pictures)

    def pair(index: int, name: str) -> Pair:
        return Pair(name, shows(name), lambda: _damaged(gt / name, chain, seed, index, noise))

    data = {
        "sha256": files_digest(gt / n for n in pictures),
        "n": len(pictures),
        "spec": spec,
        "seed": seed,
        "notes": [],
    }
    items = tuple(pair(i, n) for i, n in enumerate(pictures))
    return Pairs(items, data, noise=noise, scale=scale)


def centres(pairs: Pairs, side: int) -> Pairs:
    """The same pairs cut to the middle `side` pixels of lq, with what is true there."""
    scale = pairs.scale

    def middle(pair: Pair) -> Pair:
        def load() -> Loaded:
            loaded = pair.load()
            height, width = loaded.lq.shape[-2:]
            top, left = (max(0, (n - side) // 2) for n in (height, width))
            height, width = min(side, height), min(side, width)

            def cut(rgb: np.ndarray, s: int = 1) -> np.ndarray:
                return rgb[..., s * top : s * (top + height), s * left : s * (left + width)]

            truth = loaded.truth.crop(top, left, height, width)
            return Loaded(cut(loaded.lq), cut(loaded.gt, scale), truth)

        return Pair(pair.image, pair.photograph, load)

    data = {**pairs.data, "notes": [*pairs.data["notes"], f"centre crops of {side} lq pixels"]}
    return replace(pairs, items=tuple(map(middle, pairs.items)), data=data)


def match(stem: str, known: Iterable[str]) -> str | None:
    """The gt stem that belongs to an lq stem, by the rule of `folder_pairs`, or None."""
    known = set(known)
    if stem in known:
        return stem
    fits = [k for k in known if stem.startswith(k) and re.match(r"_|x\d", stem[len(k) :])]
    return max(fits, key=len, default=None)


def photograph_of(names: Iterable[str]) -> Callable[[str], str]:
    """A file's name -> the photograph it shows: `a_d2` is a detail of `a` where there is an `a`."""
    stems = {_stem(name) for name in names}

    def photograph(name: str) -> str:
        stem = _stem(name)
        whole = re.sub(r"_d\d+$", "", stem)
        return whole if whole in stems else stem

    return photograph


def _damaged(path: Path, chain: Chain, seed: int, index: int, finish: Finish) -> Loaded:
    made = damage_file(path, chain, seed, index, finish)
    sigmas = [step["sigma"] / 255 for step in made.params if step["kind"] == "noise"]
    truth = made.truth
    if sigmas:
        level = np.full((1, 1), math.hypot(*sigmas), np.float32)
        truth = truth.with_guide(SIGMA, Guide(vector=level, provenance={"prior": "truth"}))
    return Loaded(made.lq[None], made.gt[None], truth)


def _images(folder: Path) -> list[str]:
    """Relative paths of the images below a folder, sorted."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder. Pairs are given as two folders of images.")
    return [name.as_posix() for _, name in photographs(folder)]


def _named(folder: Path, names: Iterable[str] | None) -> list[str]:
    """As `_images`, only those with the stems in `names` where they are given."""
    pictures = _images(folder)
    if names is None:
        return pictures
    wanted = set(names)
    absent = sorted(wanted - {_stem(picture) for picture in pictures})
    if absent:
        raise UsageError(f"{len(absent)} pictures are not in {folder}: {listed(absent)}.")
    return [picture for picture in pictures if _stem(picture) in wanted]


def _stem(name: str) -> str:
    return Path(name).with_suffix("").as_posix()


def _by_stem(names: Sequence[str]) -> dict[str, str]:
    stems: dict[str, str] = {}
    for name in names:
        stem = _stem(name)
        if stem in stems:
            raise UsageError(f"{stems[stem]} and {name} have one stem; remove one of them.")
        stems[stem] = name
    return stems


def _windows(
    lq: Path, gt: Path, partner: Mapping[str, str], scale: int
) -> tuple[dict[str, tuple[int, int, int, int]], list[str]]:
    """(top, left, height, width) of each picture's part of its gt, and what to announce."""
    windows: dict[str, tuple[int, int, int, int]] = {}
    margins: dict[int, int] = {}
    cut, wrong = 0, []
    for name, truth in partner.items():
        (h, w), (height, width) = shape_of(lq / name)[:2], shape_of(gt / truth)[:2]
        multiple = (height - height % scale, width - width % scale)
        cut += multiple != (height, width)
        margin = multiple[0] - h * scale
        if margin != multiple[1] - w * scale or margin < 0 or margin % 2:
            wrong.append(f"{name} {w}x{h} and {truth} {width}x{height}")
            continue
        windows[name] = (margin // 2, margin // 2, h * scale, w * scale)
        if margin:
            margins[margin // 2] = margins.get(margin // 2, 0) + 1
    if wrong:
        times = f" times {scale}" if scale > 1 else ""
        raise UsageError(
            f"{len(wrong)} pairs do not fit: {listed(wrong)}. A gt is as large as its lq{times}, "
            "or larger by the same even number of pixels on both axes."
        )
    notes = [f"gt cropped to a multiple of {scale}: {cut} of {len(partner)}"] if cut else []
    notes += [
        f"gt cropped at the centre by {margin} px on each side: {count} of {len(partner)}"
        for margin, count in sorted(margins.items())
    ]
    return windows, notes


def files_digest(paths: Iterable[Path]) -> str:
    """sha256 over names and bytes of files, in their order."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            inner = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.name}\0{inner}\n".encode())
    return total.hexdigest()
