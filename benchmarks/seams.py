"""Tiles: every size from 1 to 257, tiles against the whole, and the gradient energy on their seams.

    python benchmarks/seams.py --photographs DIR... [--model relume-s] [--sizes 1000] [--count 50]

`sizes`: pictures of h x w drawn from a seed, through `restore`. `identity` on all 66,049 sizes and
a threefold enlargement by repetition on as many as asked: shape is input x scale, and what comes
out is what must. The model on 257 x 4 sizes (n x n, n x 1, 1 x n, n x 258 - n), fewer with
`--sizes`. `reach`: photographs in tiles of 128 that share the network's whole reach, against one
tile (a local network: at most 1e-5 apart). `overlap`: the same with the overlap of its card, on
`--count` pictures, half of them smooth skies drawn from a seed: the mean squared step across the
seams over that elsewhere, divided by the same of the one tile, which has no seams (at most 1.02 in
the mean). The control tiles without any overlap, and must come out worse. ONNX Runtime, CPU,
float32; exit 1 where a bar is missed.
"""

import argparse
from pathlib import Path

import numpy as np

from relume.card import Card
from relume.engine import open_engine
from relume.guidance import Guidance
from relume.image import Picture, is_image, read
from relume.lab.reach import seam_ratio
from relume.priors.choice import priors_of
from relume.restoration import look, restore
from relume.tiling import Plan, plan

MOST = 257
RATIO, APART = 1.02, 1e-5


class Threefold:
    """Each pixel, nine times."""

    name, device, precision, first, masks = "onnx", "cpu", "float32", None, None

    def __init__(self) -> None:
        self.card, self.notes = Card("threefold", scale=3, multiple_of=4, overlap=5, reach=5), []

    def prepare(self, view, guidance):
        return guidance

    def __call__(self, tile, guidance):
        return tile.repeat(3, 2).repeat(3, 3)


def sizes_of(count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    every = [
        size for n in range(1, MOST + 1) for size in ((n, n), (n, 1), (1, n), (n, MOST + 1 - n))
    ]
    return every if count >= len(every) else [every[i] for i in rng.permutation(len(every))[:count]]


def sizes(engine, chosen: list[tuple[int, int]], rng: np.random.Generator, tile) -> int:
    """How many sizes came out wrong."""
    wrong, name = 0, engine.card.name
    noise = rng.integers(0, 256, (MOST, MOST, 3), dtype=np.uint8)
    for height, width in chosen:
        picture = Picture(np.ascontiguousarray(noise[:height, :width]))
        out = restore(picture, engine, tile=tile).picture.pixels
        s = engine.card.scale
        right = out.shape == (height * s, width * s, 3)
        if name in ("identity", "threefold"):
            right = right and np.array_equal(out, picture.pixels.repeat(s, 0).repeat(s, 1))
        wrong += not right
    return wrong


def sky(rng: np.random.Generator, height: int = 321, width: int = 481) -> np.ndarray:
    """A smooth sky with little noise: where seams show most."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    colours = rng.uniform(0.35, 0.95, (3, 2))
    slope = y + rng.uniform(-0.5, 0.5) * x
    slope = (slope - slope.min()) / np.ptp(slope)
    planes = colours[:, :1, None] + (colours[:, 1:, None] - colours[:, :1, None]) * slope
    planes = planes + rng.normal(0, rng.uniform(0, 4) / 255, planes.shape)
    return (np.rint(np.clip(planes, 0, 1) * 255) / 255).astype(np.float32)[None]


def tiles_of(rgb: np.ndarray, card: Card, overlap: int, tile: int) -> Plan:
    height, width = rgb.shape[2:]
    return plan(
        *(height, width),
        scale=card.scale,
        multiple_of=card.multiple_of,
        overlap=overlap,
        tile=tile,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", type=Path, nargs="+", required=True)
    parser.add_argument("--model", default="relume-s")
    parser.add_argument("--sizes", type=int, default=4 * MOST)
    parser.add_argument("--every", type=int, default=1, help="of identity's sizes, each n-th")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    rng, good = np.random.default_rng(options.seed), True
    engine = open_engine(options.model, "onnx")
    card = engine.card
    print("| what | pictures | figure | bar |\n|---|---|---|---|")

    every = [(h, w) for h in range(1, MOST + 1) for w in range(1, MOST + 1)][:: options.every]
    chosen = sizes_of(options.sizes, rng)
    cases = ((open_engine("identity"), every), (Threefold(), chosen), (engine, chosen))
    for runner, given in cases:
        wrong = sizes(runner, given, rng, 96 if runner is not engine else "auto")
        good = good and not wrong
        print(f"| sizes 1 to {MOST}, {runner.card.name}: wrong | {len(given)} | {wrong} | 0 |")

    files = [p for d in options.photographs for p in sorted(d.iterdir()) if is_image(p)]
    photographs = [read(files[i]).rgb() for i in rng.permutation(len(files))[: options.count // 2]]
    pictures = photographs + [sky(rng) for _ in range(options.count - len(photographs))]
    apart, ratios, control = 0.0, list[float](), list[float]()
    for number, rgb in enumerate(pictures):
        rgb = rgb[..., :512, :512]
        known: Guidance = look(rgb, card, priors_of(card, "auto", masks=engine.masks))
        whole = tiles_of(rgb, card, 0, 1 << 13).run(rgb, known, engine)
        if card.support == "local" and number % 2 == 0:
            m = card.multiple_of
            shared = -(-card.reach // m) * m
            own = tiles_of(rgb, card, shared, 128 + 2 * shared).run(rgb, known, engine)
            apart = max(apart, float(np.abs(own - whole).max()))
        whole = np.clip(whole, 0, 1)
        for overlap, found in ((card.overlap, ratios), (0, control)):
            tiles = tiles_of(rgb, card, overlap, 128 + 2 * overlap)
            if len(tiles) > 1:
                out = np.clip(tiles.run(rgb, known, engine), 0, 1)
                found.append(seam_ratio(out, tiles) / max(seam_ratio(whole, tiles), 1e-12))
    n = len(pictures)
    if card.support == "local":
        good = good and apart <= APART
        what, halves = "tiles that share the reach, against the whole", (n + 1) // 2
        print(f"| {what} | {halves} | {apart:.1e} | {APART} |")
    mean, worst = float(np.mean(ratios)), float(np.max(ratios))
    good = good and mean <= RATIO and float(np.mean(control)) > mean
    print(
        f"| gradient energy on seams, overlap {card.overlap}: mean (worst) | {len(ratios)} | "
        f"{mean:.4f} ({worst:.4f}) | {RATIO} |"
    )
    print(
        f"| control: the same without overlap | {len(control)} | {np.mean(control):.4f} | above |"
    )
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
