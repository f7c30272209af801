"""A data root with every set of the all-in-one protocol: a few small pictures in each"""

from pathlib import Path

import numpy as np

from relume.image import Picture, write
from relume.lab.reproduce.allinone import TESTING
from relume.lab.tasks import TRAINING

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


def every_set(root: Path, count: int = 2, size=SIZE, far: int = 0, films: str = "A") -> None:
    """Every set of the protocol with `count` pictures in each half.

    Args:
        far: Added to the seed of what is damaged: 0 leaves both halves of most pairs the same.
        films: GoPro's training scenes, in turns.
    """
    pairs = {
        "Rain100L/train": ("rain-{}", "norain-{}"), "Rain100L/test": ("input/{}", "target/{}"),
        "GoPro/train": ("@/blur/{}", "@/sharp/{}"), "GoPro/test": ("B/blur/{}", "B/sharp/{}"),
        "LOL/our485": ("low/{}", "high/{}"), "LOL/eval15": ("low/{}", "high/{}"),
    }  # fmt: skip
    numbers = range(1, count + 1)
    for folder, (lq, gt) in pairs.items():
        for i in numbers:
            film = films[i % len(films)]
            for half, seed in ((lq, i + far), (gt, i)):
                name = half.format(i).replace("@", film)
                picture(root / folder / f"{name}.png", seed, size)
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
    """Let the protocol have so many pictures of each; columns hold its parts, wherever they are."""
    for part in (*TRAINING, *TESTING):
        monkeypatch.setitem(part.__dict__, "count", count)
