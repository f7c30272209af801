"""A data root with every set of the all-in-one protocol: a few small pictures in each"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from relume.image import Picture, write
from relume.lab import tasks
from relume.lab.reproduce import allinone

SIZE = (34, 45)  # no multiple of 16


def picture(path: Path, seed: int, size=SIZE) -> np.ndarray:
    """Smooth colours at whole levels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]] / 40
    rgb = np.stack([0.5 + 0.4 * np.sin(9 * rng.random() * x + 5 * rng.random() * y) for _ in "rgb"])
    rgb = np.rint(rgb * 255).astype(np.float32) / 255
    path.parent.mkdir(parents=True, exist_ok=True)
    write(Picture.from_rgb(rgb[None].astype(np.float32)), path)
    return rgb


def every_set(root: Path, count: int = 2, size=SIZE, far: int = 0) -> None:
    """Every set of the protocol with `count` pictures in each half.

    Args:
        far: Added to the seed of what is damaged: 0 leaves both halves of most pairs the same.
    """
    pairs = {
        "Rain100L/train": ("rain-{}", "norain-{}"), "Rain100L/test": ("input/{}", "target/{}"),
        "GoPro/train": ("A/blur/{}", "A/sharp/{}"), "GoPro/test": ("B/blur/{}", "B/sharp/{}"),
        "LOL/our485": ("low/{}", "high/{}"), "LOL/eval15": ("low/{}", "high/{}"),
    }  # fmt: skip
    numbers = range(1, count + 1)
    for folder, (lq, gt) in pairs.items():
        for i in numbers:
            picture(root / folder / f"{lq.format(i)}.png", i + far, size)
            picture(root / folder / f"{gt.format(i)}.png", i, size)
    for i in numbers:
        picture(root / f"CBSD68/{i}.png", i, size)
        picture(root / f"Denoise/{i}.png", i, size)
        picture(root / f"SOTS/outdoor/gt/{i}.png", i, size)
        picture(root / f"SOTS/outdoor/hazy/{i}_0.8_0.2.png", 10 + i, size)
        picture(root / f"RESIDE-OTS/clear/{i}.png", i, size)
        picture(root / f"RESIDE-OTS/part1/{i}_0.8_0.1.png", i + far, size)
    (root / "Denoise/denoise.txt").write_text("".join(f"{i}.png\n" for i in numbers))
    (root / "RESIDE-OTS/hazy_outside.txt").write_text(
        "".join(f"part1/{i}_0.8_0.1.png\n" for i in numbers)
    )


def counting(monkeypatch, count: int = 2) -> None:
    """Let the protocol have so many pictures of each."""
    for module, name in ((tasks, "TRAINING"), (allinone, "TESTING")):
        small = tuple(replace(part, count=count) for part in getattr(module, name))
        monkeypatch.setattr(module, name, small)
