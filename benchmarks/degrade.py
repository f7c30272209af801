"""What damage costs, against the best plain way to do it, and how severe the evaluation specs are.

    python benchmarks/degrade.py                          one thread, this process's own CPU time
    python benchmarks/degrade.py --photographs CBSD68     mean input PSNR of the evaluation specs

Each cost stands beside a plain form of the same damage without physics (no linear light, no depth,
no views that agree), timed in turns with ours; the mark is twice the plain form's time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from relume.image import is_image, read
from relume.image.writer import jpeg_round_trip
from relume.lab.degrade import View, generator, parse

# kind -> (SPEC, what the best plain form took on the machine of the goals: 64 x 64, 1 MP; ms)
COSTS = {
    "noise": ("noise:sigma=25", 0.053, 13.0),
    "blur": ("blur:length=15,curve=0.2", 0.13, 35.0),
    "rain": ("rain:density=0.005,length=20", 0.08, 18.0),
    "haze": ("haze:beta=0.6", 0.010, 2.2),
    "jpeg": ("jpeg:quality=30", 0.05, 8.9),
    "sensor": ("sensor:iso=1600", None, None),
    "lowlight": ("lowlight", None, None),
    "raindrop": ("raindrop:count=40", None, None),
    "defocus": ("defocus:radius=4", None, None),
    "poisson": ("poisson", None, None),
}
WINDOWS = {
    "noise:sigma=25": (20.3, 20.8),
    "haze:beta=0.15..0.6": (12, 16),
    "rain:density=0.002..0.006": (18, 21),
    "raindrop:count=40..80": (16, 24),
    "blur:length=11..17": (21, 24),
    "lowlight:gain=0.12..0.3": (8, 12),
    "jpeg:quality=10..30": (27, 29),
}


def cost(run: Callable[[], object], rounds: int) -> float:
    """Least of `rounds` CPU times in ms: what others do on the machine only adds."""
    run()
    times = []
    for _ in range(rounds):
        start = time.thread_time()
        run()
        times.append(time.thread_time() - start)
    return min(times) * 1e3


def plain(kind: str, side: int) -> Callable[[], object] | None:
    """The damage in its plainest form on a (3, side, side) picture."""
    x = np.random.default_rng(0).random((3, side, side), dtype=np.float32)
    tensor, depth = torch.from_numpy(x), x[0].copy()
    if kind == "noise":
        return lambda: tensor + torch.randn(tensor.shape) * (25 / 255)
    if kind == "haze":
        return lambda: x * depth + np.float32(0.8) * (1 - depth)
    if kind == "jpeg":
        pixels = (x.transpose(1, 2, 0) * 255).astype(np.uint8)
        return lambda: jpeg_round_trip(pixels, 30)
    return None


def costs() -> None:
    torch.set_num_threads(1)
    clouds = torch.nn.functional.interpolate(
        torch.rand(1, 3, 48, 48, generator=generator(0, 0)), size=(1024, 1024), mode="bicubic"
    )
    gt = (clouds[0].clamp(0, 1) * 255).byte().numpy()
    thumbnail = np.ascontiguousarray(gt[:, ::10, ::10][:, :96, :96])
    print(f"{'ms':10}|{'64 x 64':^24}|{'1 MP':^24}|")
    print(f"{'kind':10}|" + f"{'ours':>8}{'mark':>8}{'plain':>8}|" * 2 + f"{'draw':>8}{'small':>8}")
    for kind, (spec, *times) in COSTS.items():
        crop_mark, whole_mark = (None if t is None else 2 * t for t in times)
        crops, whole, draw, small = ours(spec, gt, thumbnail)
        forms = plain(kind, 64), plain(kind, 1024)
        peers = [None if f is None else cost(f, n) for f, n in zip(forms, (40, 7), strict=True)]
        columns = (crops, crop_mark, peers[0], whole, whole_mark, peers[1], draw, small)
        shown = ["-" if v is None else f"{v:.3f}" if v < 10 else f"{v:.1f}" for v in columns]
        cells = [f"{s:>8}" for s in shown]
        print(f"{kind:10}|{''.join(cells[:3])}|{''.join(cells[3:6])}|{''.join(cells[6:])}")


def ours(spec: str, gt: np.ndarray, thumbnail: np.ndarray) -> tuple[float, float, float, float]:
    """Times of a 64 x 64 view (mean over drawn damages and places), 1 MP, drawing, a thumbnail."""
    chain = parse(spec)
    drawn = [chain.sample(generator(1, i), gt.shape[1:]) for i in range(8)]
    crops = []
    for index, sampled in enumerate(drawn):
        places = torch.randint(0, 960, (8, 2), generator=generator(2, index)).tolist()

        def views(sampled=sampled, places=places) -> None:
            for top, left in places:
                chain.apply(gt, sampled, View(top, left, 64, 64), truth=False)

        crops.append(cost(views, 5) / len(places))
    return (
        statistics.mean(crops),
        cost(lambda: chain.apply(gt, drawn[0], truth=False), 5),
        cost(lambda: chain.sample(generator(1, 0), (768, 512)), 20),
        cost(lambda: chain.apply_small(thumbnail, drawn[0]), 20),
    )


def windows(folder: Path, names: list[str] | None) -> None:
    from relume.priors.regions import regions

    files = [f for f in sorted(folder.iterdir()) if is_image(f) and (not names or f.stem in names)]
    pictures = [read(f).rgb() for f in files]
    labels = [regions(rgb).regions[0] for rgb in pictures]
    print(f"{len(files)} photographs, seed 11")
    for spec, (low, high) in WINDOWS.items():
        chain, values = parse(spec), []
        for index, (rgb, label) in enumerate(zip(pictures, labels, strict=True)):
            sampled = chain.sample(generator(11, index), rgb.shape[-2:], label)
            done = chain.apply(rgb[0], sampled, truth=False, finish="uint8")
            values.append(-10 * np.log10(np.mean((done.lq - done.gt) ** 2)))
        mean = float(np.mean(values))
        verdict = "inside" if low <= mean <= high else "OUTSIDE"
        spread = f"{min(values):.1f}..{max(values):.1f}"
        print(f"{spec:28} {mean:6.2f} dB ({spread}), {verdict} {low}-{high}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--photographs", type=Path, help="folder of good photographs")
    parser.add_argument("--names", type=Path, help="file with the stems to take, one a line")
    given = parser.parse_args()
    if given.photographs:
        windows(given.photographs, given.names and given.names.read_text().split())
    else:
        costs()
