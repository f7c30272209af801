"""Trivial baselines, printed beside the model's figure on each evaluation SPEC.

Each is a few lines of classical image processing with one or two dials. The dials are chosen on
photos/val under the same SPEC, by mean PSNR, and never on a test set; one setting then serves all
test pictures. `gain_oracle` is no baseline but a bound: it is told the best gain of every picture.

    python benchmarks/baselines.py haze:beta=0.15..0.6 --seed 11      # prints what was chosen
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.restoration import denoise_nl_means

from relume.lab.datasets import Loaded, degraded_pairs
from relume.lab.metrics import as_uint8, psnr

SHARED = Path(__file__).resolve().parents[2] / "shared"
VALIDATION = SHARED / "data/photos/val"

Baseline = Callable[..., np.ndarray]
"""(rgb (1, 3, H, W) float32 in [0, 1], **dials) -> the same shape, not clipped."""


def dark_channel(
    rgb: np.ndarray, *, omega: float = 0.95, patch: int = 15, radius: int = 40, eps: float = 1e-3
) -> np.ndarray:
    """He, Sun and Tang (2009): J = (I - A) / max(t, 0.1) + A, with t = 1 - omega dark(I / A).

    dark(I) is the minimum over colours and a patch; A is the brightest pixel (by the sum of its
    colours) among the 0.1 % with the brightest dark channel. t is refined by the guided filter of
    the same authors (2010) in place of soft matting.

    Args:
        omega: Share of the haze that is taken away.
        patch: Side of the patch, in pixels.
        radius, eps: Of the guided filter: window radius in pixels, smoothness on [0, 1] squared.
    """
    image = rgb[0].astype(np.float64)

    def dark(x: np.ndarray) -> np.ndarray:
        return ndimage.minimum_filter(x.min(0), patch, mode="nearest")

    brightest = np.argsort(dark(image), axis=None)[-max(1, image[0].size // 1000) :]
    colours = image.reshape(3, -1)[:, brightest]
    airlight = np.maximum(colours[:, colours.sum(0).argmax()], 0.05)[:, None, None]
    t = 1 - omega * dark(image / airlight)
    t = np.maximum(guided_filter(image.mean(0), t, radius, eps), 0.1)
    return ((image - airlight) / t + airlight).astype(np.float32)[None]


def guided_filter(guide: np.ndarray, source: np.ndarray, radius: int, eps: float) -> np.ndarray:
    """He, Sun and Tang (2010), gray guide: q = mean(a) I + mean(b), a = cov(I, p) / (var + eps)."""

    def mean(x: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(x, 2 * radius + 1, mode="nearest")

    mean_guide, mean_source = mean(guide), mean(source)
    covariance = mean(guide * source) - mean_guide * mean_source
    a = covariance / (mean(guide * guide) - mean_guide**2 + eps)
    return mean(a) * guide + mean(mean_source - a * mean_guide)


def median(rgb: np.ndarray, *, size: int = 5) -> np.ndarray:
    """The median of a window of size x size pixels, colour by colour."""
    return ndimage.median_filter(rgb, (1, 1, size, size), mode="nearest")


def unsharp(rgb: np.ndarray, *, sigma: float = 2.0, amount: float = 1.0) -> np.ndarray:
    """x + amount (x - G_sigma x)."""
    return rgb + amount * (rgb - ndimage.gaussian_filter(rgb, (0, 0, sigma, sigma)))


def gain(rgb: np.ndarray, *, factor: float = 3.0, gamma: float = 1.0) -> np.ndarray:
    """factor * x ** gamma, the same for every picture. gamma 1: one gain on the file's values."""
    return factor * np.clip(rgb, 0, 1) ** gamma


def nl_means(rgb: np.ndarray, *, h: float = 0.08) -> np.ndarray:
    """Non-local means (Buades et al., 2005), 5-pixel patches within 13 x 13 pixels.

    Args:
        h: Strength: how far apart two patches on [0, 1] may be and still be averaged.
    """
    image = np.ascontiguousarray(rgb[0].transpose(1, 2, 0))
    out = denoise_nl_means(
        image, patch_size=5, patch_distance=6, h=h, fast_mode=True, channel_axis=2
    )
    return np.asarray(out, np.float32).transpose(2, 0, 1)[None]


