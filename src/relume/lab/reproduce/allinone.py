"""The all-in-one protocol of three and five degradations: test sets, crops and both averages.

One model for all of noise, rain and haze, or these and motion blur and low light, as PromptIR,
AdaIR, MoCE-IR and Perceive-IR share it (AirNet began it). Below one data root:

    Denoise/denoise.txt, and the 5,144 clean pictures that it lists (BSD400 and WED), beside it
    Rain100L/{train,test}/{input,target}, or rain-NUMBER.png beside norain-NUMBER.png in each
    RESIDE-OTS/hazy_outside.txt, the 72,135 hazy pictures that it lists, and clear/
    GoPro/{train,test}/SCENE/{blur,sharp}
    LOL/{our485,eval15}/{low,high}
    CBSD68
    SOTS/outdoor/hazy beside SOTS/outdoor/gt (or clear)

Scores are of RGB in [0, 1], clipped, not rounded, without a border, a mean over pictures. Published
tables differ in what they leave unsaid, so it is all said here: two averages (of columns, which is
what papers print, and of pictures: Perceive-IR's own columns give 32.63 and 31.91), two forms of
SSIM, and the noise to the last bit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import CheckError, UsageError
from ...image import read, shape_of
from ..datasets import Loaded, Pair, Pairs, files_digest
from ..metrics import Protocol, psnr, ssim, ssim_uniform
from ..pairs import FilePair, Layout, find_pictures, planes
from ..tasks import SIGMAS, Part, hazed, noisy, public, rain, tasks_of
from .system import Column
from .testsets import GOPRO, scene_of

BASE = 16
"""Sides of test pictures are cut to multiples of it, at the centre."""


def _hazy_folder(hazy: str, clear: Sequence[str], root: Path) -> list[FilePair]:
    found = list(find_pictures(root, hazy).values())
    there = next((folder for folder in clear if find_pictures(root, folder)), clear[0])
    if not found:
        raise UsageError(f"no hazy pictures below {root}: expected {hazy} beside {there}.")
    return hazed(found, root, there)


def _clean_folder(folder: str, root: Path) -> list[FilePair]:
    found = find_pictures(root, folder)
    if not found:
        raise UsageError(f"no pictures in {root / folder}: expected the clean ones of {folder}.")
    return [FilePair(key[-1], path, path) for key, path in found.items()]


TESTING = (
    Part(
        "haze",
        "SOTS-Outdoor",
        500,
        partial(_hazy_folder, "SOTS/outdoor/hazy", ("SOTS/outdoor/gt", "SOTS/outdoor/clear")),
    ),
    Part("rain", "Rain100L", 100, rain("test")),
    Part("noise", "CBSD68", 68, partial(_clean_folder, "CBSD68")),
    Part("blur", "GoPro", 1111, GOPRO.find),
    Part("lowlight", "LOL-v1", 15, public("LOL-v1", Layout("LOL/eval15/low", "LOL/eval15/high"))),
)
"""What they are tested on, in the order of published tables."""


def columns(number: int, *, base: int = BASE) -> tuple[Column, ...]:
    """The columns of the published table: three tasks have noise at three sigma, five at 25 alone.

    Args:
        base: 1 does not cut the pictures, which Perceive-IR's release does with five tasks.
    """
    made: list[Column] = []
    for part in TESTING:
        if part.task not in tasks_of(number):
            continue
        for sigma in (SIGMAS if number == 3 else (25,)) if part.task == "noise" else (0,):
            name = f"{part.task}{sigma or ''}"
            title = f"{part.title} sigma {sigma}" if sigma else part.title
            pairs = partial(_pairs, part, sigma, base)
            noise = "uint8" if sigma else None
            protocol = Protocol(rounding="none", noise=noise)
            made.append(Column(name, title, pairs, protocol, absent=part.absent))
    return tuple(made)


def _pairs(part: Part, sigma: int, base: int, root: Path) -> Pairs:
    found = part.find(root)
    files = [file for pair in found for file in dict.fromkeys((pair.lq, pair.gt))]
    notes = [f"centres of multiples of {base}"] if base > 1 else []
    if sigma:
        notes.append(
            f"AWGN sigma {sigma} of NumPy's seed 0, run on over sigma {SIGMAS}, cut to uint8"
        )
    data = {
        "sha256": files_digest(files),
        "n": len(found),
        "spec": None,
        "seed": None,
        "notes": notes,
    }
    load = partial(_files, found, base)
    if sigma:
        sizes = tuple((h // base * base, w // base * base) for h, w in (shape_of(f) for f in files))
        load = partial(_noisy, found, sizes, sigma, base)
    items = (Pair(p.name, scene_of(p.name), partial(load, i)) for i, p in enumerate(found))
    return Pairs(tuple(items), data, noise="uint8" if sigma else None)


def _files(found: Sequence[FilePair], base: int, index: int) -> Loaded:
    pair = found[index]
    lq, gt = (centre(read(path).rgb(), base) for path in (pair.lq, pair.gt))
    if lq.shape != gt.shape:
        raise UsageError(f"{pair.lq} and {pair.gt} are not of one size: a pair is.")
    return Loaded(lq, gt)


def _noisy(
    found: Sequence[FilePair],
    sizes: tuple[tuple[int, int], ...],
    sigma: int,
    base: int,
    index: int,
) -> Loaded:
    samples = planes(read(found[index].gt))
    if samples.dtype != np.uint8:
        raise UsageError(f"{found[index].gt} has more than 8 bits: the protocol's noise is uint8.")
    clean = centre(samples, base)
    before = generators(sizes)[SIGMAS.index(sigma) * len(found) + index]
    both = (awgn(clean, sigma, before), clean)
    lq, gt = (x[None].astype(np.float32) / np.float32(255) for x in both)
    return Loaded(lq, gt)


def awgn(clean: np.ndarray, sigma: float, before: Any) -> np.ndarray:
    """`noisy` by a generator as it stands.

    Args:
        clean: (3, H, W) uint8.
        before: State of NumPy's legacy generator; samples are drawn in the order (H, W, 3).
    """
    rng = np.random.RandomState()
    rng.set_state(before)
    height, width = clean.shape[1:]
    return noisy(clean, sigma, rng.randn(height, width, 3).transpose(2, 0, 1))


@lru_cache(maxsize=4)
def generators(sizes: tuple[tuple[int, int], ...]) -> tuple[Any, ...]:
    """The generator's state before each picture: seed 0, running on through the three sigma, within
    each through the pictures in the order of their names.

    With five tasks the noise of sigma 25 is the same as with three.

    Args:
        sizes: (height, width) of each picture as it is measured.
    """
    rng, states = np.random.RandomState(0), []
    for _ in SIGMAS:
        for height, width in sizes:
            states.append(rng.get_state())
            rng.randn(height, width, 3)
    return tuple(states)


def centre(picture: np.ndarray, base: int) -> np.ndarray:
    """(..., H, W) cut at its centre to multiples of `base`; of an odd rest the larger half is cut
    at the bottom and right.

    Raises:
        UsageError: A side is shorter.
    """
    height, width = picture.shape[-2:]
    if min(height, width) < base:
        raise UsageError(f"a picture of {width}x{height} has no multiple of {base} pixels.")
    top, left = height % base // 2, width % base // 2
    return picture[..., top : top + height // base * base, left : left + width // base * base]


@dataclass(frozen=True, eq=False)
class Score:
    """One column as it was measured.

    Args:
        title: The column's.
        psnr: (n,) dB, one a picture.
        uniform: (n,) SSIM with scikit-image's default, a window of 7 by 7, all alike (PromptIR,
            AdaIR, Perceive-IR).
        gaussian: (n,) SSIM with the window of its authors, 11 and 1.5 (MoCE-IR, basicsr).
        inputs: sha256 of all that the model was given, which for noise is its realisation.
    """

    title: str
    psnr: np.ndarray
    uniform: np.ndarray
    gaussian: np.ndarray
    inputs: str


def measure(restore: Callable[[np.ndarray], np.ndarray], column: Column, root: Path) -> Score:
    """Restore every picture of a column, and measure it.

    Args:
        restore: lq (1, 3, H, W) float32 -> out of the same shape; it is clipped here.

    Raises:
        UsageError: The column's pictures are not there.
        CheckError: An answer of another shape, or one that holds no number.
    """
    seen, rows = hashlib.sha256(), []
    for pair in column.pairs(root).items:
        loaded = pair.load()
        seen.update(np.ascontiguousarray(loaded.lq).tobytes())
        out = np.asarray(restore(loaded.lq))
        if out.shape != loaded.gt.shape or not np.isfinite(out).all():
            raise CheckError(
                f"{pair.image}: expected an answer of {loaded.gt.shape} that is finite, got "
                f"{out.shape}, in which {int((~np.isfinite(out)).sum())} values are not."
            )
        both = torch.from_numpy(out).double().clamp(0, 1), torch.from_numpy(loaded.gt).double()
        rows.append([float(m(*both)) for m in (psnr, ssim_uniform, ssim)])
    decibels, uniform, gaussian = np.array(rows).T
    return Score(column.title, decibels, uniform, gaussian, seen.hexdigest())


def averages(scores: Sequence[Score]) -> dict[str, tuple[float, float, float]]:
    """PSNR, SSIM (uniform) and SSIM (Gaussian) over a table: `columns`, the mean of the columns'
    means, which papers print; `images`, the mean of all pictures."""
    each = [(s.psnr, s.uniform, s.gaussian) for s in scores]
    by_column = [
        math.fsum(float(x.mean()) for x in kind) / len(kind) for kind in zip(*each, strict=True)
    ]
    by_image = [float(np.concatenate(kind).mean()) for kind in zip(*each, strict=True)]
    return {"columns": (by_column[0], by_column[1], by_column[2]),
            "images": (by_image[0], by_image[1], by_image[2])}  # fmt: skip


def markdown(scores: Sequence[Score]) -> str:
    """The table, with both averages and both forms of SSIM, and digests of what was measured."""
    lines = ["| set | n | PSNR | SSIM 7x7 | SSIM Gaussian | inputs |", "|---|---|---|---|---|---|"]
    for s in scores:
        means = f"{s.psnr.mean():.2f} | {s.uniform.mean():.4f} | {s.gaussian.mean():.4f}"
        lines.append(f"| {s.title} | {len(s.psnr)} | {means} | {s.inputs[:12]} |")
    total = sum(len(s.psnr) for s in scores)
    for words, count, means in (
        ("mean of columns", len(scores), averages(scores)["columns"]),
        ("mean of pictures", total, averages(scores)["images"]),
    ):
        lines.append(f"| {words} | {count} | {means[0]:.2f} | {means[1]:.4f} | {means[2]:.4f} | |")
    return "\n".join(lines)