def gain_oracle(loaded: Loaded, factors: Sequence[float] = tuple(np.geomspace(1, 16, 60))) -> float:
    """The gain that is best for this one picture. It reads gt: a bound, not a baseline."""
    small = loaded.lq[..., ::4, ::4], loaded.gt[..., ::4, ::4]
    return max(factors, key=lambda f: psnr(as_uint8(f * small[0]), small[1]).item())


def choose(name: str, spec: str, *, seed: int) -> tuple[dict[str, float], float]:
    """The dials with the best mean PSNR on photos/val under `spec`, and that mean in dB.

    Each of the 17 photographs counts once, by its centre, at most 256 pixels square: a dial is one
    number for all pictures, and needs no more to be found.
    """
    stems = {path.stem for path in VALIDATION.iterdir()}
    whole = [stem for stem in stems if not re.search(r"_d\d+$", stem)]
    pairs = degraded_pairs(VALIDATION, spec, seed=seed, names=whole)
    loaded = [_centre(pair.load()) for pair in pairs.items]
    baseline, grid = BASELINES[name]

    def mean(dials: Mapping[str, float]) -> float:
        outs = [baseline(p.lq, **dials) for p in loaded]
        return float(np.mean([psnr(as_uint8(o), p.gt) for o, p in zip(outs, loaded, strict=True)]))

    settings = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    means = [mean(dials) for dials in settings]
    best = int(np.argmax(means))
    return settings[best], means[best]


def fitted(name: str, spec: str, *, seed: int) -> tuple[Callable[[np.ndarray], np.ndarray], dict]:
    """A baseline with its dials chosen under `spec`, and what they are."""
    dials, _ = choose(name, spec, seed=seed)
    baseline, _ = BASELINES[name]
    return (lambda rgb: baseline(rgb, **dials)), dials


def _centre(loaded: Loaded, most: int = 256) -> Loaded:
    height, width = loaded.gt.shape[-2:]
    h, w = min(height, most), min(width, most)
    rows = slice((height - h) // 2, (height - h) // 2 + h)
    columns = slice((width - w) // 2, (width - w) // 2 + w)
    return Loaded(loaded.lq[..., rows, columns], loaded.gt[..., rows, columns])


def _to(low: float, high: float, count: int) -> tuple[float, ...]:
    return tuple(round(float(v), 3) for v in np.geomspace(low, high, count))


# Name -> the function and the grid its dials are chosen from.
BASELINES: dict[str, tuple[Baseline, Mapping[str, Sequence[Any]]]] = {
    "dark channel, as published": (dark_channel, {"omega": (0.95,), "patch": (15,)}),
    "dark channel, fitted": (
        dark_channel,
        {"omega": (0.5, 0.6, 0.7, 0.8, 0.9, 0.95), "patch": (7, 15)},
    ),
    "median": (median, {"size": (3, 5, 7, 9)}),
    "unsharp": (unsharp, {"sigma": (1.0, 2.0, 3.0), "amount": (0.25, 0.5, 1.0, 1.5)}),
    "global gain": (gain, {"factor": _to(1.5, 10, 40)}),
    "global gain and gamma": (
        gain,
        {"factor": _to(0.8, 5, 16), "gamma": (0.3, 0.4, 0.5, 0.6, 0.8, 1)},
    ),
    "non-local means": (nl_means, {"h": _to(0.01, 0.3, 12)}),
}

# Kind of damage -> the baselines that are printed beside it.
BESIDE: dict[str, tuple[str, ...]] = {
    "noise": ("non-local means",),
    "haze": ("dark channel, as published", "dark channel, fitted"),
    "rain": ("median",),
    "raindrop": ("median",),
    "blur": ("unsharp",),
    "lowlight": ("global gain", "global gain and gamma"),
    "jpeg": ("non-local means",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spec", nargs="+", help="SPEC of the damage, such as haze:beta=0.15..0.6")
    parser.add_argument("--seed", type=int, default=11)
    arguments = parser.parse_args()
    for spec in arguments.spec:
        for name in BESIDE[spec.partition(":")[0]]:
            dials, mean = choose(name, spec, seed=arguments.seed)
            print(json.dumps({"spec": spec, "baseline": name, "dials": dials, "val_psnr": mean}))


if __name__ == "__main__":
    main()
